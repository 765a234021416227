"""Whether values that were read from JSON are of the types that dataclasses say."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check_fields(kind: type, values: Mapping[str, Any], skip: frozenset[str] = frozenset()) -> None:
    """Refuse values that are not of the types of a dataclass's fields; lists stand for tuples.

    Args:
        kind: the dataclass.
        values: field -> value, for all fields that are to be checked.
        skip: fields that are not.

    Raises:
        ValueError: with the field, what it must be, and the value.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in skip and not fits(hints[name], value):
            raise ValueError(f"`{name}` must be {spoken(hints[name])}, got {value!r}")


def fits(hint: Any, value: Any) -> bool:
    """Whether a value of JSON is of a type; numbers must be finite."""
    if hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(choice, value) for choice in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is list or arguments[-1] is ...:
            return all(fits(arguments[0], item) for item in value)
        return len(value) == len(arguments) and all(map(fits, arguments, value))
    if is_dataclass(hint):
        known = get_type_hints(hint)
        names = {item.name for item in fields(hint)}
        return isinstance(value, dict) and value.keys() == names and all(
            fits(known[name], value[name]) for name in names
        )  # fmt: skip
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (int, bool, str, NoneType):
        return type(value) is hint
    return isinstance(value, origin or hint)


def spoken(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(spoken(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (list, tuple):
        kinds = [spoken(item) for item in arguments if item is not ...]
        return f"a list of {' and '.join(dict.fromkeys(kinds))}"
    if is_dataclass(hint):
        return f"an object with {', '.join(item.name for item in fields(hint))}"
    words = {float: "a finite number", int: "a whole number", bool: "true or false"}
    return {**words, str: "text", NoneType: "null"}.get(hint, "an object")
