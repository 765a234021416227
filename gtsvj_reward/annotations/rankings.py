"""Sets of videos that people put in order: every pair of a set with its share of votes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from gtsvj_reward.annotations.columns import check, identifiers, scores, videos
from gtsvj_reward.annotations.layout import texts_of
from gtsvj_reward.annotations.names import Identity, identity
from gtsvj_reward.annotations.records import Comparison, Comparisons, likelier_side
from gtsvj_reward.tables import Table, first_few, read_table

Ranking = Mapping[int, float]
"""Place of a video in its set -> its rank; 1 is best, equal ranks are ties."""


@dataclass
class RankedSet:
    """Videos of one prompt, and the rankings that people made of them."""

    name: str
    """For messages, and the group of its pairs."""
    videos: list[str] = field(default_factory=list)
    """As the data set names them."""
    models: list[str | None] = field(default_factory=list)
    """Generator of each."""
    prompt: str | None = None
    """Their prompt."""
    places: dict[Identity, int] = field(default_factory=dict)
    """Video -> its place in `videos`."""
    rankings: dict[str, list[Ranking]] = field(default_factory=dict)
    """Dimension -> a ranking for each person; videos that one left out are not in it."""

    def add(self, video: str, model: str | None) -> None:
        """Add a video if it is new."""
        if self.places.setdefault(identity(video), len(self.videos)) == len(self.videos):
            self.videos.append(video)
            self.models.append(model)

    def pairs(self) -> list[Comparison]:
        """All pairs, in the order of the videos; see `read_rankings`."""
        return [self._pair(a, b) for a, b in combinations(range(len(self.videos)), 2)]

    def _pair(self, a: int, b: int) -> Comparison:
        labels, probabilities = {}, {}
        for dimension, rankings in self.rankings.items():
            both = [ranking for ranking in rankings if a in ranking and b in ranking]
            votes = Counter((r[a] < r[b]) - (r[a] > r[b]) for r in both)
            if not both:
                continue
            if len(votes) == 1:
                (labels[dimension],) = votes
                continue
            probabilities[dimension] = (votes[1] + votes[0] / 2) / len(both)
            labels[dimension] = likelier_side(probabilities[dimension])
        return Comparison(
            row=f"{self.name}: {a + 1} and {b + 1}",
            video_a=self.videos[a],
            video_b=self.videos[b],
            labels=labels,
            probabilities=probabilities,
            weight=2 / len(self.videos),
            prompt=self.prompt,
            model_a=self.models[a],
            model_b=self.models[b],
            group=self.name,
        )


def read_rankings(path: str | Path) -> Comparisons:
    """Read rankings in a plain form: a row for each video of a set, and each person.

    Columns: `set`, `video`, and `rank` (the dimension `overall`) or `rank_<dimension>`: a number, 1
    the best, equal ones a tie, empty no label; where there are any, `rater`, `prompt` and `model`.

    Each pair of a set becomes a comparison. Its probability is the share of those who ranked both
    videos that put the first one in front, ties counted half; where all agree it is a label. A set
    of n videos has n (n - 1) / 2 pairs of weight 2 / n: it counts as n - 1 comparisons, the number
    needed to order n videos. The group of its pairs is the set.

    Args:
        path: CSV, TSV, JSONL, JSON or parquet.

    Raises:
        ValueError: for a missing column, a rank that is no number or below 1, a video that a person
            ranks twice in a set, a set of one video, or one with several prompts; with counts.
    """
    table = read_table(path)
    columns = {
        "overall" if name == "rank" else name.removeprefix("rank_"): name
        for name in table.cells
        if name == "rank" or name.startswith("rank_")
    }
    table.require(["set", "video", *(columns.values() or ["rank"])])
    sets = _sets(table)
    raters: list[str | None] = [None] * len(table.rows)
    if "rater" in table.cells:
        raters = identifiers(table.column("rater"))
    skipped: Counter[str] = Counter()
    for dimension, name in columns.items():
        column = table.column(name)
        ranks = scores(column)
        check(column, [rank is not None and rank < 1 for rank in ranks], "are below 1, the best")
        skipped[f"`{name}` is empty"] = ranks.count(None)
        _add(table, sets, dimension, raters, ranks)
    return comparisons_of(table.path.name, list(sets.values()), tuple(columns), skipped)


def _sets(table: Table) -> dict[str, RankedSet]:
    """Sets by name, with their videos, without rankings."""
    column = table.column("set")
    keys = identifiers(column)
    check(column, [key is None for key in keys], "are empty")
    prompts, models = (
        texts_of(table, name if name in table.cells else None) for name in ("prompt", "model")
    )
    sets: dict[str, RankedSet] = {}
    others = []
    for key, video, prompt, model in zip(
        keys, videos(table.column("video")), prompts, models, strict=True
    ):
        if key is None:
            continue
        known = sets.setdefault(key, RankedSet(name=key, prompt=prompt))
        if known.prompt != prompt:
            others.append(f"set {key!r} has {known.prompt!r} and {prompt!r}")
        known.add(video, model)
    if others:
        raise ValueError(
            f"{table.path}: {len(others)} rows have another prompt than their set: "
            f"{first_few(others)}"
        )
    return sets


def _add(
    table: Table,
    sets: Mapping[str, RankedSet],
    dimension: str,
    raters: Sequence[str | None],
    ranks: Sequence[float | None],
) -> None:
    """Add the rankings of a dimension; reject a video that a person ranks twice."""
    by_person: dict[tuple[str, str | None], dict[int, float]] = defaultdict(dict)
    twice = []
    keys = identifiers(table.column("set"))
    for row, key, video, rater, rank in zip(
        table.rows, keys, table.cells["video"], raters, ranks, strict=True
    ):
        if key is None or rank is None:
            continue
        place = sets[key].places[identity(video)]
        if place in by_person[key, rater]:
            twice.append(f"{row}: {video} in set {key!r} by {rater or 'nobody named'}")
        by_person[key, rater][place] = rank
    if twice:
        raise ValueError(
            f"{table.path}: {len(twice)} rows rank a video again (tell people apart by a column "
            f"`rater`): {first_few(twice)}"
        )
    for (key, _), ranking in by_person.items():
        sets[key].rankings.setdefault(dimension, []).append(ranking)


def comparisons_of(
    name: str, sets: Sequence[RankedSet], dimensions: tuple[str, ...], skipped: Counter[str]
) -> Comparisons:
    """All pairs of all sets; rejects sets of one video."""
    alone = [found.name for found in sets if len(found.videos) < 2]
    if alone:
        raise ValueError(
            f"{name}: {len(alone)} of {len(sets)} sets have fewer than two videos: "
            f"{first_few(alone)}"
        )
    rows = tuple(pair for found in sets for pair in found.pairs())
    return Comparisons(
        name=name,
        rows=rows,
        dimensions=tuple(sorted(dimensions, key=lambda dimension: dimension == "overall")),
        skipped=dict(+skipped),
    )
