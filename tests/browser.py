"""A real Chromium, in which reports are opened."""

import shutil
import time
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A Chromium with a profile of its own."""
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    profile = tmp_path_factory.mktemp("profile")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1200, "height": 900}
        )
        yield context
        context.close()


@contextmanager
def opening(chromium, path, wait="#curves .scatterlayer .trace"):
    """A report, opened; no error on its console, no request but for the file itself, until the end of the context."""
    tab = chromium.new_page()
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    start = time.monotonic()
    tab.goto(path.as_uri())
    tab.wait_for_selector(wait)
    tab.seconds = time.monotonic() - start
    yield tab
    tab.close()
    assert said == [] and [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
