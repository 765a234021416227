"""Fit the bundled judge `gtsvj-toy` in closed form, and compare it with the trained one.

    python -m tools.toy.judge --out runs/toy/moments --bundle

Clips and labels are those of the study (`studies/data.py`), made where they are missing: 800 real
and 320 generated clips, 400 ratings, 300 comparisons. The frozen generator reads each clip once.
"""

import argparse
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from gtsvj_reward.assets import ASSETS, ROOT, folder_of
from gtsvj_reward.files import write_text
from gtsvj_reward.judge import load_judge, save_judge
from gtsvj_reward.toy.raters import ASPECTS
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.aspects import fit_aspects
from gtsvj_reward.training.aspects.settings import AspectFit
from gtsvj_reward.training.discriminator import fit_discriminator
from gtsvj_reward.training.discriminator.settings import DiscriminatorFit
from gtsvj_reward.training.preference import fit_preference
from gtsvj_reward.training.preference.settings import PreferenceFit
from studies import data
from studies.running import SECONDS, accuracies, load_test_clips, score_clips
from tools.toy.bundle import seal

BASE = "gtsvj-toy-pipeline"
SEED = 0
NAME = "gtsvj-toy"
STUDY = Path(__file__).parents[2] / "studies" / "paper_claims.yaml"

FIGURES = "figures.json"
"""Beside the stages: seconds, and accuracies of the last stage and of the trained judge."""
CARD = """# {name}

A judge of the toy world (`docs/toy.md`) that was fitted in closed form, without training steps:
moments of the frozen generator, all three stages. It scores only clips of that world.

Data, as in the study: 800 real clips, each against two draws of Table A.1 with blur and ghosting of
latents, and 320 generated clips; 400 simulated ratings; 300 simulated comparisons. Only the first
stage was fitted to clips of 3 and 4 latent frames. Accuracies in percent on the test pairs of the
study, one fit, beside those of `gtsvj-toy-lora`, trained with LoRA on as many clips and labels:

| test | pairs | `{name}` | `gtsvj-toy-lora` |
|---|---|---|---|
{table}

With the generator's surprise as a further feature such a judge is about one point better on the
same scene and two on graded faults (row `faults_reward` of `docs/study/moments.md`). This one does
not read it: the surprise takes two more generator passes per clip.

Remake it with `python -m tools.toy.judge --bundle`.

Licence: Apache-2.0.
"""


def fit(folder: Path, out: Path, labels: int) -> Path:
    """All three stages; returns the folder of the last.

    Args:
        folder: the study's data.
        out: gets a folder for each stage.
        labels: how many rated clips are used, the first ones of the file.
    """
    before = JudgeArguments()
    arguments = JudgeArguments(base_model=BASE, base_dtype="float32", readout="moments")
    common: dict[str, Any] = {"seed": SEED, "features": str(out / "features"), "batch_size": 40}
    fit_discriminator(
        arguments,
        DiscriminatorFit(
            real=str(folder / "real"),
            generated=str(folder / "generated"),
            held_out_real=str(folder / "real_held_out"),
            held_out_generated=str(folder / "generated_held_out"),
            perturbations="extended",
            draws=2,
            output_dir=str(out / "discriminator"),
            **SECONDS,
            **common,
        ),
    )
    header, *rows = (folder / "rated.csv").read_text().splitlines()
    write_text(out / "rated.csv", "\n".join([header, *rows[:labels]]) + "\n")
    labelled = {"latents": str(folder / "labelled"), **common}
    fit_aspects(
        before,
        AspectFit(
            from_judge=str(out / "discriminator"),
            ratings=str(out / "rated.csv"),
            held_out_ratings=str(folder / "rated_held_out.csv"),
            aspects=[f"{name}=1:5" for name in ASPECTS],
            output_dir=str(out / "aspects"),
            **labelled,
        ),
    )
    fit_preference(
        before,
        PreferenceFit(
            from_judge=str(out / "aspects"),
            comparisons=str(folder / "compared.csv"),
            held_out_comparisons=str(folder / "compared_held_out.csv"),
            output_dir=str(out / "preference"),
            **labelled,
        ),
    )
    lengths_of_discriminator(out / "discriminator", out / "preference")
    return out / "preference"


def lengths_of_discriminator(discriminator: Path, judge: Path) -> None:
    """Let the last stage score cut clips too, which only the first was trained on; see `short`."""
    fitted = load_judge(judge)
    fitted.config = replace(fitted.config, geometry=load_judge(discriminator).config.geometry)
    save_judge(fitted, judge)


def measured(judge: str | Path, folder: Path) -> dict[str, list[float]]:
    """Test -> accuracy and number of pairs; faults of one kind of test are taken together."""
    pairs = data.test_pairs(folder)
    scores, _ = score_clips(load_judge(folder_of(judge)), load_test_clips(folder / "test", pairs))
    together: dict[str, list[list[float]]] = {}
    for group, result in accuracies(pairs, scores).items():
        name = group if group.startswith("cross") else group.split("/")[0]
        together.setdefault(name, []).append(result)
    found = {}
    for name, results in together.items():
        count = sum(pairs for _, pairs in results)
        found[name] = [sum(share * pairs for share, pairs in results) / count, count]
    return found


def bundle(source: Path) -> None:
    """Bundle the last stage, with a card of its accuracies."""
    out = ROOT / ASSETS[NAME]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for file in ("config.json", "head.safetensors"):
        shutil.copy(source / "preference" / file, out / file)
    record = json.loads((source / FIGURES).read_text())
    fitted, trained = (record["accuracy"][key] for key in ("fitted", "trained"))
    rows = [
        f"| {test} | {pairs:.0f} | {100 * share:.1f} | {100 * trained[test][0]:.1f} |"
        for test, (share, pairs) in fitted.items()
    ]
    text = (source / "preference" / "README.md").read_text()
    front, _, rest = re.split(r"^# (.*)$\n\n", text, maxsplit=1, flags=re.MULTILINE)
    card = CARD.format(name=NAME, table="\n".join(rows))
    card = front + card + "\n" + rest
    write_text(out / "README.md", card.replace("PATH_OR_ID_OF_THIS_CHECKPOINT", NAME))
    seal(out)


def main() -> None:
    """Read the command line, fit and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="of the study; made in --out by default")
    parser.add_argument("--against", default="gtsvj-toy-lora", help="judge to compare with")
    parser.add_argument("--bundle", action="store_true", help="put it among the assets")
    args = parser.parse_args()
    settings = yaml.safe_load(STUDY.read_text())
    folder = args.data or args.out / "data"
    data.build(folder, settings["sizes"], pipeline=BASE)
    data.build_generated(folder, settings["sizes"], pipeline=BASE)
    began = time.monotonic()
    judge = fit(folder, args.out, settings["labels"])
    seconds = round(time.monotonic() - began)
    print(f"fitted in {seconds} s, reading the clips included")
    figures = {"fitted": measured(judge, folder), "trained": measured(args.against, folder)}
    record = {"seconds": seconds, "accuracy": figures}
    write_text(args.out / FIGURES, json.dumps(record, indent=1) + "\n")
    for name, (share, pairs) in figures["fitted"].items():
        trained = figures["trained"][name][0]
        print(f"{name}: {100 * share:.1f}, trained {100 * trained:.1f} ({pairs:.0f} pairs)")
    if args.bundle:
        bundle(args.out)


if __name__ == "__main__":
    main()
