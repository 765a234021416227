"""Put the toy world's trained models where the package looks for them, with cards and hashes.

    python -m tools.toy.bundle pipeline --from runs/toy/pipeline \
        --figures tools/toy/figures/generator.json
    python -m tools.toy.bundle detector --from runs/toy/detector
    python -m tools.toy.bundle unsteady --from runs/toy/unsteady/lora
    python -m tools.toy.bundle flow --from runs/toy/flow/pipeline \
        --figures tools/toy/figures/flow.json --generator "9,700 steps of 16, 6,000 clips"
    python -m tools.toy.bundle flow_unsteady --from runs/toy/flow-unsteady/lora
    python -m tools.toy.bundle judge --from runs/study --seed 0

The judge is the study's row `full`, with the seed that is asked for.
"""

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from gtsvj_reward.assets import ASSETS, MANIFEST, ROOT
from gtsvj_reward.files import file_sha256, write_text
from gtsvj_reward.toy.pipeline import FLOW, FLOW_UNSTEADY, PIPELINE, UNSTEADY

PIPELINE_CARD = """# gtsvj-toy-pipeline

A `CogVideoXPipeline` of the toy world: 17 frames of 64x64 at 8 frames per second with one or two
plain shapes over a soft background. It knows only 96 prompts, like "two red squares bouncing" (one,
two; red, green, blue, yellow; square, circle, triangle; drifting, bouncing, falling, orbiting). A
call needs `num_frames=17, height=64, width=64, max_sequence_length=8`, as passed by
`gtsvj_reward.toy.pipeline.sample`.

| part | what | parameters | trained |
|---|---|---|---|
| `vae` | `AutoencoderKLCogVideoX` (8x space, 4x time, 16 channels) | {vae:,} | {codec} |
| `transformer` | `CogVideoXTransformer3DModel`, 6 blocks of 128 | {transformer:,} | {generator} |
| `text_encoder` | `T5EncoderModel` of one layer, one token per word | {text_encoder:,} | same |
| `scheduler` | `CogVideoXDDIMScheduler`, v-prediction, zero terminal SNR | | |

Stored in float16. Seed 0. Figures over {clips} random prompts, guidance {guidance:g}: percentage
of clips in which `gtsvj-toy-detector` finds what the prompt names, with 95% Wilson intervals, and
the Fréchet distance of its features to those of {clips} real clips. Real clips, encoded and
decoded, are the reference:

{table}

It runs latents, prompts, guidance and judges together, in seconds on a CPU; it generates only clips
of this world. Remake it with `make toy`: the same number of steps on another machine gives other
weights of the same quality.

Licence: Apache-2.0. The only footage is that of `gtsvj-demo-codec`, from which the VAE started.
"""

FLOW_CARD = """# gtsvj-toy-flow-pipeline

A `WanPipeline` of the toy world, trained by flow matching: the same clips, prompts, codec and text
encoder as `gtsvj-toy-pipeline`, so both share a latent space.
`gtsvj_reward.toy.pipeline.load_pipeline` puts that codec into it; the pipeline returns latents
(`output_type="latent"`), which `gtsvj_reward.toy.pipeline.decode` decodes. The pipeline itself
decodes only with Wan's own VAE.

| part | what | parameters | trained |
|---|---|---|---|
| `transformer` | `WanTransformer3DModel`, 4 blocks of 128 | {transformer:,} | {generator} |
| `text_encoder` | that of `gtsvj-toy-pipeline`, as `UMT5EncoderModel` | {text_encoder:,} | |
| `scheduler` | `FlowMatchEulerDiscreteScheduler`, `shift_terminal` 0.1 | | |

Stored in float16. Seed 0. It was trained on the same clips and for as many steps as
`gtsvj-toy-pipeline`. Figures over {clips} random prompts, guidance {guidance:g}, as on the card of
that generator. Chance is 50, 25, 33 and 25 percent:

{table}

Remake it with `make toy`: the same number of steps on another machine gives other weights of the
same quality. Licence: Apache-2.0. The codec's footage is that of `gtsvj-demo-codec`.
"""

DETECTOR_CARD = """# gtsvj-toy-detector

A small 3D convolutional network that classifies number, colour, shape and motion in clips of the
toy world: {parameters:,} parameters, trained on {steps} batches of 32 rendered clips, seed 0.
Accuracy on 512 unseen clips: {accuracy}.

It was trained without a generator, codec or judge, so it can check whether a generator trained with
a judge still follows prompts. It does not measure how good a clip looks.

Remake it with `make toy`. Licence: Apache-2.0.
"""


UNSTEADY_CARD = """# {name}

A LoRA adapter that makes `{base}` a generator of mixed quality: rank 16 on q, k, v and
out of all blocks, {steps} steps of {batch} on {clips} clips: half clean, a quarter with
flicker, a quarter with colour drift. `load_pipeline("{name}")` merges it.
{use}

How far the mean colour of the frames moves over time (`colour_unrest`, grey levels), mean and tenth
to ninetieth percentile of 96 clips of 16 prompts, without guidance:

| denoising steps | `{base}` | `{name}` |
|---|---|---|
{table}

Remake it with `make toy`. Licence: Apache-2.0.
"""

JUDGE_CARD = """# {name}

{title} of the toy world (`docs/toy.md`): seed {seed} of the row `full` of
the study in `docs/study`, where its accuracies are. It scores only clips of that world.
"""


def figures_table(figures: dict[str, dict[str, object]]) -> str:
    """One row for real clips and one for each number of steps."""
    columns = ("count", "colour", "shape", "motion", "caption")
    lines = [f"| clips | {' | '.join(columns)} | Fréchet |", "|---" * (len(columns) + 2) + "|"]
    for name, row in figures.items():
        cells = []
        for column in columns:
            low, high = row["intervals"][column]
            share = row["shares"][column]
            cells.append(f"{100 * share:.0f} ({100 * low:.0f}-{100 * high:.0f})")
        lines.append(f"| {name} | {' | '.join(cells)} | {row['frechet']:.1f} |")
    return "\n".join(lines)


def place(source: Path, name: str) -> Path:
    """A fresh copy of a folder of models among the assets."""
    out = ROOT / name
    shutil.rmtree(out, ignore_errors=True)
    keep = ("*.json", "*.safetensors", "README.md")
    files = sorted({file for pattern in keep for file in source.rglob(pattern)})
    for file in files:
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return out


def seal(folder: Path) -> None:
    """Write the hashes of all files that are loaded, sub-folders included."""
    files = sorted({*folder.rglob("*.json"), *folder.rglob("*.safetensors")})
    hashes = {
        file.relative_to(folder).as_posix(): file_sha256(file)
        for file in files
        if file.name != MANIFEST
    }
    write_text(folder / MANIFEST, json.dumps(hashes, indent=2) + "\n")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder.name}: {len(hashes)} files, {size / 1e6:.2f} MB")


def bundle_pipeline(
    source: Path, figures: Path, name: str, card: str, parts: Sequence[str], **trained: str
) -> None:
    """A pipeline with the figures that `measure.py` wrote, and the parameters of its parts."""
    from gtsvj_reward.toy.pipeline import GUIDANCE, load_pipeline

    pipe = load_pipeline(source)
    counts = {part: sum(p.numel() for p in getattr(pipe, part).parameters()) for part in parts}
    values = json.loads(figures.read_text())
    values.pop("prompts")
    out = place(source, ASSETS[name])
    text = card.format(
        **counts,
        **trained,
        clips=values["real"]["clips"],
        guidance=GUIDANCE,
        table=figures_table(values),
    )
    write_text(out / "README.md", text)
    seal(out)


def bundle_detector(source: Path) -> None:
    """The detector with its accuracy."""
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    out = place(source, "toy_detector")
    card = DETECTOR_CARD.format(
        parameters=sum(t.numel() for t in load_file(source / "model.safetensors").values()),
        steps=config["steps"],
        accuracy=", ".join(f"{k} {100 * v:.1f}%" for k, v in config["held_out_accuracy"].items()),
    )
    write_text(out / "README.md", card)
    seal(out)


def bundle_unsteady(source: Path, name: str, use: str, counts: Sequence[int]) -> None:
    """The adapter of a generator of mixed quality, and how unsteady it makes clips."""
    config = json.loads((source / "config.json").read_text())
    out = place(source, ASSETS[name])
    seal(out)
    measured = [unrest(one, counts) for one in (config["base"], name)]
    rows = [
        f"| {steps} | {before} | {after} |"
        for (steps, before), after in zip(measured[0].items(), measured[1].values(), strict=True)
    ]
    card = UNSTEADY_CARD.format(name=name, use=use, table="\n".join(rows), **config)
    write_text(out / "README.md", card)


def unrest(name: str, counts: Sequence[int]) -> dict[int, str]:
    """Number of denoising steps -> mean and percentiles of the unrest of clips."""
    import torch

    from gtsvj_reward.toy.measures import colour_unrest
    from gtsvj_reward.toy.pipeline import decode, load_pipeline, sample
    from gtsvj_reward.toy.world import captions

    pipe, found = load_pipeline(name), {}
    order = torch.randperm(96, generator=torch.Generator().manual_seed(1))[:16].tolist()
    prompts = [captions()[index] for index in order for _ in range(6)]
    for steps in counts:
        latents = sample(pipe, prompts, range(96), steps=steps, guidance=1.0)
        values = colour_unrest(torch.stack(decode(pipe, latents)))
        low, high = values.quantile(0.1).item(), values.quantile(0.9).item()
        found[steps] = f"{values.mean().item():.1f} ({low:.1f} to {high:.1f})"
    return found


def bundle_judge(study: Path, seed: int) -> None:
    """The three stages of the study's full recipe, each a judge of its own."""
    judges = study / "judges" / f"full-{seed}"
    stages = {
        "gtsvj-toy-discriminator": study / "stage1" / f"full-{seed}",
        "gtsvj-toy-aspects": judges / "aspects",
        "gtsvj-toy-lora": judges / "preference",
    }
    wanted = (
        "config.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "README.md",
    )
    for name, source in stages.items():
        out = ROOT / ASSETS[name]
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for file in wanted:
            shutil.copy(source / file, out / file)
        text = (source / "README.md").read_text()
        front, title, rest = re.split(r"^# (.*)$\n\n", text, maxsplit=1, flags=re.MULTILINE)
        card = front + JUDGE_CARD.format(name=name, title=title, seed=seed) + "\n" + rest
        write_text(out / "README.md", card.replace("PATH_OR_ID_OF_THIS_CHECKPOINT", name))
        seal(out)


def main() -> None:
    """Read the command line and bundle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("pipeline", "detector", "unsteady", "flow", "flow_unsteady", "judge")
    parser.add_argument("part", choices=parts)
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="what measure.py wrote")
    parser.add_argument("--codec", default="", help="how the codec was trained, for the card")
    parser.add_argument("--generator", default="", help="how the generator was, for the card")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.part == "pipeline":
        parts = ("vae", "transformer", "text_encoder")
        trained = {"codec": args.codec, "generator": args.generator}
        bundle_pipeline(args.source, args.figures, PIPELINE, PIPELINE_CARD, parts, **trained)
    elif args.part == "flow":
        parts = ("transformer", "text_encoder")
        trained = {"generator": args.generator}
        bundle_pipeline(args.source, args.figures, FLOW, FLOW_CARD, parts, **trained)
    elif args.part == "detector":
        bundle_detector(args.source)
    elif args.part == "unsteady":
        use = "The alignment examples start from it."
        bundle_unsteady(args.source, UNSTEADY, use, (5, 25))
    elif args.part == "flow_unsteady":
        use = "The flow rows of the alignment study start from it."
        bundle_unsteady(args.source, FLOW_UNSTEADY, use, (5,))
    else:
        bundle_judge(args.source, args.seed)


if __name__ == "__main__":
    main()
