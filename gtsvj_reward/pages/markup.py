"""HTML without injection: text is escaped unless it is `Markup`."""

from collections.abc import Iterable, Mapping
from html import escape

Attributes = Mapping[str, object]
"""Name -> text, number, bool or None; see `tag`."""

VOID = ("input", "img", "meta", "br", "line", "rect", "circle", "polyline")
"""Elements without an end tag or content."""


class Markup(str):
    """Text that is HTML; made by `tag` and `joined` only."""

    __slots__ = ()


def tag(name: str, attributes: Attributes | None = None, *children: str) -> Markup:
    """An element.

    Args:
        name: of the element.
        attributes: name -> value. True writes only the name; False and None leave it out.
        children: escaped, but for `Markup`.
    """
    written = "".join(_attribute(key, value) for key, value in (attributes or {}).items())
    if name in VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Markup:
    """Several pieces one after the other; text among them is escaped."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child, quote=False) for child in children
        )
    )


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
