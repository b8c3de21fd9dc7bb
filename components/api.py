"""One public endpoint per live system, made from its signature. It is also the MCP tool of that name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from tokenlab import catalog, guard, limits, spec
from tokenlab.controls import Control, Number, Picture, Slider, Sound, Tokenizers
from tokenlab.errors import UserError

QUICK_LANE = "quick"  # what answers while the user types does not wait behind minute-long runs
LANE = "cpu"  # all work shares one queue lane of limits.LANE runs, so that they do not fight for the cores


def publish_all() -> None:
    """Call inside the Blocks: every live system becomes an endpoint; nothing else is public."""
    for entry in catalog.live():
        gr.api(
            endpoint(entry),
            api_name=entry.slug,
            api_description=describe(entry),
            concurrency_id=LANE,
            concurrency_limit=limits.LANE,
        )


def endpoint(entry: catalog.Entry) -> Callable[..., dict]:
    """A plain function with the parameters of the system's `run`: JSON values in, JSON result out.

    The module itself is imported when it is first called, but its signature is needed now."""
    fields = spec.fields(entry.module().run)

    def call(*arguments: Any, **named: Any) -> dict:
        values = dict(zip((f.name for f in fields), arguments, strict=False)) | named
        try:
            return guard.last(entry.module(), values).result
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    call.__name__ = entry.slug.replace("-", "_")
    call.__doc__ = describe(entry)
    parameters = [
        inspect.Parameter(
            f.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=_plain(f.default), annotation=f.control.hint
        )
        for f in fields
    ]
    call.__signature__ = inspect.Signature(parameters, return_annotation=dict)  # type: ignore[attr-defined]
    call.__annotations__ = {f.name: f.control.hint for f in fields} | {"return": dict}
    return call


def describe(entry: catalog.Entry) -> str:
    """The docstring of the endpoint: the catalogue's sentence and one line per parameter."""
    lines = [entry.sentence, "", "Args:"]
    for field in spec.fields(entry.module().run):
        lines.append(f"    {field.name}: {_sentence(field.control)}")
    return "\n".join(lines)


def _sentence(control: Control) -> str:
    """Label, information and range of a parameter, for a reader who does not see the panel."""
    parts = [control.label, control.info]
    if isinstance(control, Slider | Number):
        parts.append(f"{control.minimum:g} to {control.maximum:g}")
    if isinstance(control, Tokenizers):
        from tokenlab.text import sources

        built_in = ", ".join(ref for _, ref in sources.builtin())
        parts.append(f"{control.least} to {control.most} of {built_in}, tiktoken:NAME, hub:OWNER/NAME")
    if isinstance(control, Picture):
        from tokenlab import pictures

        photos = ", ".join(f"photo:{name}" for name in pictures.PHOTOS)
        kinds = ", ".join(pictures.FORMATS)
        parts.append(
            f"{photos}, scene:SEED (0 to 2147483647), or a file of yours as data:image/png;base64,... ({kinds})"
        )
    if isinstance(control, Sound):
        from tokenlab import sounds

        samples = ", ".join(f"sample:{name}" for name in sounds.SAMPLES)
        parts.append(
            f"{samples}, say:VOICE:TEXT (a voice of espeak-ng such as en-us, de or cmn, at most "
            f"{limits.SPOKEN_CHARACTERS} characters), or a file of yours as data:audio/wav;base64,... "
            f"({', '.join(sounds.FORMATS)}); its first {limits.SOUND_SECONDS:g} seconds are used"
        )
    return ". ".join(part for part in parts if part)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
