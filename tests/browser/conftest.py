"""A real browser on the running app. A page fails its test when it writes an error to the console."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from components.views import script
from tests.browser.drawing import draw

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
ROOT = Path(__file__).parent.parent.parent
EMPTY = "<title>TokenLab</title><body><div class='gradio-container'><main class='app tl-panel'></main></div></body>"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("chromium", Path(__file__).parent / "chromium.py")
    chromium = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chromium)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        started = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or chromium.find(), args=options
        )
        yield started
        started.close()


@pytest.fixture
def new_page(browser) -> Iterator[Callable[..., Page]]:
    """new_page(timeout in ms, **options of its context) -> an empty page that writes no error to the console."""
    contexts, problems = [], []

    def opened(timeout: int, **options) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(timeout)
        # Gradio itself complains when a page is left while it listens for events.
        listening = "AbortError: signal is aborted"
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" and listening not in m.text else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_page(app, new_page) -> Callable[..., Page]:
    """open_page(query, width, dark) -> a page whose panel is drawn."""

    def opened(query: str = "", width: int = 1280, dark: bool = False, ready: str = ".tl-panel .tl-title h2") -> Page:
        page = new_page(
            20_000,
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        page.goto(f"{app.url}/{query}")
        page.locator(ready).first.wait_for()
        return page

    return opened


@pytest.fixture
def drawn_in_app(open_page) -> Callable[..., Page]:
    """drawn_in_app(view, width, dark) -> a page of the running app that shows this view above its panel."""

    def drawn(view, width: int = 1280, dark: bool = False) -> Page:
        page = open_page(width=width, dark=dark)
        draw(page, view)
        return page

    return drawn


@pytest.fixture
def drawn_alone(new_page) -> Callable[..., Page]:
    """drawn_alone(view, width, height) -> a page that holds nothing but the view, the app's script and its styles."""

    def drawn(view, width: int = 1100, height: int = 900) -> Page:
        page = new_page(10_000, viewport={"width": width, "height": height})
        page.set_content(EMPTY)
        page.add_style_tag(path=ROOT / "assets" / "style.css")
        page.add_script_tag(content=script())
        draw(page, view)
        return page

    return drawn


@pytest.fixture
def axe() -> Callable[[Page], list[str]]:
    """What axe-core calls serious or critical on a page, one line each."""

    def check(page: Page) -> list[str]:
        page.evaluate(AXE.read_text("utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [
            f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]

    return check
