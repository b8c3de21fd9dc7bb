"""python -m tokenlab list | run | reproduce | defaults | models | export | space | serve"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tokenlab import catalog, guard, measurement, space, spec
from tokenlab.errors import UserError

app = typer.Typer(help="TokenLab from the command line.", no_args_is_help=True, add_completion=False)
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
CLAIM = ("metric", "value", "baseline", "bar", "holds", "seed", "n", "seconds")


@app.command("list")
def list_entries(as_json: Json = False) -> None:
    """All systems and workbenches: what is live, and what its claim came to."""
    rows = [_row(entry) for entry in catalog.entries()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        claim = row["claim"]
        verdict = (
            ""
            if claim is None
            else f"  {claim['metric']} {claim['value']:.4g}, {'holds' if claim['holds'] else 'does not hold'}"
        )
        print(f"{row['slug']:24} {row['family']:10} {'live' if row['live'] else '-':5}{verdict}")


def _row(entry: catalog.Entry) -> dict[str, Any]:
    measured = measurement.stored(entry.slug)
    claim = {name: measured[name] for name in CLAIM} if measured else None
    return {"slug": entry.slug, "kind": entry.kind, "family": entry.family, "live": entry.live, "claim": claim}


@app.command()
def run(
    slug: str,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="name=value; a list is a,b,c; @file reads a text file; tokenizers, pictures and sounds may be paths.",
        ),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Run a system or a workbench with its defaults, changed by --set."""
    module = catalog.find(slug).module()
    finished = guard.last(module, _values(module, settings))
    if as_json:
        print(json.dumps(finished.result, ensure_ascii=False))
        return
    for view in finished.result.values():
        if view:
            print(view["alt"])
    print(f"{finished.seconds:.2f} s")


def _values(module: Any, settings: list[str]) -> dict[str, Any]:
    """name=value pairs as values."""
    controls = {field.name: field.control for field in spec.fields(module.run)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting[:60]!r} should read name=value.")
        if value.startswith("@"):
            value = _read(value[1:])
        values[name] = _own_files(controls.get(name), value)
    return values


def _own_files(control: Any, value: str) -> Any:
    """On the user's own machine, and only there, tokenizers, a picture and a sound may be named by their paths."""
    from tokenlab.controls import Picture, Sound, Tokenizers

    if isinstance(control, Tokenizers):
        from tokenlab.text import sources

        return [_own_file(ref.strip(), sources.register_path) for ref in value.split(",")]
    if isinstance(control, Picture):
        from tokenlab import pictures

        return _own_file(value.strip(), pictures.register_path)
    if isinstance(control, Sound):
        from tokenlab import sounds

        return _own_file(value.strip(), sounds.register_path)
    return value


def _own_file(ref: str, register: Callable[[str], str]) -> str:
    return register(ref) if os.path.isfile(ref) else ref


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} could not be read as UTF-8 text: {error.__class__.__name__}.") from None


@app.command()
def reproduce(
    slug: Annotated[str, typer.Argument(help="A system's slug.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every live system that has a claim.")] = False,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Measure the paper's claim again and store it; fails when a claim that held no longer does."""
    if everything == bool(slug):
        raise UserError("Name one system, or use --all.")
    entries = [e for e in catalog.live() if e.kind == "system"] if everything else [catalog.find(slug)]
    rows, broken = [], []
    for entry in entries:
        if entry.kind == "workbench":
            raise UserError(f"{entry.name} is a workbench: it compares systems and makes no claim of its own.")
        before = measurement.stored(entry.slug)
        measured = entry.module().measure(seed=seed)
        measurement.store(entry.slug, measured)
        rows.append({"slug": entry.slug, **{name: getattr(measured, name) for name in CLAIM}})
        if before and before["holds"] and not measured.holds:
            broken.append(entry.slug)
        if not as_json:
            verdict = "holds" if measured.holds else "does not hold"
            numbers = f"{measured.metric} {measured.value:.4g}, bar {measured.bar:.4g}, {verdict}"
            print(f"{entry.slug}: {numbers}. {measured.reason}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=1))
    if broken:
        raise UserError(f"Held before and no longer does: {', '.join(broken)}.")


@app.command()
def defaults(slugs: Annotated[list[str] | None, typer.Argument(help="Default: all live ones.")] = None) -> None:
    """Run every panel with its defaults and store what the page shows before the first click."""
    import datetime

    for entry in [catalog.find(s) for s in slugs] if slugs else catalog.live():
        finished = guard.last(entry.module(), {})
        catalog.DEFAULTS.mkdir(exist_ok=True)
        stored = {
            "made_on": datetime.date.today().isoformat(),
            "seconds": finished.seconds,
            "values": finished.values,
            "result": finished.result,
        }
        path = catalog.DEFAULTS / f"{entry.slug}.json"
        path.write_text(json.dumps(stored, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
        print(f"{path.name}: {finished.seconds:.2f} s, {path.stat().st_size:,} bytes")


@app.command()
def models(as_json: Json = False) -> None:
    """The models that ship with TokenLab."""
    from tokenlab.models import listing

    rows = listing()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        graph = "ONNX" if row["onnx"] else "no ONNX graph"
        print(f"{row['name']:16} {row['type']:10} {row['parameters']:>12,} parameters  {graph}")


@app.command()
def export(name: Annotated[str, typer.Argument(help="A model that ships, or hub:owner/name.")]) -> None:
    """Write a language model as an ONNX graph with its key-value cache, or vq-image or shapes-vlm as several graphs."""
    from tokenlab.models import export as write

    print(write(name))


@app.command("space")
def render_space(check: Annotated[bool, typer.Option(help="Only compare; fail when they disagree.")] = False) -> None:
    """Write the Space's front matter of README.md from spaces.yaml."""
    if check and not space.agrees():
        raise UserError("README.md and spaces.yaml disagree; run python -m tokenlab space.")
    if not check:
        space.write()


@app.command()
def serve(host: str = "127.0.0.1", port: int = 7860) -> None:
    """Start the app."""
    import runpy
    from pathlib import Path

    os.environ["GRADIO_SERVER_NAME"], os.environ["GRADIO_SERVER_PORT"] = host, str(port)
    runpy.run_path(str(Path(__file__).parent.parent / "app.py"), run_name="__main__")


def main() -> None:
    """The entry point: a user's error is one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(2) from None
