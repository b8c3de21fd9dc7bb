"""A system's panel, built from its signature: title, controls, run bar, views, the measured claim, the explanation."""

from __future__ import annotations

import inspect
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import gradio as gr

from components import share
from components.api import LANE, QUICK_LANE
from components.controls import Widget, added, widget
from components.views import Drawn
from tokenlab import catalog, guard, limits, measurement, spec
from tokenlab.controls import Choice, Choices, Picture, Sound, Text, Tokenizers
from tokenlab.errors import UserError

LOADED = Picture | Sound | Text | Tokenizers  # controls that a file can fill
LATEX = [{"left": "$$", "right": "$$", "display": True}, {"left": "$", "right": "$", "display": False}]


def panel(entry: catalog.Entry, values: dict[str, Any], problem: str, taken: tuple[str, ...] = ()) -> None:
    """Draw the panel with these checked values (left out: defaults) inside the current Blocks.

    taken: labels of the controls whose values came from another panel. A panel with default values shows its stored
    run at once; one with other values runs them when it opens."""
    module = entry.module()
    fields = spec.fields(module.run)
    values = {f.name: values.get(f.name, f.default) for f in fields}
    stored = entry.stored_default()
    is_default = spec.check(module.run, {}) == spec.check(module.run, values)
    shown = stored["result"] if stored and is_default else {}
    key = entry.slug
    with gr.Column(elem_classes="tl-panel", elem_id=f"panel-{key}"):
        Drawn("title", _title(entry), key=f"{key}-title")
        widgets = _controls(fields, values, key)
        with gr.Row(elem_classes="tl-run"):
            run = gr.Button("Run", variant="primary", key=f"{key}-run", elem_id=f"run-{key}", scale=0, min_width=96)
            stop = gr.Button("Stop", key=f"{key}-stop", elem_id=f"stop-{key}", scale=0, min_width=72)
            data = _bar(entry, values, stored if shown else None, problem, autorun=not shown, taken=taken)
            bar = Drawn("run_bar", data, key=f"{key}-bar", scale=1, min_width=280)
        views = _views(module, shown, key)
        _claim(entry)
        with gr.Accordion("How it works", open=False):
            gr.Markdown(inspect.getdoc(module) or "", latex_delimiters=LATEX, elem_classes="tl-doc")
    _wire(entry, module, widgets, run, stop, bar, views)


def _controls(fields: tuple[spec.Field, ...], values: dict[str, Any], key: str) -> list[Widget]:
    """Parts on top as the panel's own tabs; below them the texts on the left, everything else on the right."""
    made: dict[str, Widget] = {}

    def draw(some: list[spec.Field]) -> None:
        for field in some:
            made[field.name] = widget(field, values[field.name], spec.shown(fields, values, field.name), key)

    parts = [f for f in fields if _is_parts(f)]
    texts = [f for f in fields if isinstance(f.control, Text) and f.control.lines > 1]
    lists = [f for f in fields if isinstance(f.control, Choices | LOADED) and f not in texts]
    small = [f for f in fields if f not in (*parts, *texts, *lists)]
    with gr.Column(elem_classes="tl-controls"):
        draw(parts)
        with gr.Row(elem_classes="tl-halves"):
            if texts:
                with gr.Column(elem_classes="tl-texts", min_width=280):
                    draw(texts)
            with gr.Column(elem_classes="tl-others", min_width=280):
                draw(lists)
                if small:
                    with gr.Row(elem_classes="tl-small"):
                        draw(small)
    widgets = [made[f.name] for f in fields]
    _show_when(fields, widgets)
    return widgets


def _is_parts(field: spec.Field) -> bool:
    return isinstance(field.control, Choice) and field.control.style == "parts"


def _show_when(fields: tuple[spec.Field, ...], widgets: list[Widget]) -> None:
    """Show and hide the widgets whose control depends on the value of another."""
    deciding = [w for w in widgets if any(f.control.when[:1] == (w.field.name,) for f in fields)]
    dependent = [w for w in widgets if w.field.control.when]
    targets = [component for w in dependent for component in (w.component, *w.extra)]

    def change(*raw: Any) -> list[Any]:
        values = {w.field.name: value for w, value in zip(deciding, raw, strict=True)}
        visible = {w.field.name: spec.shown(fields, values, w.field.name) for w in dependent}
        updates = [gr.update(visible=visible[w.field.name]) for w in dependent for _ in (w.component, *w.extra)]
        return updates if len(updates) > 1 else updates[0]  # of one output Gradio takes the list as its value

    inputs = [w.component for w in deciding]
    for component in inputs:
        component.change(change, inputs, targets, queue=False, show_progress="hidden", api_visibility="private")


def _views(module: Any, shown: dict[str, Any], key: str) -> dict[str, gr.components.Component]:
    """One component per field of the Result, empty ones hidden."""
    components: dict[str, gr.components.Component] = {}
    for name, cls in spec.result_views(module.run).items():
        value = shown.get(name)
        common = {"visible": value is not None, "key": f"{key}-view-{name}", "elem_id": f"view-{key}--{name}"}
        if cls.__name__ == "Note":
            components[name] = gr.Markdown(
                _markdown(value), latex_delimiters=LATEX, elem_classes="tl-doc tl-text", **common
            )
        else:
            components[name] = Drawn(cls.__name__, value, **common)
    return components


def _markdown(note: dict[str, Any] | None) -> str:
    return f"### {note['title']}\n{note['text']}" if note else ""


def _claim(entry: catalog.Entry) -> None:
    if entry.kind == "workbench":
        return
    measured = measurement.stored(entry.slug)
    with gr.Accordion("The paper's claim, measured here", open=True):
        Drawn(
            "claim", measured or {"note": f"Run: python -m tokenlab reproduce {entry.slug}"}, key=f"{entry.slug}-claim"
        )
        for i, figure in enumerate((measured or {}).get("figures", [])):
            Drawn(figure["kind"], figure, key=f"{entry.slug}-figure-{i}")


def _wire(
    entry: catalog.Entry, module: Any, widgets: list[Widget], run: Any, stop: Any, bar: Any, views: dict[str, Any]
) -> None:
    inputs = [w.component for w in widgets]
    makers = [w for w in widgets if isinstance(w.field.control, Tokenizers)]
    outputs = [bar, *views.values(), *(w.component for w in makers)]

    def handle(request: gr.Request, *raw: Any) -> Iterator[list[Any]]:
        values = {w.field.name: _python(value) for w, value in zip(widgets, raw, strict=True)}
        yield from _stream(entry, module, values, views, makers, stops.new(request.session_hash, entry.slug))

    settings: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": LANE,
        "concurrency_limit": limits.LANE,
        "trigger_mode": "always_last",
        "show_progress": "hidden",
    }
    # A second click while it runs would start again after Stop: "once" lets it pass.
    run.click(handle, inputs, outputs, **{**settings, "trigger_mode": "once"})
    for w in widgets:
        if _is_parts(w.field):
            w.component.input(handle, inputs, outputs, **settings)
    bar.autorun(handle, inputs, outputs, **settings)  # a script's own event; gr.on takes only built-in ones
    live = getattr(module, "LIVE", None)
    if live:
        # Quick systems answer while the user types; `always_last` skips the states in between.
        def handle_live(request: gr.Request, shown: Any, *raw: Any) -> Iterator[list[Any]]:
            values = {w.field.name: value for w, value in zip(widgets, raw, strict=True)}
            # A text box may also report a change when the panel opens.
            if values[live[0]] in live[1:] and values != _shown_values(shown):
                yield from handle(request, *raw)
            else:
                yield [gr.skip()] * len(outputs)  # a generator that yields nothing would empty them

        # `change`, because a text that is pasted, dropped or loaded from a file gives no `input`.
        changed = [w.component.change for w in widgets if isinstance(w.field.control, LOADED)]
        moved = [
            w.component.input for w in widgets if not isinstance(w.field.control, LOADED) and not _is_parts(w.field)
        ]
        gr.on([*changed, *moved], handle_live, [bar, *inputs], outputs, **{**settings, "concurrency_id": QUICK_LANE})

    def halt(request: gr.Request) -> None:
        stops.stop(request.session_hash, entry.slug)

    stop.click(halt, queue=False, api_visibility="private", show_progress="hidden")


def _stream(
    entry: catalog.Entry,
    module: Any,
    values: dict[str, Any],
    views: dict[str, Any],
    makers: list[Widget],
    stopped: threading.Event,
) -> Iterator[list[Any]]:
    """Updates for [bar, *views, *tokenizer choices], as the run gives them. An error changes the bar alone."""
    nothing = [gr.skip()] * (len(views) + len(makers))
    yield [{"state": "running"}, *nothing]
    partial = False
    try:
        for run in guard.answer(module, values, stopped):
            partial = True
            state = "now" if run.done else "running"
            drawn = [_update(name, view, run.result.get(name)) for name, view in views.items()]
            joined = [_join(w, run) for w in makers]
            # The link and the snippet are worked out once: with a long text they cost more than a partial result.
            bar = {"state": state, "seconds": run.seconds}
            if run.done:
                bar = _bar(entry, run.values, None, state=state, seconds=run.seconds, cached=run.cached)
            yield [bar, *drawn, *joined]
    except UserError as error:
        yield [{"state": "partial" if partial else "error", "problem": str(error)}, *nothing]


def _update(name: str, component: Any, view: dict[str, Any] | None) -> Any:
    if view is None:
        return gr.update(visible=False, value=None)
    value = _markdown(view) if isinstance(component, gr.Markdown) else view
    return gr.update(visible=True, value=value)


def _join(maker: Widget, run: guard.Run) -> Any:
    """What the run has made joins the control that it names."""
    for view in run.result.values():
        if run.done and view and view["kind"] == "Made" and view["control"] == maker.field.name:
            return added(list(run.values[maker.field.name]), view["value"], maker.field.control.most)
    return gr.skip()


def _title(entry: catalog.Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title if entry.kind == "system" else entry.sentence,
        "sentence": entry.sentence,
        "paper": entry.paper,
        "code": entry.code,
        "verdict": measurement.verdict(entry.slug),
    }


def _bar(
    entry: catalog.Entry,
    values: dict[str, Any],
    stored: dict[str, Any] | None,
    problem: str = "",
    *,
    state: str = "",
    seconds: float | None = None,
    cached: bool = False,
    autorun: bool = False,
    taken: tuple[str, ...] = (),
) -> dict[str, Any]:
    link = share.write(entry.slug, values)
    return {
        "state": state or ("stored" if stored else "none"),
        "made_on": stored["made_on"] if stored else None,
        "seconds": seconds,
        "cached": cached,
        "problem": problem,
        "query": link.query,
        "left_out": link.left_out,
        "python": share.as_python(entry.slug, values),
        "slug": entry.slug,
        "family": entry.family,
        "shared": spec.shared(entry.module().run, values),
        "taken": taken,
        "values": {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
        "autorun": autorun,
    }


def _shown_values(bar: Any) -> Any:
    """The values of the run that the page shows, as the run bar holds them in the browser."""
    return json.loads(bar["data"]).get("values") if isinstance(bar, dict) else None


def _python(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Stops:
    """The Stop event of the latest run of each (session, panel), bounded."""

    def __init__(self, most: int = 1000):
        self.events: OrderedDict[tuple[str, str], threading.Event] = OrderedDict()
        self.most = most
        self.lock = threading.Lock()

    def new(self, session: str | None, slug: str) -> threading.Event:
        event = threading.Event()
        self.stop(session, slug)  # one visitor runs a panel once at a time
        with self.lock:
            self.events[session or "", slug] = event
            self.events.move_to_end((session or "", slug))
            while len(self.events) > self.most:
                self.events.popitem(last=False)
        return event

    def stop_all(self, session: str | None) -> None:
        """End whatever this visitor runs."""
        with self.lock:
            events = [event for (owner, _), event in self.events.items() if owner == (session or "")]
        for event in events:
            event.set()

    def stop(self, session: str | None, slug: str) -> None:
        with self.lock:
            event = self.events.get((session or "", slug))
        if event is not None:
            event.set()


stops = _Stops()
