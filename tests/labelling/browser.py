"""A real browser, and a server of a session in a thread of the test."""

import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from gtsvj_reward.labelling.app import create_app
from gtsvj_reward.serving.server import DrainingServer, configuration, listening_socket

TOKEN = "token-of-a-test"
NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = "GTSVJ_SCREENSHOTS"
"""Environment variable: folder for the pictures of the documentation, docs/labels."""


def chromium():
    """The installed browser; skips without one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return found


@contextmanager
def launched():
    """A headless browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def served(session, port=0):
    """A running page; gives its address, with the token."""
    app = create_app(session, token=TOKEN)
    started = threading.Event()
    with listening_socket("127.0.0.1", port) as listener:
        server = DrainingServer(configuration(app), app.state.service, started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(60)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}"
        finally:
            server.handle_exit(15, None)
            thread.join(60)
            assert not thread.is_alive(), "the server does not end"


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, page):
        self.page, self.errors = page, []
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.heard(said))

    def heard(self, said):
        """Complaints of the page, but for videos that are meant to be missing."""
        if said.type == "error" and "/video/" not in (said.location or {}).get("url", ""):
            self.errors.append(said.text)

    def come(self, address, name):
        """Open the page, and say who labels."""
        self.page.goto(address)
        self.page.fill("#name", name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#clips .clip")

    def press(self, key):
        """Press a key that changes the task; returns when the next one is there."""
        clips, counts = self.clips(), self.counts()
        self.page.keyboard.press(key)
        self.until(lambda: (self.counts(), self.clips()) != (counts, clips))
        self.until("document.body.getAttribute('aria-busy') === null")

    def until(self, wanted):
        """Wait for an expression of the page or a function of the test to be true.

        The page's own policy forbids what `wait_for_function` does.
        """
        ends = time.monotonic() + 20
        while not (self.page.evaluate(wanted) if isinstance(wanted, str) else wanted()):
            assert time.monotonic() < ends, f"waited in vain for {wanted}"
            self.page.wait_for_timeout(20)

    def counts(self):
        """What the page says of numbers."""
        return self.page.inner_text("#counts")

    def clips(self):
        """Addresses of the clips that are shown."""
        return self.page.evaluate(
            "[...document.querySelectorAll('.clip video')].map((v) => v.src).join()"
        )

    def numbers(self):
        """Numbers of the clips that are shown."""
        return [int(address.rsplit("/", 1)[1]) for address in self.clips().split(",")]

    def picture(self, path):
        """A small PNG of the page; also for the documentation, if that is asked for."""
        self.page.screenshot(path=path, animations="disabled")
        if folder := os.environ.get(SCREENSHOTS):
            with Image.open(path) as opened:
                few = opened.convert("RGB").quantize(128, dither=Image.Dither.NONE)
                few.save(Path(folder) / path.name, optimize=True)


@contextmanager
def visitor(browser, *, loses_server=False, **options):
    """A visitor with a profile of their own, who must not see any error.

    Where a server is killed, its page may say until it is closed that nobody answers.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
    made = Visitor(context.new_page())
    yield made
    context.close()
    errors = [e for e in made.errors if not (loses_server and "net::ERR_" in e)]
    assert not errors, errors
