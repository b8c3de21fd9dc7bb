"""Control -> Gradio component. The only place that knows which widget a control becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from components.views import Drawn
from tokenlab import controls, guard, limits
from tokenlab.errors import UserError
from tokenlab.spec import Field


@dataclass
class Widget:
    """component: holds the value; extra: shown and hidden with it (e.g. an upload button)."""

    field: Field
    component: gr.components.Component
    extra: list[gr.components.Component]


def widget(field: Field, value: Any, visible: bool, key: str) -> Widget:
    """The widget of one parameter, showing `value`."""
    control = field.control
    common: dict[str, Any] = {
        "label": control.label,
        "info": control.info or None,
        "visible": visible,
        "interactive": True,
        "key": f"{key}-{field.name}",
        "elem_id": f"control-{key}--{field.name}",
    }
    match control:
        case controls.Text() if control.upload:
            return _text_with_upload(field, value, common)
        case controls.Text():
            component = gr.Textbox(
                value,
                lines=control.lines,
                max_lines=max(control.lines, 8),
                placeholder=control.placeholder or None,
                **common,
            )
        case controls.Slider():
            component = gr.Slider(control.minimum, control.maximum, value, step=control.step, **common)
        case controls.Number():
            common["label"] = f"{control.label} [{control.unit}]" if control.unit else control.label
            component = gr.Number(value, **common)  # the control checks the range, in its own words
        case controls.Seed():
            component = gr.Number(value, precision=0, **common)
        case controls.Switch():
            component = gr.Checkbox(value, **common)
        case controls.Choice() if control.style == "menu":
            component = gr.Dropdown(list(control.options), value=value, **common)
        case controls.Choice():
            component = gr.Radio(list(control.options), value=value, elem_classes=f"tl-{control.style}", **common)
        case controls.Choices():
            component = gr.CheckboxGroup(list(control.options), value=list(value), **common)
        case controls.Tokenizers():
            return _tokenizers(field, list(value), common)
        case controls.Picture():
            return _picture(field, value, common)
        case controls.Sound():
            return _sound(field, value, common)
        case controls.Model():
            from tokenlab import models

            common["info"] = common["info"] or "One from the list, or a Hugging Face id such as owner/name."
            offered = list(dict.fromkeys([*models.OFFERED[control.kind], value]))
            component = gr.Dropdown(offered, value=value, allow_custom_value=True, **common)
        case _:
            raise TypeError(f"no widget for {type(control).__name__}")
    return Widget(field, component, [])


def _text_with_upload(field: Field, value: str, common: dict[str, Any]) -> Widget:
    control = field.control
    lines = {"lines": control.lines, "max_lines": max(control.lines, 8), "placeholder": control.placeholder or None}

    def receive(path: str, _: str) -> tuple[str, None]:
        return control.check(_text_of(path)), None

    return _with_upload(field, gr.Textbox(value, **lines, **common), "Load a text file", receive, common)


def _text_of(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("This file is not UTF-8 text; please save it as UTF-8 and load it again.") from None


def _tokenizers(field: Field, refs: list[str], common: dict[str, Any]) -> Widget:
    hint = "Choose from the list, or type a Hugging Face id such as owner/name and press Enter."
    common["info"] = common["info"] or hint
    most = field.control.most
    settings: dict[str, Any] = {"multiselect": True, "allow_custom_value": True, "max_choices": most}

    def receive(path: str, chosen: list[str]) -> tuple[Any, str | None]:
        from tokenlab.text import sources

        ref = sources.register_path(path)
        gone = [r for r in chosen if r != ref][most - 1 :] if most > 1 else []
        said = f"No more than {most} fit, so {', '.join(_label(r, sources.label) for r in gone)} had to go."
        return added(chosen, ref, most), said if gone else None

    box = gr.Dropdown(_choices(refs), value=refs, **settings, **common)
    return _with_upload(field, box, "Upload tokenizer.json, .model or .tiktoken", receive, common)


def _picture(field: Field, ref: str, common: dict[str, Any]) -> Widget:
    common["info"] = common["info"] or "Choose from the list, or type scene: and a number and press Enter."

    def receive(path: str, _: str) -> tuple[Any, None]:
        from tokenlab import pictures

        ref = pictures.register_path(path)
        return gr.update(choices=_pictures(ref), value=ref), None

    box = gr.Dropdown(_pictures(ref), value=ref, allow_custom_value=True, **common)
    return _with_upload(field, box, "Upload a picture", receive, common)


def _sound(field: Field, ref: str, common: dict[str, Any]) -> Widget:
    common["info"] = (
        common["info"] or "Choose from the list, or type say:, a language and a text (say:de:Guten Tag), then Enter."
    )

    def receive(path: str, _: str) -> tuple[Any, None]:
        from tokenlab import sounds

        try:
            ref = sounds.register_path(path)
        finally:
            Path(path).unlink(missing_ok=True)  # Gradio would keep a voice on the disk for an hour or two
        return gr.update(choices=_sounds(ref), value=ref), None

    box = gr.Dropdown(_sounds(ref), value=ref, allow_custom_value=True, **common)
    with gr.Row(elem_classes="tl-uploads"):
        made = _with_upload(field, box, "Upload a sound", receive, common, ["audio", ".flac", ".oga", ".opus"])
        microphone = {"upload": f"{common['elem_id']}-upload", "seconds": limits.SOUND_SECONDS}
        visible = common["visible"]
        made.extra.append(Drawn("recorder", microphone, key=f"{common['key']}-recorder", visible=visible))
    return made


def _with_upload(
    field: Field,
    box: gr.components.Component,
    label: str,
    receive: Callable[[str, Any], tuple[Any, str | None]],
    common: dict[str, Any],
    kinds: list[str] | None = None,
) -> Widget:
    """`box` with a button below it: receive(path of the file, value of the box) gives the box's update and what is
    to be said about it.

    kinds: of files that the button offers, as Gradio names them; all: None."""
    key, visible = common["key"], common["visible"]
    said = Drawn("problem", None, key=f"{key}-said", visible=visible)
    button = gr.UploadButton(
        label,
        type="filepath",
        size="sm",
        visible=visible,
        key=f"{key}-upload",
        elem_id=f"{common['elem_id']}-upload",
        elem_classes="tl-upload",
        file_types=kinds,
    )

    def take(path: str, value: Any) -> tuple[Any, Any]:
        try:
            return guard.sentence(receive, path, value)
        except UserError as error:
            return gr.skip(), str(error)

    settings: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "files", "show_progress": "minimal"}
    button.upload(take, [button, box], [box, said], **settings)
    return Widget(field, box, [button, said])


def added(refs: list[str], ref: str, most: int) -> Any:
    """An update of a tokenizer choice with `ref` in it; the last one gives way when there is no room."""
    refs = [r for r in refs if r != ref]
    refs = [*refs[: most - 1], ref]
    return gr.update(choices=_choices(refs), value=refs)


def _choices(refs: list[str]) -> list[tuple[str, str]]:
    """What the list offers: the built-in tokenizers, those that need the internet, and what is chosen."""
    from tokenlab.text import sources

    offered = [*sources.builtin(), *sources.optional()]
    return _with_chosen(offered, refs, sources.label)


def _pictures(ref: str) -> list[tuple[str, str]]:
    """What the menu offers: photographs, a few drawn scenes, and what is chosen."""
    from tokenlab import pictures

    return _with_chosen(pictures.offered(), [ref], pictures.label)


def _sounds(ref: str) -> list[tuple[str, str]]:
    """What the menu offers: the samples, and what is chosen."""
    from tokenlab import sounds

    return _with_chosen(sounds.offered(), [ref], sounds.label)


def _with_chosen(offered: list[tuple[str, str]], refs: list[str], label: Callable[[str], str]) -> list[tuple[str, str]]:
    """`offered`, and behind it the references that are not in it."""
    known = {ref for _, ref in offered}
    return [*offered, *((_label(ref, label), ref) for ref in refs if ref not in known)]


def _label(ref: str, label: Callable[[str], str]) -> str:
    """label(ref); what a user has typed wrongly keeps its words until the run says what is wrong."""
    try:
        return label(ref)
    except UserError:
        return ref
