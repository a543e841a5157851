"""Checks of settings: types, choices and ranges."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from align.errors import UserError, did_you_mean

T = TypeVar("T")


class Settings:
    """Checks the type of every field, then what `check` of the subclass asks for."""

    def __post_init__(self) -> None:
        _check_types(self)
        self.check()

    def check(self) -> None:
        """Raise `UserError` where values are out of range or contradict each other."""


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass `cls` from plain values, as YAML gives them.

    Lists become tuples where the field is a tuple. Raises `UserError` for a field that does not exist, is missing or
    has a value of another type.
    """
    hints = _hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.init]  # pyright: ignore[reportArgumentType]
    names = [f.name for f in fields]
    for name in values:
        if name not in names:
            raise UserError(f"{name} is not a setting of {cls.__name__}.{did_you_mean(name, names)}")
    for f in fields:
        if f.name not in values and f.default is f.default_factory is dataclasses.MISSING:
            raise UserError(f"{f.name} is missing; it must be given.")
    plain = {name: _as_tuple(value, hints[name]) for name, value in values.items()}
    for name, value in plain.items():
        _check_type(name, value, hints[name])
    return cls(**plain)


def _check_types(settings: Any) -> None:
    hints = _hints(type(settings))
    for f in dataclasses.fields(settings):
        _check_type(f.name, getattr(settings, f.name), hints[f.name])


def _check_type(name: str, value: Any, hint: Any) -> None:
    if not _matches(value, hint):
        choices = [str(c) for h in _alternatives(hint) if typing.get_origin(h) is Literal for c in typing.get_args(h)]
        remedy = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{name} must be {_expected(hint)}, not {_shown(value)}.{remedy}")


def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields; a name that is imported for type checkers only stands for any type."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(cls, localns=unknown)
        except NameError as error:
            unknown[str(error.name)] = Any


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _as_tuple(value: Any, hint: Any) -> Any:
    wants_tuple = any(typing.get_origin(h) is tuple or h is tuple for h in _alternatives(hint))
    return tuple(cast("list[Any]", value)) if isinstance(value, list) and wants_tuple else value


def _matches(value: Any, hint: Any) -> bool:
    if len(_alternatives(hint)) > 1:
        return any(_matches(value, h) for h in _alternatives(hint))
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (tuple, list, Sequence) and arguments:
        if not isinstance(value, (tuple, list)):
            return False
        items = cast("Sequence[Any]", value)
        if origin is tuple and Ellipsis not in arguments:
            return len(items) == len(arguments) and all(map(_matches, items, arguments))
        return all(_matches(item, arguments[0]) for item in items)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    checkable = origin or hint
    return isinstance(value, checkable) if isinstance(checkable, type) else True


def _expected(hint: Any) -> str:
    words: list[str] = []
    for h in _alternatives(hint):
        origin, arguments = typing.get_origin(h), typing.get_args(h)
        if origin is Literal:
            words.extend(str(choice) for choice in arguments)
        elif origin in (tuple, list, Sequence) and arguments:
            count = "" if origin is not tuple or Ellipsis in arguments else f"{len(arguments)} "
            words.append(f"a list of {count}{_PLURALS.get(arguments[0], 'values')}")
        else:
            h = origin or h
            words.append(_TYPE_NAMES.get(h, getattr(h, "__name__", str(h))))
    return " or ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} or {words[-1]}"


_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    Mapping: "names with values (name: value)",
}


_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        value = list(cast("tuple[Any, ...]", value))
    return str(value).lower() if isinstance(value, bool) else ascii(value)[:80]


def require_positive(settings: object, name: str) -> None:
    """Raise `UserError` unless the field is a finite number above 0, or None."""
    value = getattr(settings, name)
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UserError(f"{name} must be above 0, not {value}.")


def require_at_least(settings: object, name: str, lowest: int) -> None:
    """Raise `UserError` unless the field is a finite number of at least `lowest`, or None."""
    value = getattr(settings, name)
    if value is not None and not (math.isfinite(value) and value >= lowest):
        raise UserError(f"{name} must be at least {lowest}, not {value}.")
