"""`gtsvj models`."""

import json
from pathlib import Path

from gtsvj_reward.cli.parsing import subparser


def models(argv: list[str]) -> int:
    """`gtsvj models`."""
    parser = subparser("models")
    parser.add_argument("name", nargs="?", help="print the card of this model")
    args = parser.parse_args(argv)

    from gtsvj_reward.assets import ASSETS, asset_path

    if args.name is not None:
        print((asset_path(args.name) / "README.md").read_text(encoding="utf-8"))
        return 0
    for name in ASSETS:
        folder = asset_path(name)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{name:<24} {size / 1e6:4.1f} MB  {kind_of(folder)}")
    return 0


def kind_of(folder: Path) -> str:
    """Kind of a bundled model, from its files."""
    if (folder / "model_index.json").is_file():
        return str(json.loads((folder / "model_index.json").read_text())["_class_name"])
    config = json.loads((folder / "config.json").read_text())
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        return f"LoRA adapter that makes {config['base']} unsteady"
    if "stage" in config:
        return f"judge, stage {config['stage']}, readout {config.get('readout', 'mlp')}"
    return str(config["_class_name"])
