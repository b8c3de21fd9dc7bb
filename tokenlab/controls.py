"""The vocabulary of inputs: typed values with a range, a label and a check.

A control is written into the signature of a system's `run`:

    budget: Annotated[float, Slider("Cache budget", 0.05, 1.0, step=0.05)] = 0.2

From it come the widget, the type in the HTTP and MCP endpoint, the check of a link and of the
command line, and the tests. A control is plain data and knows no widget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from tokenlab import limits
from tokenlab.errors import UserError


@dataclass(frozen=True)
class Control:
    """label: what the user reads; info: one line below it;
    when: `(name, value, ...)` shows the control only while control `name` is shown and has one of the values;
    shared: panels of a family hand the values of controls with the same such name over to each other; what stands
    before a dot in it goes together, such as "scene.picture" and "scene.question"."""

    label: str
    info: str = ""
    when: tuple[str, ...] = ()
    shared: str = field(default="", kw_only=True)

    hint: ClassVar[Any] = str  # the type that endpoints and docs announce

    def check(self, value: Any) -> Any:
        """The value in its proper type, or UserError in one sentence."""
        raise NotImplementedError

    def take(self, given: Any, current: Any) -> Any:
        """What becomes of `current` when another panel hands over `given`; UserError when that is of no use here."""
        return self.check(given)

    def _refuse(self, what: str) -> UserError:
        return UserError(f"{self.label}: {what}.")


@dataclass(frozen=True)
class Text(Control):
    """A text box. `characters` caps it; `lines` is its height; `upload` lets a text file fill it.

    shortest: characters below which a text that another panel hands over is of no use here."""

    lines: int = 4
    characters: int = limits.TEXT_CHARACTERS
    placeholder: str = ""
    upload: bool = False
    shortest: int = 0

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refuse("this wants text")
        return limits.check_text(value, name=self.label, characters=self.characters)

    def take(self, given: Any, current: Any) -> str:
        text = self.check(given)
        if len(text) < self.shortest:
            raise self._refuse(f"this wants at least {self.shortest} characters")
        return text


@dataclass(frozen=True, kw_only=True)
class Slider(Control):
    """A number between `minimum` and `maximum`; whole numbers when `step` is an int."""

    minimum: float
    maximum: float
    step: float

    @property
    def hint(self) -> type:  # type: ignore[override]
        return int if isinstance(self.step, int) else float

    def check(self, value: Any) -> float | int:
        number = _number(self, value)
        if not self.minimum <= number <= self.maximum:
            raise self._refuse(f"{number:g} is outside {self.minimum:g} to {self.maximum:g}")
        return int(round(number)) if self.hint is int else number


@dataclass(frozen=True)
class Number(Control):
    """A number that is typed in, at least `minimum`, which an empty box stands for; `unit` stands behind the label."""

    minimum: float = 0.0
    maximum: float = 1e9
    unit: str = ""
    hint: ClassVar[Any] = float

    def check(self, value: Any) -> float:
        number = _number(self, self.minimum if value in (None, "") else value)
        if not self.minimum <= number <= self.maximum:
            raise self._refuse(f"{number:g} is outside {self.minimum:g} to {self.maximum:g}")
        return number


@dataclass(frozen=True)
class Seed(Control):
    """The seed of everything random in the run."""

    label: str = "Seed"
    hint: ClassVar[Any] = int

    def check(self, value: Any) -> int:
        number = _number(self, value)
        if number != int(number) or not 0 <= number < 2**31:
            raise self._refuse("a seed is a whole number from 0 to 2147483647")
        return int(number)


@dataclass(frozen=True)
class Switch(Control):
    """On or off."""

    hint: ClassVar[Any] = bool

    def check(self, value: Any) -> bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self._refuse("this is on or off (true or false)")
        return value


@dataclass(frozen=True, kw_only=True)
class Choice(Control):
    """One of `options`. `style` is "menu", "buttons" or "parts": parts are the panel's own tabs."""

    options: tuple[str, ...]
    style: str = "menu"

    @property
    def hint(self) -> Any:  # type: ignore[override]
        return Literal[self.options]

    def check(self, value: Any) -> str:
        if value not in self.options:
            raise self._refuse(f"{_quoted(value)} is not one of {', '.join(self.options)}")
        return value


@dataclass(frozen=True, kw_only=True)
class Choices(Control):
    """Some of `options`, in the order given, at least `least`."""

    options: tuple[str, ...]
    least: int = 1

    @property
    def hint(self) -> Any:  # type: ignore[override]
        return list[Literal[self.options]]

    def check(self, value: Any) -> tuple[str, ...]:
        values = _strings(self, value)
        for item in values:
            if item not in self.options:
                raise self._refuse(f"{_quoted(item)} is not one of {', '.join(self.options)}")
        if len(values) < self.least:
            raise self._refuse(f"choose at least {self.least}")
        return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Tokenizers(Control):
    """References to tokenizers (tokenlab.text.sources reads them), `least` to `most` of them.

    The widget also takes a Hub id, an uploaded file and a tokenizer trained in the page."""

    least: int = 2
    most: int = limits.TOKENIZERS
    hint: ClassVar[Any] = list[str]

    def check(self, value: Any) -> tuple[str, ...]:
        from tokenlab.text import sources  # late: the reference syntax belongs to the text family

        refs = tuple(dict.fromkeys(_strings(self, value)))
        if not self.least <= len(refs) <= self.most:
            wanted = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            raise self._refuse(f"choose {wanted} tokenizer{'' if self.most == 1 else 's'}, not {len(refs)}")
        return tuple(sources.check_ref(ref) for ref in refs)

    def take(self, given: Any, current: Any) -> tuple[str, ...]:
        """The last ones when there are too many, because what a visitor adds comes last; learned ones first."""
        from tokenlab.text import sources

        refs = list(dict.fromkeys(_strings(self, given)))
        if len(refs) > self.most:
            refs = ([ref for ref in refs if ref not in sources.YARDSTICKS] or refs)[-self.most :]
        return self.check([*refs, *(ref for ref in current if ref not in refs)][: max(len(refs), self.least)])


@dataclass(frozen=True)
class Picture(Control):
    """A reference to a picture (tokenlab.pictures reads it): "photo:NAME", "scene:SEED" or "upload:HASH".

    The widget also takes an uploaded file; the endpoint and the command line also take "data:image/...;base64,..."."""

    def check(self, value: Any) -> str:
        from tokenlab import pictures  # late: Pillow is imported only where pictures are

        if not isinstance(value, str) or not value.strip():
            raise self._refuse("this wants a picture")
        return pictures.check_ref(value.strip())


@dataclass(frozen=True)
class Sound(Control):
    """A reference to a sound (tokenlab.sounds reads it): "sample:NAME", "say:VOICE:TEXT" or "upload:HASH".

    The widget also takes an uploaded file and a recording; the endpoint and the command line also take
    "data:audio/...;base64,..."."""

    def check(self, value: Any) -> str:
        from tokenlab import sounds  # late, as for pictures

        if not isinstance(value, str) or not value.strip():
            raise self._refuse("this wants a sound")
        return sounds.check_ref(value.strip())


@dataclass(frozen=True)
class Model(Control):
    """A checkpoint: a bundled one by name, or `hub:owner/name`. `kind`: what sort of model the system needs."""

    kind: str = "causal-lm"

    def check(self, value: Any) -> str:
        from tokenlab import models  # late: names of models belong to tokenlab.models

        if not isinstance(value, str) or not value.strip():
            raise self._refuse("this wants the name of a model")
        return models.check_name(value.strip(), self.kind)


def _number(control: Control, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise control._refuse("this wants a number")
    try:
        number = float(value)
    except ValueError:
        raise control._refuse(f"{_quoted(value)} is not a number") from None
    if not math.isfinite(number):
        raise control._refuse("this wants a finite number")
    return number


def _strings(control: Control, value: Any) -> list[str]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise control._refuse("this wants a list of names")
    return list(value)


def _quoted(value: Any) -> str:
    text = str(value).encode("utf-8", "replace").decode()
    return f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"'
