"""The frame of a page: one HTML file with its style and its script inside."""

from base64 import b64encode
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from gtsvj_reward.files import write_text
from gtsvj_reward.pages.markup import Markup, joined, tag

STATIC = Path(__file__).parent / "static"
"""`base.css` is the look of all pages, those of `gtsvj label` too; the rest is of reports."""


def write_page(
    path: Path, *, kind: str, title: str, lead: str, body: Markup, style: str = ""
) -> Path:
    """Write a page that loads nothing from elsewhere, and runs no script but its own.

    Args:
        path: the file.
        kind: kind of page, one or two words.
        title: heading.
        lead: summary in one or two sentences; text or `Markup`.
        body: content below it.
        style: further CSS of this page.
    """
    script = (STATIC / "report.js").read_text(encoding="utf-8")
    shared = [(STATIC / name).read_text(encoding="utf-8") for name in ("base.css", "report.css")]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: 'self' file:; media-src data: blob: 'self' file:; base-uri 'none'; "
        "form-action 'none'"
    )
    head = joined([
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", {}, title),
        tag("style", {}, Markup("\n".join([*shared, style]))),
    ])  # fmt: skip
    top = tag(
        "header",
        {"class": "top"},
        tag("span", {"class": "name"}, "gtsvj"),
        tag("span", {"class": "kind"}, kind),
        tag("button", {"type": "button", "id": "theme", "class": "quiet"}, "Dark"),
    )
    content = tag("main", {}, tag("h1", {}, title), tag("p", {"class": "lead"}, lead), body)
    foot = tag("footer", {}, f"gtsvj-reward {version('gtsvj-reward')}")
    inside = joined([top, content, foot, tag("script", {}, Markup(script))])
    page = tag("html", {"lang": "en"}, tag("head", {}, head), tag("body", {}, inside))
    write_text(path, f"<!doctype html>\n{page}\n")
    return path
