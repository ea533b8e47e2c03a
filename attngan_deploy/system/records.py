"""Records: dataclasses of what a JSON file holds, decoded and checked in one step."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

JsonObject = Mapping[str, object]
PLAIN = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}  # JSON values that a field of a type takes
LARGEST = 2**63 - 1
Record = TypeVar("Record")


class RecordError(ValueError):
    """A value that is not of the type that its field has: the field and what it holds, and what it should hold."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"{found}; expected {expected}")
        self.found, self.expected = found, expected


def decode(kind: type[Record], values: object, *, exact: bool = False) -> Record:
    """A dataclass of what `asdict` and JSON made of it.

    Args:
        kind: a dataclass of numbers, texts, tuples, tables (`Mapping`) and further such dataclasses.
        exact: refuse fields that `kind` does not have, and numbers that are not finite or take more than 64 bits, all
            of which are passed over otherwise.

    Raises:
        RecordError: a field is missing, unknown, or of another type; it is named.
        ValueError: what `kind` itself says of its values.
    """
    made: Record = _record(kind, values, "", exact)
    return made


def look_up(value: object, *keys: str) -> object:
    """The value at a path of keys in what JSON holds; None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _record(kind: Any, values: object, place: str, exact: bool) -> Any:
    if not isinstance(values, dict):
        raise RecordError(f"{place + ' is ' if place else ''}{type(values).__name__}", "an object")
    known = {field.name: field for field in fields(kind)}
    if exact and (unknown := sorted(values.keys() - known.keys())):
        raise RecordError(f"unknown fields {ascii(', '.join(unknown))[1:-1][:200]}", ", ".join(known))
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise RecordError(f"no {_within(place, name)}", "a value")
    hints = get_type_hints(kind)
    made = {name: _value(hints[name], values[name], _within(place, name), exact) for name in known if name in values}
    return kind(**made)


def _value(kind: Any, value: object, place: str, exact: bool) -> Any:
    if is_dataclass(kind):
        return _record(kind, value, place, exact)
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        (kind,) = (option for option in options if option is not NoneType)  # no record has other unions
        return _value(kind, value, place, exact)
    if origin is tuple and isinstance(value, list):
        kinds = options[:1] * len(value) if options[-1] is ... else options
        if len(kinds) == len(value):
            return tuple(_value(*each, place, exact) for each in zip(kinds, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {
            _key(options[0], key): _value(options[1], each, _within(place, key), exact) for key, each in value.items()
        }
    elif origin is Literal:
        if value in options:
            return value
        raise RecordError(f"{place} is {ascii(value)[:80]}", " or ".join(options))
    elif kind is object or type(value) in PLAIN.get(kind, ()):
        if exact and isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:
            raise RecordError(f"{place} is {ascii(value)[:80]}", "a finite number of 64 bits")
        return value
    raise RecordError(f"{place} is a {type(value).__name__}", kind.__name__ if origin is None else str(kind))


def _key(kind: Any, key: str) -> Any:
    """A key of a table as `kind`: JSON has texts for numbers."""
    try:
        return kind(key)
    except ValueError as error:
        raise RecordError(f"the key {ascii(key)[:80]}", str(kind.__name__)) from error


def _within(place: str, key: str) -> str:
    return ".".join(filter(None, (place, ascii(key)[1:-1][:80])))
