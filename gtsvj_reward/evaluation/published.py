"""Accuracies quoted from the paper, to compare with measured ones; none was measured here."""

from dataclasses import dataclass

SOURCE = "GT-SVJ paper, Table 1"
"""Where the numbers come from."""

NOTE = "quoted from the paper, not measured here"
"""Note on them for every table."""


@dataclass(frozen=True)
class PublishedAccuracy:
    """One method on one benchmark, in percent as printed."""

    with_ties: float
    """The column "w/ties", which the paper computes by the scheme of Deutsch et al."""
    without_ties: float
    """The column "w/o ties"."""


PUBLISHED: dict[str, dict[str, PublishedAccuracy]] = {
    "VideoScore": {
        "genai-bench": PublishedAccuracy(49.03, 71.69),
        "monetbench": PublishedAccuracy(49.10, 54.90),
        "videogen-rewardbench": PublishedAccuracy(41.80, 50.22),
    },
    "VisionReward": {
        "genai-bench": PublishedAccuracy(51.56, 72.41),
        "monetbench": PublishedAccuracy(64.00, 72.10),
        "videogen-rewardbench": PublishedAccuracy(56.77, 67.59),
    },
    "VideoReward": {
        "genai-bench": PublishedAccuracy(49.41, 72.89),
        "monetbench": PublishedAccuracy(54.20, 62.25),
        "videogen-rewardbench": PublishedAccuracy(61.26, 73.59),
    },
    "GT-SVJ": {
        "genai-bench": PublishedAccuracy(64.26, 75.15),
        "monetbench": PublishedAccuracy(66.36, 77.76),
        "videogen-rewardbench": PublishedAccuracy(57.01, 68.57),
    },
    "GT-SVJ (p = 0)": {
        "genai-bench": PublishedAccuracy(49.36, 62.41),
        "monetbench": PublishedAccuracy(62.79, 76.12),
        "videogen-rewardbench": PublishedAccuracy(55.42, 65.37),
    },
    "GT-SVJ (No DM)": {
        "genai-bench": PublishedAccuracy(47.62, 59.12),
        "monetbench": PublishedAccuracy(61.82, 73.59),
        "videogen-rewardbench": PublishedAccuracy(53.14, 63.21),
    },
}
"""Method -> benchmark -> accuracies. The paper calls `monetbench` MonteBench and
`videogen-rewardbench` VideoReward-Bench; "p = 0" trains on clips of one length (no truncation),
"No DM" without the discriminative stage."""
