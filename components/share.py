"""Panel state <-> URL. The state lives in the link, not on the server: it works after a restart and on any replica.

`?v=1&sys=h2o&s=<base64url(zlib(json))>`; the JSON holds the values that differ from the defaults, and
under "made" the recipes of tokenizers that were trained in the page.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenlab import catalog, limits, spec
from tokenlab.controls import Picture, Sound, Text, Tokenizers
from tokenlab.errors import UserError

VERSION = "1"
_STORES = {Picture: "tokenlab.pictures", Sound: "tokenlab.sounds", Tokenizers: "tokenlab.text.sources"}


@dataclass(frozen=True)
class Link:
    """query: the part after `?`; left_out: one sentence on what did not fit in, or ""."""

    query: str
    left_out: str = ""


@dataclass(frozen=True)
class Opened:
    """What a link asks for: a slug, its checked values, and a sentence when something was wrong.
    taken: labels of controls whose values another panel has handed over."""

    slug: str
    values: dict[str, Any]
    problem: str = ""
    taken: tuple[str, ...] = ()


def write(slug: str, values: dict[str, Any]) -> Link:
    """The link to a panel with these (checked) values."""
    fields = spec.fields(catalog.find(slug).module().run)
    state = {f.name: values[f.name] for f in fields if _plain(values[f.name]) != _plain(f.default)}
    state, left_out = _portable(fields, state)
    texts = sorted(
        (f.name for f in fields if isinstance(f.control, Text) and f.name in state), key=lambda n: len(state[n])
    )
    while len(packed := _pack(state)) > limits.LINK_STATE_BYTES:
        if not texts:
            return Link(_query(slug, ""), "The settings are too long for a link, so it opens the panel as it ships.")
        name = texts.pop()
        state.pop(name)
        left_out.append(f"{_label(fields, name)} is longer than a link can carry (about 2 KB)")
    sentence = f"Not in the link: {'; '.join(left_out)}." if left_out else ""
    return Link(_query(slug, packed if state else ""), sentence)


def read(query: Mapping[str, str]) -> Opened | None:
    """What the page's address asks for; None when it asks for nothing. Never raises: the problem is a sentence."""
    slug = query.get("sys")
    if slug is None:
        return None
    try:
        entry = catalog.find(slug)
    except UserError as error:
        return Opened("", {}, f"{error} This link is out of date or mistyped.")
    if not entry.live:
        return Opened(slug, {}, f"{entry.name} is in the catalogue but not built yet.")
    if query.get("v") != VERSION:
        return Opened(slug, {}, "This link was made by another version of TokenLab, so its settings were left out.")
    try:
        return Opened(slug, _read_state(entry, query.get("s", "")))
    except UserError as error:
        return Opened(slug, {}, f"The settings in this link could not be used, so these are the defaults. {error}")


def as_python(slug: str, values: dict[str, Any]) -> str:
    """A snippet that repeats the run from Python."""
    entry = catalog.find(slug)
    fields = spec.fields(entry.module().run)
    run = entry.module().run
    shown = [f for f in fields if spec.shown(fields, values, f.name)]
    changed = [f"    {f.name}={values[f.name]!r}," for f in shown if _plain(values[f.name]) != _plain(f.default)]
    package, module = entry.module_name.rsplit(".", 1)
    # A run that streams is a generator; its last result is the whole one.
    result = "*_, result" if inspect.isgeneratorfunction(run) else "result"
    call = "\n".join([f"{result} = {module}.run(", *changed, ")"]) if changed else f"{result} = {module}.run()"
    return f"from {package} import {module}\n\n{_recipes(shown, values)}{_uploads(shown, values)}{call}\n"


def _recipes(fields: list[spec.Field], values: dict[str, Any]) -> str:
    """Lines that make the trained tokenizers known again, where another process runs the snippet."""
    from tokenlab.text import training

    refs = [ref for f in fields if isinstance(f.control, Tokenizers) for ref in values[f.name]]
    recipes = [training.recipe_json(ref) for ref in refs if ref.startswith("trained:")]
    lines = [f"training.receive({recipe!r})" for recipe in recipes if recipe is not None]
    return "\n".join(["from tokenlab.text import training", "", *lines, "", ""]) if lines else ""


def _uploads(fields: list[spec.Field], values: dict[str, Any]) -> str:
    """A comment for each upload: another process does not have it until it is registered there."""
    lines = []
    for field in fields:
        for ref in filter(_is_upload, _refs(field, values)):
            store = _STORES[type(field.control)]
            lines.append(f"# {ref} is a file of yours: first call {store}.register_path with its path.\n")
    return "".join(lines)


def _refs(field: spec.Field, values: dict[str, Any]) -> list[str]:
    """The references in a value: of one picture or sound, of several tokenizers, none in other values."""
    if isinstance(field.control, Picture | Sound):
        return [values[field.name]]
    return list(values[field.name]) if isinstance(field.control, Tokenizers) else []


def _is_upload(ref: str) -> bool:
    return ref.startswith(("file:", "upload:"))


def _portable(fields: tuple[spec.Field, ...], state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Without uploads, which do not travel; with the recipes of trained tokenizers, which do."""
    from tokenlab.text import training

    left_out: list[str] = []
    made: dict[str, Any] = {}
    for field in fields:
        if not isinstance(field.control, Picture | Sound | Tokenizers) or field.name not in state:
            continue
        kept = []
        for ref in _refs(field, state):
            if _is_upload(ref):
                what = "uploaded or recorded sound" if isinstance(field.control, Sound) else "uploaded file"
                left_out.append(f"the {what} (uploads stay on the server that they were sent to)")
            elif ref.startswith("trained:"):
                recipe = training.recipe_json(ref)
                if recipe is None:
                    left_out.append("the tokenizer that you trained, because its text is longer than a link can carry")
                else:
                    made[ref] = recipe
                    kept.append(ref)
            else:
                kept.append(ref)
        if len(kept) < getattr(field.control, "least", 1):
            state.pop(field.name)
        elif isinstance(field.control, Tokenizers):
            state[field.name] = kept
    return ({**state, "made": made} if made else state), left_out


def _read_state(entry: catalog.Entry, packed: str) -> dict[str, Any]:
    state = _unpack(packed) if packed else {}
    made = state.pop("made", {})
    if made:
        from tokenlab.text import training

        if not isinstance(made, dict) or len(made) > limits.TOKENIZERS:
            raise UserError("It holds recipes that cannot be read.")
        for recipe in made.values():
            training.receive(recipe)
    return spec.check(entry.module().run, state)


def _pack(state: dict[str, Any]) -> str:
    data = json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.compress(data, 9)).decode().rstrip("=")


def _unpack(packed: str) -> dict[str, Any]:
    """The JSON object in `s`, or UserError. Bounded before and while unpacking."""
    if len(packed) > limits.LINK_STATE_BYTES:
        raise UserError(f"It is longer than {limits.LINK_STATE_BYTES:,} characters.")
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(
            base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True), limits.LINK_JSON_BYTES
        )
        if not inflate.eof:  # cut off, or larger than the limit
            raise ValueError
        state = json.loads(data)
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        raise UserError("It is damaged, perhaps cut off while it was copied.") from None
    if not isinstance(state, dict):
        raise UserError("It is damaged, perhaps cut off while it was copied.")
    return state


def _query(slug: str, packed: str) -> str:
    return f"v={VERSION}&sys={slug}" + (f"&s={packed}" if packed else "")


def _label(fields: tuple[spec.Field, ...], name: str) -> str:
    return next(f.control.label for f in fields if f.name == name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
