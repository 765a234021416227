"""VideoFeedback (5 aspects, 1 to 4) and VideoFeedback2 (3 aspects, 1 to 5) of TIGER-Lab."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gtsvj_reward.annotations.aspects import AspectScale, chosen_names
from gtsvj_reward.annotations.columns import scores
from gtsvj_reward.annotations.layout import ratings_of
from gtsvj_reward.annotations.records import Ratings
from gtsvj_reward.tables import read_table

VIDEOFEEDBACK_ASPECTS = tuple(
    AspectScale(name, 1, 4)
    for name in (
        "visual quality",
        "temporal consistency",
        "dynamic degree",
        "text-to-video alignment",
        "factual consistency",
    )
)
"""In the order of the data card; each is a column of its name."""

VIDEOFEEDBACK2_ASPECTS = {
    "visual_score": AspectScale("visual quality", 1, 5),
    "t2v_score": AspectScale("text-to-video alignment", 1, 5),
    "phy_score": AspectScale("physical consistency", 1, 5),
}
"""Column -> aspect."""


def read_videofeedback(
    path: str | Path,
    *,
    video_column: str = "video link",
    id_column: str | None = "id",
    aspects: Sequence[str] | None = None,
) -> Ratings:
    """Read a split of VideoFeedback, `annotated` or `real`.

    Columns: `id`, `text prompt`, `video link` (a URL), and one for each of the five aspects, 1 to
    4. An empty cell is no label, which is counted; frames and conversations are not read.

    Args:
        path: a parquet file, the folder of them, or the same rows as JSON, JSONL or CSV.
        video_column: what names a video.
        id_column: what identifies a row; None numbers the rows.
        aspects: names of those to read; None: all five.

    Raises:
        ValueError: for a missing column or aspect, an id that comes twice, a cell that names no
            video, or a label out of range, 0 included; with rows and counts.
    """
    columns = {scale.name: scale for scale in VIDEOFEEDBACK_ASPECTS}
    return _read(path, "VideoFeedback", columns, (video_column, "text prompt", id_column), aspects)


def read_videofeedback2(
    path: str | Path,
    *,
    video_column: str = "video_name",
    id_column: str | None = None,
    aspects: Sequence[str] | None = None,
) -> Ratings:
    """Read VideoFeedback2, whose bench is VideoScoreBench-v2.

    Columns: `video_name` (a file without its suffix), `prompt`, and `visual_score`, `t2v_score` and
    `phy_score`, 1 to 5: the aspects `visual quality`, `text-to-video alignment` and `physical
    consistency`. An empty cell is no label, which is counted. The reasoning is not read.

    Args:
        path: the JSON file, or the same rows as JSONL, CSV or parquet.
        video_column: what names a video, `"video_name"` or `"video_url"`.
        id_column: what identifies a row; None numbers the rows.
        aspects: names of those to read; None: all three.

    Raises:
        ValueError: as `read_videofeedback`.
    """
    where = (video_column, "prompt", id_column)
    return _read(path, "VideoFeedback2", VIDEOFEEDBACK2_ASPECTS, where, aspects)


def _read(
    path: str | Path,
    name: str,
    columns: Mapping[str, AspectScale],
    where: tuple[str, str, str | None],
    wanted: Sequence[str] | None,
) -> Ratings:
    """Ratings of a table.

    Args:
        path: what to read.
        name: what results call it.
        columns: of labels, with their aspects.
        where: columns of the video, the prompt, and the id.
        wanted: names of aspects; None: all.
    """
    video, prompt, identifier = where
    table = read_table(path)
    by_aspect = {scale.name: (column, scale) for column, scale in columns.items()}
    chosen = tuple(by_aspect) if wanted is None else chosen_names(by_aspect, wanted, str(path))
    table.require([video, prompt, *(by_aspect[aspect][0] for aspect in chosen)])
    if identifier is not None:
        table = table.identified_by(identifier)
    labels, skipped = {}, {}
    for aspect in chosen:
        column, scale = by_aspect[aspect]
        labels[aspect] = scores(table.column(column), scale)
        skipped[f"`{column}` is empty"] = labels[aspect].count(None)
    scales = [by_aspect[aspect][1] for aspect in chosen]
    return ratings_of(
        table, name, labels, video=video, prompt=prompt, skipped=skipped, scales=scales
    )
