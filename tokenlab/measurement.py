"""What `measure` returns: a paper's claim, held against its baselines at our scale."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlab import views

RESULTS = Path(__file__).parent.parent / "assets" / "results"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One claim. Bars are set before the run.

    claim: one sentence; metric and unit of all values; baseline: the paper's own, by name and value;
    random and full: the trivial and the best possible comparison, None where the experiment has none;
    bar: what `value` must reach; direction: "higher" or "lower" is better;
    holds: the verdict, all conditions of the claim together; reason: why it does or does not hold, a line per point;
    paper: what the paper reports; figures: the experiment's pictures."""

    claim: str
    metric: str
    unit: str
    value: float
    baseline_name: str
    baseline: float
    bar: float
    direction: str
    holds: bool
    reason: str
    paper: str
    n: int
    seed: int
    seconds: float
    random: float | None = None
    full: float | None = None
    low: float | None = None
    high: float | None = None
    figures: tuple[views.View, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with the machine and the date of the run."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "figures"}
        plain["figures"] = [views.to_json(view) for view in self.figures]
        plain["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
        plain["date"] = datetime.date.today().isoformat()
        return plain


def stored(slug: str) -> dict[str, Any] | None:
    """The stored measurement of a system, or None when it was not measured yet."""
    path = RESULTS / f"{slug}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def verdict(slug: str) -> str:
    """ "holds" or "fails" as stored; "none" when it was not measured (a workbench never is)."""
    measured = stored(slug)
    return "none" if measured is None else "holds" if measured["holds"] else "fails"


def store(slug: str, measurement: Measurement) -> Path:
    """Write the measurement to assets/results and return the path."""
    path = RESULTS / f"{slug}.json"
    path.write_text(json.dumps(measurement.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
    return path
