"""Rows of the study of moments, and its claims, written down before they were run."""

from dataclasses import dataclass
from typing import Literal

TESTS = ("cross", "unseen", "same", "graded", "short", "long")
CONTENT = ("cross", "unseen", "same", "graded")
"""Tests of clips as long as those of training."""

SEMANTIC = ("reversal", "upwards", "wall")
OWN = ("within", "best", "both")

Reads = Literal[
    "trained", "random", "pooled", "statistics", "surprise", "random_surprise", "surprised",
    "random_surprised",
]  # fmt: skip
"""What makes features of a clip: moments of the generator, of the same shape with random weights,
or of the generator on means of 2x2 latents; hand-made statistics of the latents; the surprise of
either model; or moments and surprise."""

Kind = Literal[
    "energy", "reward", "comparisons", "labels", "surprise", "student", "bundled", "uncertainty",
    "tuned_energy", "tuned",
]  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A claim to confirm or refute, written down before the runs."""

    says: str
    first: str
    second: str | None = None
    """Row to compare with; None: compare with `margin` itself."""
    tests: tuple[str, ...] = CONTENT
    margin: float = 0.0
    """It holds if the whole interval is above this many points."""


@dataclass(frozen=True)
class Row:
    """A way to fit a judge."""

    name: str
    says: str
    """What it is, for the page."""
    kind: Kind = "reward"
    """`labels`: fitted to labels of the clips that it is tested `on`; `surprise`: fitted to
    nothing, the mean surprise with its sign turned; `student`: to what `reward` says;
    `bundled`: the judge that comes with the package as `gtsvj-toy-lora`, the same for all seeds;
    `tuned_energy`, `tuned`: energy and reward with LoRA on top, trained from the closed form on."""
    reads: Reads = "trained"
    negatives: str | None = "extended"
    """Negatives of the energy; None: no energy."""
    labels: int | None = None
    """Rated clips; None: as in the settings."""
    taps: str = "three"
    """`three`: the package's default, three blocks and the latents; `last`, `latents`, `blocks`
    (the three without the latents), `all`; `first`, `two`, `half`: the latents and as many of the
    first blocks, so that later ones need not run."""
    on: Literal["faults", "semantic", "own"] = "faults"
    """Clips of the tests: with faults, with events that the world forbids, or of generators."""
    energy_input: Literal["free", "penalised"] = "free"
    """Whether ridge regression of aspects penalises the energy."""
    tflop: float | None = None
    """Operations of a score of 49 frames of 480x720 with the same share of the blocks of
    CogVideoX-2B, as `python -m benchmarks.moment_cost` counts them; of students and their
    teacher."""


BLOCKS = (
    (
        Row("reward", "moments, the whole recipe: energy, 400 ratings, 300 comparisons",
            tflop=120.05),
        Row("hand_ridge", "hand-made statistics, ratings and comparisons", reads="statistics",
            negatives=None),
        Row("hand_reward", "... with an energy", reads="statistics"),
        Row("energy", "moments, the energy alone, no label", "energy"),
        Row("hand_energy", "hand-made statistics, the energy alone", "energy", "statistics"),
        Row("no_energy", "`reward` without an energy", negatives=None),
    ),
    (
        Row("reward_50", "`reward`, 50 ratings", labels=50),
        Row("no_energy_50", "`no_energy`, 50 ratings", labels=50, negatives=None),
        Row("reward_150", "`reward`, 150 ratings", labels=150),
        Row("no_energy_150", "`no_energy`, 150 ratings", labels=150, negatives=None),
        Row("reward_25", "`reward`, 25 ratings", labels=25),
        Row("reward_800", "`reward`, 800 ratings", labels=800),
        Row("no_energy_800", "`no_energy`, 800 ratings", labels=800, negatives=None),
        Row("reward_1600", "`reward`, 1,600 ratings", labels=1600),
    ),
    (
        Row("taps_last", "`reward`, the last block alone", taps="last"),
        Row("taps_latents", "`reward`, the latents alone", taps="latents"),
        Row("taps_blocks", "`reward`, three blocks without the latents", taps="blocks"),
    ),
    (
        Row("energy_table", "`energy`, negatives of Table A.1", "energy", negatives="table"),
        Row("reward_table", "`reward`, negatives of Table A.1", negatives="table"),
    ),
    (Row("uncertainty", "the uncertainty of `reward` before its comparisons", "uncertainty"),),
    (
        Row("comparisons", "energy and 300 comparisons, no rating", "comparisons"),
        Row("hand_comparisons", "... of hand-made statistics", "comparisons", "statistics"),
        Row("comparisons_no_energy", "300 comparisons alone", "comparisons", negatives=None),
    ),
    (
        Row("random_energy", "`energy` on a random base", "energy", "random"),
        Row("random_reward", "`reward` on a random base", reads="random"),
    ),
    (
        Row("reversal", "120 labelled pairs", "labels", negatives=None, on="semantic"),
        Row("reversal_random", "... of a random base", "labels", "random", None, on="semantic"),
        Row("reversal_hand", "... of hand-made statistics", "labels", "statistics", None,
            on="semantic"),
        Row("reversal_energy", "`energy`, no label", "energy", on="semantic"),
        Row("reversal_reward", "`reward`, fitted to other faults", on="semantic"),
    ),
    (
        Row("surprise", "the surprise alone, nothing fitted", "surprise", "surprise", None,
            on="semantic"),
        Row("surprise_random", "... of a random base", "surprise", "random_surprise", None,
            on="semantic"),
        Row("reversal_12", "12 labelled pairs", "labels", negatives=None, labels=12,
            on="semantic"),
        Row("reversal_random_12", "... of a random base", "labels", "random", None, 12,
            on="semantic"),
        Row("reversal_hand_12", "... of hand-made statistics", "labels", "statistics", None, 12,
            on="semantic"),
        Row("reversal_surprised_12", "... moments and surprise", "labels", "surprised", None, 12,
            on="semantic"),
        Row("surprised_energy", "`energy` with the surprise", "energy", "surprised",
            on="semantic"),
        Row("reversal_random_energy", "`energy` on a random base", "energy", "random",
            on="semantic"),
        Row("reversal_hand_energy", "... of hand-made statistics", "energy", "statistics",
            on="semantic"),
    ),
    (
        Row("own_labels", "100 ratings of clips of other prompts", "labels", negatives=None,
            on="own"),
        Row("own_hand", "... of hand-made statistics", "labels", "statistics", None, on="own"),
        Row("own_random", "... of a random base", "labels", "random", None, on="own"),
        Row("own_with_energy", "100 ratings, with `energy`", "labels", on="own"),
        Row("own_transfer", "`reward`, fitted to faults of real clips", on="own"),
        Row("own_hand_transfer", "`hand_reward`, likewise", reads="statistics", on="own"),
        Row("own_energy", "`energy`, no label", "energy", on="own"),
        Row("own_hand_energy", "... of hand-made statistics", "energy", "statistics", on="own"),
        Row("own_surprise", "the surprise alone, nothing fitted", "surprise", "surprise", None,
            on="own"),
        Row("own_surprised", "`own_labels` with the surprise", "labels", "surprised", None,
            on="own"),
    ),
    (
        Row("faults_energy", "`energy` with the surprise", "energy", "surprised"),
        Row("faults_reward", "`reward` with the surprise", reads="surprised"),
        Row("faults_surprise", "the surprise alone, nothing fitted", "surprise", "surprise", None),
    ),
    (Row("taps_all", "`reward`, all blocks and the latents", taps="all"),),
    (
        Row("student_1", "latents and block 1, from what `reward` says of 3,816 clips", "student",
            negatives=None, taps="first", tflop=20.02),
        Row("student_2", "... and block 2", "student", negatives=None, taps="two", tflop=40.03),
        Row("student_3", "... and block 3", "student", negatives=None, taps="half", tflop=60.03),
        Row("student_0", "latents alone, no transformer at all", "student", negatives=None,
            taps="latents", tflop=2.885e-5),
        Row("student_pooled", "means of 2x2 latents, all blocks", "student", "pooled", None,
            tflop=16.70),
        Row("student_pooled_2", "... latents, blocks 1 and 2", "student", "pooled", None,
            taps="two", tflop=5.57),
        Row("direct_1", "`reward`, latents and block 1, fitted to the labels", taps="first"),
        Row("direct_2", "... and block 2", taps="two"),
        Row("direct_3", "... and block 3", taps="half"),
    ),
    (
        Row("energy_made", "`energy`, negatives by the generator alone", "energy",
            negatives="made"),
        Row("reward_made", "... `reward`", negatives="made"),
        Row("energy_both", "`energy`, by the generator and by hand", "energy",
            negatives="made_extended"),
        Row("reward_both", "... `reward`", negatives="made_extended"),
    ),
    (Row("trained_full", "`gtsvj-toy-lora`, the recipe trained with LoRA, one seed", "bundled"),),
    (
        Row("penalised", "`reward`, the energy penalised as one more block",
            energy_input="penalised"),
        Row("penalised_50", "... 50 ratings", labels=50, energy_input="penalised"),
    ),
    (
        Row("lora_energy", "`energy`, then LoRA trained from there", "tuned_energy"),
        Row("lora_reward", "... `reward` on the adapted base", "tuned"),
    ),
    (
        Row("random_surprised_energy", "`surprised_energy` on a random base", "energy",
            "random_surprised", on="semantic"),
        Row("reversal_random_surprised_12", "`reversal_surprised_12` on a random base", "labels",
            "random_surprised", None, 12, on="semantic"),
        Row("reversal_surprised", "120 labelled pairs, moments and surprise", "labels",
            "surprised", None, on="semantic"),
        Row("reversal_random_surprised", "... of a random base", "labels", "random_surprised",
            None, on="semantic"),
    ),
)  # fmt: skip
"""Rows, the most important first; a block is run with every seed before the next."""

ROWS = tuple(row for block in BLOCKS for row in block)
TEACHER = ROWS[0]
"""`reward`, which students learn from."""


CLAIMS = (
    Claim("The reward beats hand-made statistics with ridge regression", "reward", "hand_ridge"),
    Claim("... and hand-made statistics that are given an energy too", "reward", "hand_reward"),
    Claim("... and the energy of hand-made statistics", "reward", "hand_energy"),
    Claim("The energy beats the energy of hand-made statistics", "energy", "hand_energy"),
    Claim("Labels improve on the energy", "reward", "energy"),
    Claim("Blur and ghosting of latents improve the energy", "energy", "energy_table"),
    Claim("... and the reward", "reward", "reward_table"),
    Claim("The energy helps the reward at 50 labels", "reward_50", "no_energy_50"),
    Claim("... at 150 labels", "reward_150", "no_energy_150"),
    Claim("... at 400 labels", "reward", "no_energy"),
    Claim("... at 800 labels", "reward_800", "no_energy_800"),
    Claim("25 labels improve on the energy", "reward_25", "energy"),
    Claim("800 labels improve on 400", "reward_800", "reward"),
    Claim("... and 1,600 on 800", "reward_1600", "reward_800"),
    Claim("A trained base beats a random one", "reward", "random_reward"),
    Claim("... for the energy", "energy", "random_energy"),
    Claim("Three blocks and the latents beat the last block", "reward", "taps_last"),
    Claim("... and the latents alone", "reward", "taps_latents"),
    Claim("... and the three blocks without the latents", "reward", "taps_blocks"),
    Claim("... and lose less than 1.5 points against all blocks", "reward", "taps_all",
          margin=-1.5),
    Claim("300 comparisons alone beat the energy", "comparisons", "energy"),
    Claim("... and hand-made statistics from the same comparisons and energy", "comparisons",
          "hand_comparisons"),
    Claim("The energy helps a judge of comparisons alone", "comparisons",
          "comparisons_no_energy"),
    Claim("The reward beats the bundled recipe trained with LoRA", "reward", "trained_full"),
    Claim("The reward beats hand-made ridge at other lengths", "reward", "hand_ridge",
          ("short", "long")),
    Claim("Labels on a generator's own clips: moments beat hand-made statistics",
          "own_labels", "own_hand", OWN),
    Claim("... and a judge that was fitted to faults of real clips", "own_labels", "own_transfer",
          OWN),
    Claim("Without labels on these clips, the reward beats the energy of hand-made statistics",
          "own_transfer", "own_hand_energy", OWN),
    Claim("... and the whole recipe on hand-made statistics", "own_transfer", "own_hand_transfer",
          OWN),
    Claim("A fall or bounce played backwards: moments of the trained base beat a random one",
          "reversal", "reversal_random", SEMANTIC),
    Claim("... and hand-made statistics", "reversal", "reversal_hand", SEMANTIC),
    Claim("... with 12 labelled pairs, the random one", "reversal_12", "reversal_random_12",
          SEMANTIC),
    Claim("... with 12 labelled pairs, hand-made statistics", "reversal_12", "reversal_hand_12",
          SEMANTIC),
    Claim("... and the label-free energy is better than chance", "reversal_energy", None,
          SEMANTIC, margin=50.0),
    Claim("The generator's surprise, nothing fitted, is better than chance", "surprise", None,
          SEMANTIC, margin=50.0),
    Claim("... and better than that of a random base", "surprise", "surprise_random", SEMANTIC),
    Claim("... and than 12 labelled pairs", "surprise", "reversal_12", SEMANTIC),
    Claim("With the surprise the energy does better on such events", "surprised_energy",
          "reversal_energy", SEMANTIC),
    Claim("... and 12 labelled pairs do", "reversal_surprised_12", "reversal_12", SEMANTIC),
    Claim("On faults, the energy gains by the surprise", "faults_energy", "energy"),
    Claim("... and the reward does", "faults_reward", "reward"),
    Claim("Negatives by the generator alone do for the energy what those by hand do (2 points)",
          "energy_made", "energy", margin=-2.0),
    Claim("... and beat those of Table A.1", "energy_made", "energy_table"),
    Claim("... for the reward they do as well (1.5 points)", "reward_made", "reward", margin=-1.5),
    Claim("Both kinds of negatives beat those by hand", "energy_both", "energy"),
    Claim("A student of one block of six loses less than 1.5 points", "student_1", "reward",
          margin=-1.5),
    Claim("... of two blocks", "student_2", "reward", margin=-1.5),
    Claim("... of three blocks", "student_3", "reward", margin=-1.5),
    Claim("... of the latents alone", "student_0", "reward", margin=-1.5),
    Claim("... of means of 2x2 latents", "student_pooled", "reward", margin=-1.5),
    Claim("... of two blocks of these", "student_pooled_2", "reward", margin=-1.5),
    Claim("A student of one block beats the same fitted to the labels", "student_1", "direct_1"),
    Claim("... of two blocks", "student_2", "direct_2"),
    Claim("A penalised energy serves the reward better", "penalised", "reward"),
    Claim("... with 50 ratings", "penalised_50", "reward_50"),
    Claim("LoRA trained from the closed form on improves the energy", "lora_energy", "energy"),
    Claim("... and the reward", "lora_reward", "reward"),
    Claim("With the surprise, the energy of the trained base beats that of a random one",
          "surprised_energy", "random_surprised_energy", SEMANTIC),
    Claim("... and 12 labelled pairs do", "reversal_surprised_12", "reversal_random_surprised_12",
          SEMANTIC),
    Claim("... and 120 labelled pairs do", "reversal_surprised", "reversal_random_surprised",
          SEMANTIC),
    Claim("Labels on own clips: the trained base beats a random one", "own_labels", "own_random",
          OWN),
    Claim("... the surprise helps", "own_surprised", "own_labels", OWN),
    Claim("... and so does the energy", "own_with_energy", "own_labels", OWN),
)  # fmt: skip
