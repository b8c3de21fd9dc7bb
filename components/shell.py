"""The page: header, one tab per family with a picker and one open panel, the catalogue, the theme."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from components import api, share
from components.panel import panel, stops
from components.views import Drawn, script
from tokenlab import catalog, measurement, spec
from tokenlab.errors import UserError

ROOT = Path(__file__).parent.parent
PLOTLY_JS = Path(find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"  # importing it costs time
TITLE = "TokenLab"
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def build() -> gr.Blocks:
    """The whole app as Blocks. Panels are rendered when they are opened."""
    gr.set_static_paths([PLOTLY_JS])
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        Drawn("header", {"title": TITLE, "sentence": _sentence()}, elem_id="tl-header")
        notice = Drawn("problem", None)
        with gr.Tabs(elem_id="tl-tabs") as tabs:
            for family in catalog.families():
                with gr.Tab(family.name, id=family.slug) as tab:
                    _family(family, tab)
            with gr.Tab("Catalogue", id="catalogue") as tab:
                _catalogue(tab)
        demo.load(_arrive, None, [tabs, notice], **QUIET)
        api.publish_all()
    return demo


def _sentence() -> str:
    """What this is, in one sentence that promises no more than there is."""
    systems = [entry for entry in catalog.entries() if entry.kind == "system"]
    live = sum(entry.live for entry in systems)
    scope = (
        f"{len(systems)} published systems"
        if live == len(systems)
        else f"{live} of {len(systems)} published systems so far"
    )
    return f"See how text, pictures and sound become tokens: {scope}, run live and side by side on your own input."


def _family(family: catalog.Family, tab: gr.Tab) -> None:
    """One tab: the picker, and the panel that is open in it.

    `opened` holds what is open as JSON {slug, values, problem}; its change draws the panel. It lives in the
    browser and not in a gr.State, whose changes before the page has settled are lost."""
    entries = catalog.of_family(family.slug)
    opened, wanted = gr.Textbox("", visible="hidden"), gr.Textbox("", visible="hidden")
    with gr.Row(elem_classes="tl-columns"):
        with gr.Column(scale=0, min_width=230, elem_classes="tl-side"):
            picker = Drawn("picker", _picker(family, ""))
        with gr.Column(scale=1, min_width=300, elem_classes="tl-main"):
            if not any(entry.live for entry in entries):
                Drawn("title", _coming(family))

            @gr.render(inputs=[opened], triggers=[opened.change], concurrency_limit=None, show_progress="hidden")
            def render(state: str) -> None:
                asked = _asked(state)
                if asked and catalog.find(asked.slug) in entries:
                    panel(catalog.find(asked.slug), asked.values, asked.problem, asked.taken)

    def open_panel(asked: share.Opened) -> list[Any]:
        return [json.dumps(dataclasses.asdict(asked)), _picker(family, asked.slug)]

    def choose(event: gr.EventData, request: gr.Request) -> list[Any]:
        """Empty the panel first: Gradio would hand the old panel's components over to the new one, by position."""
        slug = str(getattr(event, "slug", ""))
        values = getattr(event, "values", {})  # what the panel last ran in this page; checked when it is drawn
        given = getattr(event, "given", {})  # what other panels of the family hand over
        stops.stop_all(request.session_hash)
        live = [entry.slug for entry in entries if entry.live]
        known = slug in live and isinstance(values, dict) and isinstance(given, dict)
        return ["", *open_panel(_with_given(slug, values, given))] if known else [gr.skip()] * 3

    def first(state: str, search: str, initial: bool, kept: str) -> list[Any]:
        """The tab was selected: unless a panel is open, open what the address asks for, else the first live one.

        kept: what the same page ran before it was loaded again, where the address could not hold all of it."""
        asked = _reloaded(kept) or share.read(dict(urllib.parse.parse_qsl(str(search)[1:])))
        live = [entry.slug for entry in entries if entry.live]
        if asked and asked.slug in live and not state:
            return open_panel(asked)
        elsewhere = initial and asked is not None and asked.slug != "" and asked.slug not in [e.slug for e in entries]
        if state or not live or elsewhere:
            return [gr.skip(), gr.skip()]
        return open_panel(share.Opened(live[0], {}))

    picker.choose(choose, None, [opened, wanted, picker], **QUIET).success(
        lambda state: state or gr.skip(), wanted, opened, **QUIET
    )
    # The first select comes with the page itself; only then may the address point to another tab.
    js = (
        "(state) => { const initial = !TL.entered; TL.entered = true;"
        " return [state, TL.asked, initial, TL.keptForReload()]; }"
    )
    address, initial = gr.Textbox(visible="hidden"), gr.Checkbox(visible="hidden")
    kept = gr.Textbox(visible="hidden")
    tab.select(first, [opened, address, initial, kept], [opened, picker], js=js, **QUIET)


def _coming(family: catalog.Family) -> dict[str, Any]:
    count = sum(entry.kind == "system" for entry in catalog.of_family(family.slug))
    later = f"None of the {count} systems of this tab is built yet. The Catalogue tab shows all, and which are live."
    return {
        "name": family.name,
        "title": later,
        "sentence": family.sentence,
        "paper": "",
        "code": "",
        "verdict": "none",
    }


def _reloaded(kept: str) -> share.Opened | None:
    """What the browser kept of the run before; its values are checked when they are drawn."""
    try:
        stored = json.loads(kept)
        return share.Opened(catalog.find(str(stored["slug"])).slug, dict(stored["values"]))
    except (ValueError, TypeError, KeyError, UserError):
        return None


def _with_given(slug: str, values: dict[str, Any], given: dict[str, Any]) -> share.Opened:
    run = catalog.find(slug).module().run
    try:
        values, taken = spec.take_over(run, spec.check(run, values), given)
        return share.Opened(slug, values, taken=taken)
    except UserError:
        return share.Opened(slug, values)  # what is wrong with them is said when they are drawn


def _asked(state: str) -> share.Opened | None:
    """`state` comes from the browser, so it is checked like a link."""
    try:
        asked = share.Opened(**json.loads(state))
        entry = catalog.find(asked.slug)
        values = spec.check(entry.module().run, asked.values)
        return share.Opened(
            entry.slug, values, str(asked.problem)[:500], tuple(str(label)[:100] for label in asked.taken)
        )
    except UserError as error:
        return share.Opened(asked.slug, {}, str(error))
    except (ValueError, TypeError):
        return None


def _picker(family: catalog.Family, slug: str) -> dict[str, Any]:
    items = [
        {
            "slug": e.slug,
            "name": e.name,
            "sentence": e.sentence,
            "question": e.question,
            "live": e.live,
            "workbench": e.kind == "workbench",
        }
        for e in catalog.of_family(family.slug)
    ]
    return {"family": family.slug, "label": family.name, "sentence": family.sentence, "open": slug, "items": items}


def _catalogue(tab: gr.Tab) -> None:
    cards = Drawn("catalogue", None)
    tab.select(_cards, None, cards, **QUIET)


def _cards() -> dict[str, Any]:
    items = [
        {
            "slug": e.slug,
            "name": e.name,
            "family": e.family,
            "title": e.title,
            "sentence": e.sentence,
            "question": e.question,
            "paper": e.paper,
            "live": e.live,
            "workbench": e.kind == "workbench",
            "claim": measurement.verdict(e.slug),
        }
        for e in catalog.entries()
    ]
    return {"families": [{"slug": f.slug, "name": f.name} for f in catalog.families()], "items": items}


def _arrive(request: gr.Request) -> list[Any]:
    """Turn to the tab that the address asks for; say what is wrong with an address that names no live system."""
    asked = share.read(dict(request.query_params))
    if asked is None:
        return [gr.skip(), None]
    if not asked.slug:
        return [gr.skip(), asked.problem]
    entry = catalog.find(asked.slug)
    return [gr.Tabs(selected=entry.family), None if entry.live else asked.problem]


def theme() -> gr.themes.Base:
    """Quiet and typographic: system fonts (nothing is fetched from elsewhere), one accent colour."""
    sans = ["ui-sans-serif", "system-ui", "sans-serif"]
    mono = ["ui-monospace", "DejaVu Sans Mono", "Noto Sans Mono", "monospace"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_sm,
        font=sans,
        font_mono=mono,
    )


def launch_settings() -> dict[str, Any]:
    """What app.py and the tests hand to `launch`: theme, style, script, and the closed doors."""
    head = f'<meta name="tl-plotly" content="gradio_api/file={PLOTLY_JS}">\n<script>{script()}</script>'
    return {
        "theme": theme(),
        "css": (ROOT / "assets" / "style.css").read_text("utf-8"),
        "head": head,
        "mcp_server": True,
        "show_error": False,
        "max_file_size": "20mb",
        "allowed_paths": [],
        "enable_monitoring": False,
        "strict_cors": True,
        "run_history": False,
        "ssr_mode": False,
        "footer_links": ["api"],
        "quiet": True,
    }
