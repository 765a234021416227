"""Seconds and memory to fit a moment judge from cached features.

    python -m benchmarks.fit --clips 1000
    python -m benchmarks.fit --clips 10000      # about 8 GiB
    python -m benchmarks.fit --clips 100000 --taps 0 30 --projection_width 2048     # about 9 GiB

The features are random, as many as CogVideoX-2B gives at some taps, three blocks and the latents by
default, with aspects planted in them. What is timed is stage 2: standardise, choose the penalties,
solve, posterior; with `--projection_width` in a random projection, as a process of many does it.
Clips that were not fitted tell whether the aspects were found.
"""

import argparse
import os
import resource
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from gtsvj_reward.judge.readout import tap_widths
from gtsvj_reward.training.closed_form.ridge import Fit, Rows, choose_penalties
from gtsvj_reward.training.closed_form.sketch import BlockProjection
from gtsvj_reward.training.closed_form.spread import shared_standard, solve_spread
from gtsvj_reward.training.closed_form.stages import Standard, solve_aspects

TAPS = (0, 10, 20, 30)
"""Default taps of the 2B: 112 + 3 * 13,440 features."""

HIDDEN = 40
"""Directions in which the clips vary most; the aspects are combinations of them."""


def planted(clips: int, aspects: int, widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features in float32, as they are cached, and range-normalised ratings with noise."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(clips, HIDDEN, generator=generator)
    features = torch.empty(clips, sum(widths))
    for part in features.split(1024, dim=1):  # never a second copy of all
        mixing = torch.randn(HIDDEN, part.shape[1], generator=generator) / HIDDEN**0.5
        part.normal_(generator=generator).addmm_(hidden, mixing)
    ratings = hidden @ torch.randn(HIDDEN, aspects, generator=generator) / HIDDEN**0.5
    noise = 0.5 * torch.randn(clips, aspects, generator=generator)
    return features, (0.5 + 0.15 * (ratings + noise)).double()


def peak() -> float:
    """Largest resident size of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(clips: int, aspects: int, widths: tuple[int, ...]) -> str:
    """Fit, and report time and memory."""
    apart = max(50, clips // 10)
    features, targets = planted(clips + apart, aspects, widths)
    idle = peak()
    groups = torch.arange(clips)
    working = time.process_time()
    began = time.perf_counter()
    standard = Standard.of(features[:clips])
    rows = standard(features[:clips])
    standardised = time.perf_counter()
    ones = rows.new_ones(clips)
    chosen = choose_penalties(Rows(rows, widths, groups, ones, rows[:, :0]), targets[:clips])
    searched = time.perf_counter()
    solved = solve_aspects(
        rows, widths, targets[:clips], groups, energy=None, seed=0, penalties=chosen.penalties
    )
    ended, worked = time.perf_counter(), time.process_time() - working
    most = peak()
    found = agreement(solved.fit, standard, features[clips:], targets[clips:])
    return (
        f"{clips:,} clips of {sum(widths):,} features, {aspects} aspects: {ended - began:.1f} s, "
        f"{worked:.1f} s of processor time (standardise {standardised - began:.1f}, "
        f"choose among {chosen.tried} penalties {searched - standardised:.1f}, "
        f"solve {ended - searched:.1f}); peak {most:.1f} GiB, of which features as cached "
        f"{idle:.1f}; correlation with new noisy ratings {found:.2f}"
    )


def measure_projected(clips: int, aspects: int, widths: tuple[int, ...], width: int) -> str:
    """Fit in a random projection, and report time and memory."""
    apart = 500
    features, targets = planted(clips + apart, aspects, widths)
    idle, groups = peak(), torch.arange(clips)
    working, began = time.process_time(), time.perf_counter()
    standard = shared_standard(features[:clips])
    standardised = time.perf_counter()
    solved = solve_spread(
        groups,
        features[:clips],
        standard,
        BlockProjection(widths, width, seed=0),
        widths,
        targets[:clips],
        groups,
        torch.ones(clips).double(),
        energy=None,
        seed=0,
    )
    ended, worked = time.perf_counter(), time.process_time() - working
    most = peak()
    found = agreement(solved.fit, standard, features[clips:], targets[clips:])
    return (
        f"{clips:,} clips of {sum(widths):,} features projected to {width:,}, {aspects} aspects: "
        f"{ended - began:.1f} s, {worked:.1f} s of processor time (standardise "
        f"{standardised - began:.1f}, project, choose among {solved.penalties.tried} penalties and "
        f"solve {ended - standardised:.1f}); peak {most:.1f} GiB, of which features as cached "
        f"{idle:.1f}; correlation with new noisy ratings {found:.2f}"
    )


def agreement(fit: Fit, standard: Standard, features: Tensor, targets: Tensor) -> float:
    """Correlation of the first aspect with ratings of clips that were not fitted."""
    new = standard(features)
    predicted = fit(new, new[:, :0])
    return torch.corrcoef(torch.stack([predicted[:, 0], targets[:, 0]]))[0, 1].item()


def main() -> None:
    """Measure and print, with the load of the machine before it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--aspects", type=int, default=21)
    parser.add_argument("--taps", type=int, nargs="+", default=TAPS, help="of CogVideoX-2B")
    parser.add_argument("--projection_width", type=int, help="none: all features")
    args = parser.parse_args()
    widths = tap_widths(args.taps, latent_channels=16, dim=1920)
    print(f"threads {torch.get_num_threads()}, load before {os.getloadavg()[0]:.1f}")
    if args.projection_width is None:
        print(measure(args.clips, args.aspects, widths))
    else:
        print(measure_projected(args.clips, args.aspects, widths, args.projection_width))


if __name__ == "__main__":
    main()
