"""Views drawn on a page by the app's own script, outside any run."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import Page

from tokenlab import pictures, views

DRAW = """data => {
    let root = document.getElementById("drawn");
    if (!root) {
        root = TL.h("div", { class: "tl-view", id: "drawn" });
        (document.querySelector(".tl-main") || document.querySelector(".tl-panel")).prepend(root);
    }
    root.replaceChildren();
    delete root.dataset.drawn;
    TL.views[data.kind](root, data);
}"""
# The other views first load what they need, and set data-drawn when they are done.
DRAWN_AT_ONCE = (views.HeatMap, views.Pictures, views.Retention)


def draw(page: Page, view) -> None:
    """Draws a view into #drawn, above the panel, and returns when it is there. A second one takes its place."""
    page.evaluate(DRAW, views.to_json(view))
    if not isinstance(view, DRAWN_AT_ONCE):
        page.locator("#drawn[data-drawn]").wait_for()


def png(array) -> str:
    """Base64 of a PNG. array: (H, W, 3) or (H, W) of numbers from 0 to 255, cut to whole ones."""
    return pictures.png(np.asarray(array, np.uint8))
