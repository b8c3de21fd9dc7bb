"""What one `run` signature says: names, controls, defaults, and the views of its Result."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any

from tokenlab.controls import Control
from tokenlab.errors import UserError


@dataclass(frozen=True)
class Field:
    """One parameter of `run`."""

    name: str
    control: Control
    default: Any


def fields(run: typing.Callable) -> tuple[Field, ...]:
    """The parameters of `run`, in order. TypeError when one lacks a control or a default."""
    hints = typing.get_type_hints(run, include_extras=True)
    return tuple(_field(run, p, hints.get(p.name)) for p in inspect.signature(run).parameters.values())


def _field(run: typing.Callable, parameter: inspect.Parameter, hint: Any) -> Field:
    controls = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Control)]
    if len(controls) != 1 or parameter.default is inspect.Parameter.empty:
        raise TypeError(f"{run.__module__}.run: {parameter.name} needs Annotated[type, Control] and a default")
    return Field(parameter.name, controls[0], parameter.default)


def check(run: typing.Callable, values: dict[str, Any]) -> dict[str, Any]:
    """All values of `run`, checked; what `values` leaves out takes its default. UserError else."""
    known = fields(run)
    unknown = sorted(set(values) - {field.name for field in known})
    if unknown:
        names = ", ".join(field.name for field in known)
        raise UserError(f"There is no setting {str(unknown[0])[:60]!r} here; the settings are {names}.")
    return {field.name: field.control.check(values.get(field.name, field.default)) for field in known}


def shown(fields: tuple[Field, ...], values: dict[str, Any], name: str) -> bool:
    """Whether the control `name` is shown while the controls have these values (see Control.when)."""
    when = next(field.control.when for field in fields if field.name == name)
    return not when or (str(values[when[0]]) in when[1:] and shown(fields, values, when[0]))


def shared(run: typing.Callable, values: dict[str, Any]) -> dict[str, Any]:
    """Shared name -> value (Control.shared), of the controls that are shown and whose group is not all defaults."""
    known = fields(run)
    offered = [f for f in known if f.control.shared and shown(known, values, f.name)]
    changed = {_group(f) for f in offered if values[f.name] != f.default}
    return {f.control.shared: values[f.name] for f in offered if _group(f) in changed}


def _group(field: Field) -> str:
    return field.control.shared.split(".")[0]


def take_over(
    run: typing.Callable, values: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The (checked) values after another panel has handed over `given` (shared name -> value), and the labels of the
    controls that took something from it. A control that cannot use what it is given keeps its value."""
    known, taken = fields(run), []
    for field in known:
        if field.control.shared not in given:
            continue
        try:
            value = field.control.take(given[field.control.shared], values[field.name])
        except UserError:
            continue
        if value != values[field.name]:
            values = _with_shown(known, {**values, field.name: value}, field)
            taken.append(field.control.label)
    return values, tuple(taken)


def _with_shown(known: tuple[Field, ...], values: dict[str, Any], field: Field) -> dict[str, Any]:
    """Choices set so that `field` is shown, such as "your text" for a corpus. The panel's own tabs stay as they are."""
    if not field.control.when or shown(known, values, field.name):
        return values
    deciding = next(f for f in known if f.name == field.control.when[0])
    if getattr(deciding.control, "style", "") == "parts":
        return values
    return _with_shown(known, {**values, deciding.name: deciding.control.check(field.control.when[1])}, deciding)


def result_class(run: typing.Callable) -> type:
    """The dataclass that `run` returns, or yields when it is a generator."""
    hint = typing.get_type_hints(run)["return"]
    arguments = typing.get_args(hint)
    return arguments[0] if arguments else hint


def result_views(run: typing.Callable) -> dict[str, type]:
    """Field name of the Result -> view class, in the order in which the user sees them."""
    cls = result_class(run)
    hints = typing.get_type_hints(cls)
    return {field.name: _view_class(hints[field.name]) for field in dataclasses.fields(cls)}


def _view_class(hint: Any) -> type:
    if isinstance(hint, types.UnionType):  # `Table | None`: shown only when there is one
        return next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    return hint
