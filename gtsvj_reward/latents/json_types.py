"""Values that were read from JSON, and dataclasses made of them, strictly by their types."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Made = TypeVar("Made")

LARGEST = sys.float_info.max
"""Also of whole numbers that stand for floats: JSON has longer ones."""


def from_values(kind: type[Made], values: Any) -> Made:
    """A dataclass from the values of its fields, lists for tuples and objects for dataclasses.

    Raises:
        ValueError: for names that are unknown or missing, and values of another type.
    """
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    given = set(values) if isinstance(values, dict) else set()
    if given != names:
        raise ValueError(
            f"{kind.__name__}: unknown fields {sorted(given - names)}, "
            f"missing fields {sorted(names - given)}"
        )
    hints, found = get_type_hints(kind), {}
    for name, value in values.items():
        found[name] = made(hints[name], value)
        if not fits(hints[name], found[name]):
            raise ValueError(f"`{name}` must be {spoken(hints[name])}, got {value!r}")
    return kind(**found)


def made(hint: Any, value: Any) -> Any:
    """A value as a type has it; what cannot be of the type stays as it is."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        chosen = next((choice for choice in arguments if is_dataclass(choice)), arguments[0])
        return None if value is None else made(chosen, value)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return tuple(made(*pair) for pair in zip_longest(kinds, value, fillvalue=Any))
    if origin is list and isinstance(value, list):
        return [made(arguments[0], item) for item in value]
    if origin in (Mapping, dict) and isinstance(value, dict):
        return {name: made(arguments[1], item) for name, item in value.items()}
    if is_dataclass(hint) and isinstance(value, dict):
        return from_values(hint, value)  # type: ignore[arg-type]
    return value


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
    if origin in (Mapping, dict):
        kinds = arguments or (Any, Any)
        return isinstance(value, Mapping) and all(fits(kinds[1], item) for item in value.values())
    if hint is float:
        return type(value) in (int, float) and -LARGEST <= value <= LARGEST
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
