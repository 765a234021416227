"""What judges cost at scale: hours and GPU hours of 10^5 to 10^8 clips on 1, 8, 64 and 512 GPUs.

    python -m benchmarks.scale

Computed, not measured: a clip takes what one clip took on one GPU (`results/gpu_costs.json`), clips
do not communicate, and GPUs are taken to be busy all the time. Bytes follow from shapes.
"""

import argparse
import json
from pathlib import Path

from benchmarks.cost import table
from gtsvj_reward.judge.moments import MOMENTS

RESULTS = Path(__file__).resolve().parent / "results"
CLIPS = (10**5, 10**6, 10**7, 10**8)
GPUS = (1, 8, 64, 512)
MODELS = ("CogVideoX-2B", "CogVideoX-5B", "Wan2.1-1.3B", "Wan2.1-14B")
WHATS = ("judge, all blocks", "judge, 1/3", "judge, 1/3, pooled 2x")
LATENTS = 13 * 16 * 60 * 90
"""Values of a clip of 49 frames of 480x720 of CogVideoX."""
FEATURES = len(MOMENTS) * (3 * 1920 + 16)
"""Of such a clip: three taps of CogVideoX-2B, and the latents."""


def seconds_of(model: str, what: str) -> float:
    """Seconds of scoring one clip on one GPU, as measured."""
    rows = json.loads((RESULTS / "gpu_costs.json").read_text())["rows"]
    (row,) = (r for r in rows if (r["model"], r["part"], r["what"]) == (model, "scores", what))
    return float(row["ms"]) / 1000


def span(seconds: float) -> str:
    """Text of a time, in the largest unit that gives at least 1."""
    units = {"d": 86400, "h": 3600, "min": 60}
    for name, size in units.items():
        if seconds >= size:
            return f"{short(seconds / size)} {name}"
    return f"{short(seconds)} s"


def short(number: float) -> str:
    """Text with three digits, or all digits before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def times() -> str:
    """Time of each number of clips, for each judge and number of GPUs."""
    head = ["model", "judge", "GPU hours per 10^6", *(f"10^{len(str(c)) - 1}" for c in CLIPS)]
    lines = [head, ["---"] * len(head)]
    for model in MODELS:
        for what in WHATS:
            each = seconds_of(model, what)
            spans = [" / ".join(span(each * clips / gpus) for gpus in GPUS) for clips in CLIPS]
            hours = short(each * 10**6 / 3600)
            lines.append([model, what.removeprefix("judge, "), hours, *spans])
    return table(lines)


def sizes() -> str:
    """Bytes of latents, features and scores."""
    each = {
        "latents, bfloat16": 2 * LATENTS,
        "features of CogVideoX-2B, three taps, float32": 4 * FEATURES,
    }
    head = ["", "one clip, MB", *(f"10^{len(str(c)) - 1} clips, TB" for c in CLIPS)]
    lines = [head, ["---"] * len(head)]
    for name, size in each.items():
        totals = [f"{size * clips / 1e12:.3g}" for clips in CLIPS]
        lines.append([name, f"{size / 1e6:.3g}", *totals])
    return table(lines)


def main() -> None:
    """Print the tables of `docs/scale.md`."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    print(times(), sizes(), sep="\n\n")


if __name__ == "__main__":
    main()
