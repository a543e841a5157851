"""Checks of settings: pydantic decides on types, choices and ranges, and its errors become one sentence each."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, ConfigDict, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError, core_schema

from align.errors import UserError, did_you_mean, nearest, slip_of

__all__ = ["Count", "NotNegative", "Positive", "Seed", "Settings", "Shape", "Share", "build", "defaults"]

T = TypeVar("T")

Positive = Annotated[float, Gt(0), AllowInfNan(False)]
NotNegative = Annotated[float, Ge(0), AllowInfNan(False)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]


class Settings:
    """Base of the dataclasses that check themselves: types and declared ranges first, then what `check` asks for.

    Lists become tuples where a field is a tuple. Messages begin with the field's name.
    """

    def __post_init__(self) -> None:
        shape = shape_of(type(self))
        for name, value in shape.check({name: getattr(self, name) for name in shape.hints}).items():
            object.__setattr__(self, name, value)  # frozen
        self.check()

    def check(self) -> None:
        """Raise `UserError` where values contradict each other."""


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build any dataclass from plain values, as YAML gives them.

    Raises:
        UserError: A field does not exist, is missing or has a value of another type.
    """
    return cls(**shape_of(cls).check(values))


def defaults(cls: Any) -> dict[str, Any]:
    """Return the default of each field as YAML holds it; ``???`` marks a field that must be given."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        value: Any = "???" if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if field.init:
            values[field.name] = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
    return values


class Shape:
    """Names and types that values must have; ``name`` is that of the class in messages."""

    def __init__(self, name: str, hints: Mapping[str, Any], required: Collection[str] = ()) -> None:
        self.name = name
        self.hints = hints
        self.required = required
        self._adapters = {field: _adapter(hint) for field, hint in hints.items()}

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values, with tuples for lists where a tuple is wanted.

        Raises:
            UserError: A name is unknown or missing, or a value does not fit.
        """
        unknown = [name for name in values if name not in self.hints]
        wrong = [f"{name} is not a setting of {self.name}.{did_you_mean(name, self.hints)}" for name in unknown]
        wrong += [f"{name} is missing; it must be given." for name in self.required if name not in values]
        checked = {name: _as_tuple(value, self.hints[name]) for name, value in values.items() if name in self.hints}
        for name, value in checked.items():
            try:
                self._adapters[name].validate_python(value)
            except ValidationError as error:
                wrong.append(_sentence(*_inmost(name, value, self.hints[name], error), error))
        if wrong:
            raise UserError(*wrong)
        return checked


@cache
def shape_of(cls: type) -> Shape:
    """Return the shape of a dataclass, whatever package it comes from."""
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = _hints(cls)
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    return Shape(cls.__name__, {name: hints[name] for name in fields}, required)


def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields; a name that is imported for type checkers only stands for any type."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(cls, localns=unknown, include_extras=True)
        except NameError as error:
            unknown[str(error.name)] = Any
        except (AttributeError, TypeError):  # a part of such a name: np.ndarray, Mapping[str, float]
            return {field.name: Any for field in dataclasses.fields(cls)}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Strict: "1e-4" is not a number, true not a whole number. Types unknown to pydantic count as any type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):  # it is made already, and has checked itself
        instance = core_schema.is_instance_schema(hint)
        hint = Annotated[Any, GetPydanticSchema(lambda _type, _handler: instance)]
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except (PydanticUserError, SchemaError):  # such as a protocol that cannot be checked at run time
        return TypeAdapter(Any)


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union, without their constraints."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [h for member in typing.get_args(hint) for h in _alternatives(member)]
    return [typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint]


def _as_tuple(value: Any, hint: Any) -> Any:
    """YAML has no tuples."""
    for h in _alternatives(hint):
        if isinstance(value, list) and (h is tuple or typing.get_origin(h) is tuple):
            item = (*typing.get_args(h), Any)[0]
            return tuple(_as_tuple(inner, item) for inner in cast("list[Any]", value))
    return value


# Sentences

_RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _inmost(name: str, value: Any, hint: Any, error: ValidationError) -> tuple[str, Any, Any]:
    """Return the name, value and type of the entry that is wrong, where a mapping holds it."""
    key = error.errors()[0]["loc"][:1]
    if isinstance(value, Mapping) and typing.get_origin(hint) is Mapping and key and key[0] in value:
        return f"{name}.{key[0]}", cast("Mapping[Any, Any]", value)[key[0]], typing.get_args(hint)[1]
    return name, value, hint


def _sentence(name: str, value: Any, hint: Any, error: ValidationError) -> str:
    if {found["type"] for found in error.errors()} <= _RANGE_ERRORS and (bounds := _bounds(hint)):
        return f"{name} must be {bounds}, not {_shown(value)}."
    return f"{name} must be {_expected(hint)}, not {_shown(value)}{_remedy(value, hint)}"


def _remedy(value: Any, hint: Any) -> str:
    """Return the end of a sentence: the choice that may be meant, what is none in a list, the brackets of one."""
    choices = _choices(hint)
    if choices:
        typed = value if isinstance(value, str) else ""
        near = slip_of(typed, choices) or nearest(typed, choices, 0.8)  # another name is another thing
        return f'. Did you mean "{near}"?' if near else "."
    for listed in filter(None, (_choices(item) for h in _alternatives(hint) if (item := _item(h)) is not None)):
        if isinstance(value, str):
            meant = value if value in listed else nearest(value, listed)
            return f". Write [{meant}]." if meant else "."
        wrong = [one for one in cast("Sequence[Any]", value) if one not in listed] if _is_list(value) else []
        if wrong:
            return f": {_shown(wrong[0])} is none of them.{did_you_mean(str(wrong[0]), listed)}"
    return "."


def _choices(hint: Any) -> list[str]:
    return [str(c) for h in _alternatives(hint) if typing.get_origin(h) is Literal for c in typing.get_args(h)]


def _item(hint: Any) -> Any:
    """Return the type of the items of a list; None for another type, and for a list with a type for each place."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) in (list, Sequence) or Ellipsis in arguments
    return arguments[0] if is_list and arguments else None


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _bounds(hint: Any) -> str:
    words: list[str] = []
    for h in (hint, *typing.get_args(hint)):
        for bound in typing.get_args(h)[1:] if typing.get_origin(h) is Annotated else ():
            match bound:
                case Gt():
                    words.append(f"above {bound.gt}")
                case Ge():
                    words.append(f"at least {bound.ge}")
                case Lt():
                    words.append(f"below {bound.lt}")
                case Le():
                    words.append(f"at most {bound.le}")
                case _:
                    pass
    return " and ".join(words)


def _expected(hint: Any) -> str:
    words: list[str] = []
    for h in _alternatives(hint):
        origin, arguments = typing.get_origin(h), typing.get_args(h)
        if origin is Literal:
            words.extend(str(choice) for choice in arguments)
        elif origin in (tuple, list, Sequence) and arguments:
            count = "" if origin is not tuple or Ellipsis in arguments else f"{len(arguments)} "
            choices = _expected(arguments[0]) if _choices(arguments[0]) else "values"
            named = words and choices == _joined(words)
            items = _PLURALS.get(arguments[0]) or ("them" if named else choices)
            words.append(f"a list of {count}{items}")
        else:
            h = origin or h
            words.append(_TYPE_NAMES.get(h, getattr(h, "__name__", str(h))))
    return _joined(words)


def _joined(words: Sequence[str]) -> str:
    return " or ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} or {words[-1]}"


_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    type(None): "null",
    Callable: "a function",
    Mapping: "names with values (name: value)",
    dict: "names with values (name: value)",
}


_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple):
        value = list(cast("tuple[Any, ...]", value))
    return str(value).lower() if isinstance(value, bool) else ascii(value)[:80]
