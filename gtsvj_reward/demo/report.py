"""The demo's numbers: in the terminal, and as a record."""

from collections.abc import Sequence
from typing import Any

import torch

from gtsvj_reward.demo.compare import Comparison
from gtsvj_reward.demo.story import Story
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.tables import text_table

CANNOT = (
    "These results do not apply to real footage or CogVideoX. The base transformer is tiny and was "
    "trained on a few scenes, there is no generator, and the pairs come from very few scenes. "
    "When such a judge ranked other real clips with a known better one, its accuracy was at "
    "chance. The demo only shows the workflow, from video files to scores."
)


def percent(share: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * share:.0f}%"


def wins(item: Comparison) -> tuple[float, int]:
    """In how many pairs the clean clip scored higher (ties count half), and how many there are."""
    result = pairwise_accuracy(torch.tensor(item.clean), torch.tensor(item.faulty))
    return result.accuracy * result.pairs, result.pairs


def table_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Header and one row per fault."""
    rows = [["fault", "in training", "clean clip scored higher"]]
    for item in comparisons:
        right, pairs = wins(item)
        kind = "perturbation" if item.trained else "never trained on"
        rows.append([item.kind.replace("_", " "), kind, f"{right:g} of {pairs}"])
    return rows


def story_rows(story: Story) -> list[list[str]]:
    """Header, one row per prompt, and the mean: shares of the possible gain."""
    rows = [["prompt", "without labels", f"after {len(story.ratings)} ratings"]]
    for prompt, before, after in zip(
        story.candidates.prompts, story.before, story.after, strict=True
    ):
        rows.append([prompt, percent(before.gain), percent(after.gain)])
    return [*rows, ["mean", *(percent(gain) for gain in story.gains())]]


def print_story(story: Story) -> None:
    """The first part in the terminal."""
    print(
        f"\nBest of {story.candidates.each}, measured in pixels: share of the possible gain\n"
        f"(0%: a clip at random; 100%: the steadiest of all)\n\n{text_table(story_rows(story))}",
        flush=True,
    )


def print_footage(comparisons: Sequence[Comparison]) -> None:
    """The second part in the terminal."""
    print(f"\n{text_table(table_rows(comparisons))}\n{CANNOT}", flush=True)


def story_record(story: Story) -> dict[str, Any]:
    """Everything that was measured in the first part, as JSON values."""
    lot = story.candidates
    return {
        "prompts": lot.prompts,
        "steadiness": [lot.steadiness[lot.rows(n)].tolist() for n in range(len(lot.prompts))],
        "before": [vars(choice) for choice in story.before],
        "after": [vars(choice) for choice in story.after],
        "gains": list(story.gains()),
        "ratings": story.ratings,
        "seconds": story.seconds,
        "counts": story.counts,
    }
