"""Parts of pages: cards, tables, figures, videos."""

from base64 import b64encode
from collections.abc import Sequence

from gtsvj_reward.pages.markup import Markup, joined, tag

TableRow = Sequence[str]
"""Cells; text or `Markup`."""


def card(*children: str, title: str = "", note: str = "") -> Markup:
    """A box with a heading and a line that explains it."""
    head = [tag("h2", {}, title)] if title else []
    said = [tag("p", {"class": "note"}, note)] if note else []
    return tag("section", {"class": "card"}, *head, *said, *children)


def figures(*items: tuple[str, str]) -> Markup:
    """Large numbers, each with what it is."""
    cells = [tag("div", {}, tag("dt", {}, name), tag("dd", {}, value)) for name, value in items]
    return tag("dl", {"class": "figures"}, *cells)


def table(rows: Sequence[TableRow], *, numbers: int = 0) -> Markup:
    """A table; the first row is the header.

    Args:
        rows: all of one length.
        numbers: how many columns at the right hold numbers.
    """
    head, *body = rows
    words = len(head) - numbers

    def line(name: str, cells: TableRow) -> Markup:
        made = [
            tag("th" if name == "th" or place == 0 else "td",
                {"class": "number" if place >= words else None,
                 "scope": "col" if name == "th" else ("row" if place == 0 else None)}, cell)
            for place, cell in enumerate(cells)
        ]  # fmt: skip
        return tag("tr", {}, *made)

    inside = tag("thead", {}, line("th", head)), tag("tbody", {}, *(line("td", r) for r in body))
    return tag("div", {"class": "scroll"}, tag("table", {}, joined(inside)))


def video(mp4: bytes | str, *, label: str) -> Markup:
    """A clip that plays while it is in view.

    Args:
        mp4: its bytes, which go into the page; or where it lies beside the page.
        label: description of its content.
    """
    source = mp4 if isinstance(mp4, str) else f"data:video/mp4;base64,{b64encode(mp4).decode()}"
    return tag("video", {"src": source, "loop": True, "muted": True, "playsinline": True,
                         "controls": True, "preload": "auto", "aria-label": label})  # fmt: skip


def gallery(clips: Sequence[bytes], labels: Sequence[str], *, width: int = 130) -> Markup:
    """Clips side by side that play by themselves, for `IPython.display.HTML` in a notebook.

    Args:
        clips: mp4 files, such as `gtsvj_reward.latents.preview` makes; they go into the text.
        labels: caption of each.
        width: of a clip on the page, in pixels.

    Raises:
        ValueError: for another number of labels than of clips, or none.
    """
    if not clips or len(clips) != len(labels):
        raise ValueError(f"expected one label for each clip, got {len(labels)} for {len(clips)}")
    cells = []
    for mp4, label in zip(clips, labels, strict=True):
        source = f"data:video/mp4;base64,{b64encode(mp4).decode()}"
        plays = {"autoplay": True, "loop": True, "muted": True, "playsinline": True}
        playing = tag("video", {"src": source, **plays, "width": width, "aria-label": label})
        said = tag("figcaption", {"style": "font-size:small"}, label)
        cells.append(tag("figure", {"style": f"margin:4px;width:{width}px"}, playing, said))
    return tag("div", {"style": "display:flex;flex-wrap:wrap"}, *cells)
