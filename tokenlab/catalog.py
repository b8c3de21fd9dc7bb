"""Reads catalog.toml: the families, the workbenches and the 67 systems.

Importing this module imports no system and no torch; `Entry.module()` imports one when it is opened.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tokenlab.errors import UserError

HERE = Path(__file__).parent
DEFAULTS = HERE.parent / "assets" / "defaults"


@dataclass(frozen=True)
class Family:
    """A tab: its slug (the folder's name), the tab's name, one sentence."""

    slug: str
    name: str
    sentence: str


@dataclass(frozen=True)
class Entry:
    """A system or a workbench. paper and code are links, "" where there is none.
    question: what a visitor asks that this answers, "" while it is not live."""

    slug: str
    name: str
    family: str
    title: str
    sentence: str
    kind: str
    question: str = ""
    paper: str = ""
    code: str = ""

    @property
    def module_name(self) -> str:
        """A workbench is its family's compare.py, a system the file named after its slug."""
        file = "compare" if self.kind == "workbench" else self.slug.replace("-", "_")
        return f"tokenlab.{self.family}.{file}"

    @property
    def live(self) -> bool:
        """True when the module exists; looked up as a file, so that nothing is imported."""
        return (HERE.parent / (self.module_name.replace(".", "/") + ".py")).exists()

    def module(self) -> ModuleType:
        """Import the system. UserError when it is not live."""
        if not self.live:
            raise UserError(f"{self.name} is in the catalogue but not built yet; please choose another.")
        return importlib.import_module(self.module_name)

    def stored_default(self) -> dict[str, Any] | None:
        """The Result of the default run as it ships, in JSON form, with the values it was made with."""
        path = DEFAULTS / f"{self.slug}.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None


@cache
def _read() -> dict[str, list[dict[str, str]]]:
    return tomllib.loads((HERE / "catalog.toml").read_text("utf-8"))


@cache
def families() -> tuple[Family, ...]:
    """The families in the order of the tabs."""
    return tuple(Family(**row) for row in _read()["family"])


@cache
def entries() -> tuple[Entry, ...]:
    """Workbenches first, then the systems, in the order of the file."""
    data = _read()
    return tuple(Entry(kind=kind, **row) for kind in ("workbench", "system") for row in data[kind])


def of_family(slug: str) -> tuple[Entry, ...]:
    """The entries of a tab, the workbench first."""
    return tuple(entry for entry in entries() if entry.family == slug)


def live() -> tuple[Entry, ...]:
    """The entries that can be opened."""
    return tuple(entry for entry in entries() if entry.live)


def find(slug: str) -> Entry:
    """The entry of that slug, or UserError."""
    for entry in entries():
        if entry.slug == slug:
            return entry
    raise UserError(f"There is no system called {slug[:60]!r}; the Catalogue tab lists them all.")
