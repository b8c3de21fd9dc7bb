"""The page: header, one tab per family with a picker and one open panel, the catalogue, the theme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import plotly

from components import api, share
from components.panel import panel
from components.views import Drawn, script
from tokenlab import catalog, measurement

ROOT = Path(__file__).parent.parent
PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
TITLE = "TokenLab"
SENTENCE = "See how text, pictures and sound become tokens: 67 published systems, run live and side by side on your own input."


def build() -> gr.Blocks:
    """The whole app as Blocks. Panels are rendered when they are opened."""
    gr.set_static_paths([PLOTLY_JS])
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        Drawn("header", {"title": TITLE, "sentence": SENTENCE}, elem_id="tl-header")
        notice = Drawn("problem", None)
        opened: dict[str, gr.State] = {}
        with gr.Tabs(elem_id="tl-tabs") as tabs:
            for family in catalog.families():
                with gr.Tab(family.name, id=family.slug) as tab:
                    opened[family.slug] = _family(family, tab)
            with gr.Tab("Catalogue", id="catalogue") as tab:
                _catalogue(tab)
        demo.load(
            _arrive, None, [tabs, notice, *opened.values()], queue=False, show_progress="hidden", api_visibility="private"
        )
        api.publish_all()
    return demo


def _family(family: catalog.Family, tab: gr.Tab) -> gr.State:
    """One tab. The State holds what is open in it: {slug, values, problem}, or None before it is first seen."""
    entries = catalog.of_family(family.slug)
    opened = gr.State(None)
    with gr.Row(elem_classes="tl-columns"):
        with gr.Column(scale=0, min_width=230, elem_classes="tl-side"):
            picker = Drawn("picker", _picker(family, ""), key=f"picker-{family.slug}")
        with gr.Column(scale=1, min_width=300, elem_classes="tl-main"):
            gr.Markdown(family.sentence, elem_classes="tl-family")

            @gr.render(inputs=[opened], triggers=[opened.change], queue=False, show_progress="hidden")
            def render(state: dict[str, Any] | None) -> None:
                if state:
                    panel(catalog.find(state["slug"]), state["values"], state["problem"])

    def choose(event: gr.EventData) -> Any:
        entry = catalog.find(str(getattr(event, "slug", "")))
        return {"slug": entry.slug, "values": {}, "problem": ""} if entry.live and entry in entries else gr.skip()

    def first(state: dict[str, Any] | None) -> Any:
        live = [entry for entry in entries if entry.live]
        return gr.skip() if state or not live else {"slug": live[0].slug, "values": {}, "problem": ""}

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    picker.choose(choose, None, opened, **quiet)
    tab.select(first, opened, opened, **quiet)
    opened.change(lambda state: _picker(family, state["slug"] if state else ""), opened, picker, **quiet)
    return opened


def _picker(family: catalog.Family, slug: str) -> dict[str, Any]:
    items = [
        {"slug": e.slug, "name": e.name, "sentence": e.sentence, "live": e.live, "workbench": e.kind == "workbench"}
        for e in catalog.of_family(family.slug)
    ]
    return {"label": family.name, "open": slug, "items": items}


def _catalogue(tab: gr.Tab) -> None:
    cards = Drawn("catalogue", None)
    tab.select(_cards, None, cards, queue=False, show_progress="hidden", api_visibility="private")


def _cards() -> dict[str, Any]:
    def verdict(entry: catalog.Entry) -> str:
        measured = measurement.stored(entry.slug)
        return "none" if measured is None else "holds" if measured["holds"] else "fails"

    items = [
        {
            "slug": e.slug, "name": e.name, "family": e.family, "title": e.title, "sentence": e.sentence, "paper": e.paper,
            "live": e.live, "workbench": e.kind == "workbench", "claim": verdict(e),
        }
        for e in catalog.entries()
    ]  # fmt: skip
    return {"families": [{"slug": f.slug, "name": f.name} for f in catalog.families()], "items": items}


def _arrive(request: gr.Request) -> list[Any]:
    """What the address asks for: the tab, the panel, its values; without a link the first live panel."""
    asked = share.read(dict(request.query_params))
    notice = None
    if asked is None or not asked.slug:
        notice = asked.problem if asked else None
        first = catalog.live()[0]
        asked = share.Opened(first.slug, {})
    entry = catalog.find(asked.slug)
    problem = asked.problem
    if not entry.live:
        notice, problem = asked.problem, ""
    state = {"slug": entry.slug, "values": asked.values, "problem": problem} if entry.live else None
    states = [state if family.slug == entry.family else None for family in catalog.families()]
    return [gr.Tabs(selected=entry.family), notice, *states]


def theme() -> gr.themes.Base:
    """Quiet and typographic: system fonts (nothing is fetched from elsewhere), one accent colour."""
    sans = ["ui-sans-serif", "system-ui", "sans-serif"]
    mono = ["ui-monospace", "DejaVu Sans Mono", "Noto Sans Mono", "monospace"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal, neutral_hue=gr.themes.colors.stone, radius_size=gr.themes.sizes.radius_sm, font=sans, font_mono=mono
    )


def launch_settings() -> dict[str, Any]:
    """What app.py and the tests hand to `launch`: theme, style, script, and the closed doors."""
    head = f'<meta name="tl-plotly" content="gradio_api/file={PLOTLY_JS}">\n<script>{script()}</script>'
    return {
        "theme": theme(), "css": (ROOT / "assets" / "style.css").read_text("utf-8"), "head": head, "mcp_server": True, "show_error": False,
        "max_file_size": "20mb", "allowed_paths": [], "enable_monitoring": False, "strict_cors": True, "run_history": False, "ssr_mode": False,
        "footer_links": ["api"], "quiet": True,
    }  # fmt: skip
