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
