"""How views are drawn: one JavaScript file per kind of view, named after it.

A view reaches the browser as its JSON form (tokenlab.views.to_json) and is drawn there with
`textContent`, never as markup, so a token may hold anything. `_base.js` holds the few helpers
they share; all files together form one script in the page's head, so panels carry no code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gradio as gr

HERE = Path(__file__).parent
# Drawn the same way, but not views of a Result.
PAGE_PARTS = ("picker", "catalogue", "run_bar", "claim", "title", "recorder")


def script() -> str:
    """All drawing code as one script. `_base.js` comes first."""
    return "\n".join(path.read_text("utf-8") for path in sorted(HERE.glob("*.js")))


class Drawn(gr.HTML):
    """A component that draws its value (JSON) with the function `TL.views[kind]`.

    The kind travels in the value, because the page may hand a component over to another panel's view."""

    def __init__(self, kind: str, value: Any = None, **settings: Any):
        self.kind = kind
        super().__init__(
            value,
            html_template="",
            js_on_load="TL.mount(element, props, watch, trigger); // 'choose' 'autorun'",
            apply_default_css=False,
            **settings,
        )

    def postprocess(self, value: Any) -> dict[str, Any] | None:
        """{"kind": ..., "data": JSON text}; None draws nothing.

        Text, because what a generator yields travels as the difference from what it yielded before, and for lists
        that get shorter Gradio (6.31) computes a wrong one."""
        return None if value is None else {"kind": self.kind, "data": json.dumps(value)}

    def get_block_name(self) -> str:
        return "html"


def file_name(kind: str) -> str:
    """TokenStrip -> token_strip.js"""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower() + ".js"
