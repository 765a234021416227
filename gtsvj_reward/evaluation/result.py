"""The result of an evaluation, and its file `result.json`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gtsvj_reward.latents.json_types import from_values

FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation, on which the numbers depend."""

    calibration_fraction: float = 0.5
    """Share of the prompts (of the pairs, without prompts) that the held-out method fits its
    threshold on; between 0 and 1."""
    resamples: int = 1000
    """Bootstrap resamples of each interval; at least 1."""
    confidence: float = 0.95
    """Coverage of the intervals; between 0 and 1."""
    seed: int = 0
    """Of the split and of the resampling."""

    def __post_init__(self) -> None:
        for name in ("calibration_fraction", "confidence"):
            if not 0 < vars(self)[name] < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {vars(self)[name]}")
        if self.resamples < 1:
            raise ValueError(f"`resamples` must be at least 1, got {self.resamples}")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of pairs that one method counts as right, and what it rests on."""

    accuracy: float
    """0..1."""
    interval: tuple[float, float] | None
    """Bootstrap over groups; None: all counted pairs are in one group, or the threshold was fitted
    on the same pairs, whose resamples would be biased."""
    pairs: int
    """Pairs that count; without the human ties where the method leaves them out."""
    human_ties: int
    """Human ties of the input; part of `pairs` unless left out."""
    predicted_ties: int
    """Pairs of `pairs` that the scores call the same."""
    threshold: float | None
    """Differences up to it are predicted ties; None: the method has no threshold. The
    cross-fitted method's is fitted on all pairs, for new ones."""
    constant: float
    """The metric of a constant score."""
    chance: float
    """The limit with many pairs for random scores without equal values."""
    calibration_pairs: int | None = None
    """Pairs that the threshold was fitted on, none of them in `pairs`; None: on `pairs`, all or
    those of other folds."""


@dataclass(frozen=True, kw_only=True)
class WinRateBin:
    """Pairs whose predicted probability that A wins lies in one range."""

    predicted: float
    """Mean predicted probability."""
    observed: float
    """Share that A won."""
    interval: tuple[float, float]
    """Wilson interval of `observed`, at the confidence of the settings."""
    pairs: int
    """Pairs in the range."""


@dataclass(frozen=True, kw_only=True)
class WinRates:
    """Predicted against observed win rates of the pairs without a human tie."""

    scale: float
    """s in P(A wins) = sigmoid((score A - score B) / s), most likely on these very pairs."""
    log_loss: float
    """Mean negative log-likelihood at that scale, in nats; knowing nothing costs log 2 = 0.693."""
    bins: tuple[WinRateBin, ...]
    """By rising probability; empty ranges are left out."""


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Agreement with votes, where labels are probabilities or rows have weights of their own."""

    agreement: float
    """Share of votes for the clip with the higher score, see `vote_agreement`; 0..1."""
    interval: tuple[float, float] | None
    """Bootstrap over groups; None: all pairs are of one group."""
    ceiling: float
    """Agreement of the best possible scores, since people disagree."""
    log_loss: float | None
    """Mean cross entropy, in nats, of the votes and P(A) = sigmoid((score A - score B) / s), at the
    most likely s, by weight; None: the scores order pairs no better than chance, or s is 0."""
    entropy: float
    """Mean entropy of the votes, by weight: no scores have a lower log loss."""
    scale: float | None
    """That s."""
    pairs: int
    """All labelled pairs."""
    weight: float
    """How many comparisons they count as."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well one column of scores agrees with one dimension of labels over some pairs."""

    dimension: str
    """Which label."""
    column: str
    """Which column of the score table; several joined by `+` were added."""
    model: str | None = None
    """Pairs that involve a video of this generator; None: all pairs."""
    pairs: int
    """Labelled pairs with two scores."""
    human_ties: int
    """Human ties among them."""
    groups: int
    """Number of their prompts (or pairs, see `EvaluationResult.resampled`)."""
    accuracies: Mapping[str, Accuracy]
    """Method of `METHODS` -> accuracy."""
    win_rates: WinRates | None
    """Calibration of the score differences; None if undefined."""
    votes: Votes | None = None
    """Agreement with votes; None if all labels are sides or ties of equal weight."""
    undefined: Mapping[str, str]
    """Method (or `win_rates`) that these pairs do not define -> why not."""


@dataclass(frozen=True, kw_only=True)
class ModelScore:
    """Mean score of a generator's videos."""

    model: str
    """The generator."""
    column: str
    """Which column of the score table."""
    mean: float
    """Over its videos, each counted once."""
    videos: int
    """Number of videos."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """All numbers of one scorer on one file of comparisons; stored as `result.json`."""

    benchmark: str
    """Which benchmark: a name of `COMPARISON_FORMATS`, or `pairs` for one's own comparisons."""
    data: str
    """Name of the comparisons."""
    fingerprint: str
    """SHA-256 of all comparisons, those left out included: equal data, equal fingerprint."""
    scorer: str
    """Name of the scorer."""
    comparisons: int
    """Rows of the file."""
    evaluated: int
    """Rows whose two videos have scores."""
    missing_videos: tuple[str, ...]
    """Videos of the file without a score; rows that need them are left out."""
    videos: int
    """Different videos in the evaluated rows."""
    left_out_labels: Mapping[str, int]
    """Reason -> number of labels that the format leaves out."""
    resampled: str
    """Units that the bootstrap draws and the calibration split keeps together: `groups`, `prompts`,
    `pairs`, or several of them (`prompts and pairs`) if only some rows have a prompt."""
    settings: EvaluationSettings
    """Choices that the numbers depend on."""
    dimensions: tuple[Agreement, ...]
    """Each label over all evaluated pairs."""
    models: tuple[Agreement, ...]
    """Each label over the pairs of each generator; a pair counts for both of its generators."""
    aspects: tuple[Agreement, ...]
    """Each `aspect:` column against the overall label; empty without either."""
    model_scores: tuple[ModelScore, ...]
    """Mean scores, highest first within a column."""
    notes: tuple[str, ...] = ()
    """Further notes, for example that the scorer was trained on some of the pairs."""

    def to_json(self) -> str:
        """The text of `result.json`."""
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EvaluationResult":
        """Read the text of `result.json`, strictly.

        Raises:
            ValueError: if it is not JSON, of another format version, or has fields that are
                unknown, missing, or of another form.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error
        version = values.pop("format_version", None) if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"format_version is {version!r}, this release reads {FORMAT_VERSION}: is it a "
                "result.json of `gtsvj evaluate`, and is the package recent enough?"
            )
        return from_values(cls, values)
