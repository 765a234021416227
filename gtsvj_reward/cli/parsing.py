"""What all commands share: their names, help and YAML defaults."""

import argparse
import json
from pathlib import Path

COMMANDS = {
    "demo": "train a small judge on real clips on this machine and report on unseen footage",
    "encode": "turn a folder of videos into latent files",
    "train-discriminator": "stage 1: train the energy judge",
    "train-aspects": "stage 2: predict aspect scores from ratings",
    "train-preference": "stage 3: one score from comparisons",
    "calibrate-perturbations": "measure how hard each perturbation is, and how often to sample it",
    "score": "score a folder of videos or latent files",
    "rank": "order the clips of each prompt, and write pairs for DPO",
    "evaluate": "accuracy of any reward model's scores on a preference benchmark",
    "inspect": "say what a checkpoint is and which pipelines it fits",
    "serve": "score latents over HTTP",
}


def subparser(command: str) -> argparse.ArgumentParser:
    """The parser of one command; its help shows the defaults."""
    return argparse.ArgumentParser(
        prog=f"gtsvj {command}",
        description=COMMANDS[command],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def with_config(argv: list[str]) -> list[str]:
    """Flags with those of `--config FILE.yaml` put in front, so that flags win."""
    import yaml

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(argv)
    if known.config is None:
        return rest
    values = yaml.safe_load(known.config.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{known.config} must hold `name: value` lines, got {type(values)}")
    flags: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        texts = [json.dumps(item) if isinstance(item, dict) else str(item) for item in items]
        flags += [f"--{name}", *texts]
    return flags + rest
