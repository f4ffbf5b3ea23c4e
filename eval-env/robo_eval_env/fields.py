"""Reads a JSON object field by field, so that every mistake in it gets a message that says where it is."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from robo_eval_env.errors import BadRequestError

T = TypeVar("T")
_MISSING: Any = object()


class Fields:
    """The fields of one object; those never asked for are refused by `finish`."""

    def __init__(self, value: Any, where: str) -> None:
        """Wraps `value`, which messages call `where`."""
        if not isinstance(value, Mapping):
            raise BadRequestError(f"`{where}` must be an object, not {_name(type(value))}")
        self._values = dict(value)
        self._known: list[str] = []
        self.where = where

    def take(self, name: str, kind: type[T], default: Any = _MISSING) -> T:
        """Returns a field that is a `kind`, or `default` when it is absent."""
        self._known.append(name)
        if name not in self._values:
            if default is _MISSING:
                raise BadRequestError(f"`{self.where}` lacks `{name}`")
            return default
        value = self._values.pop(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadRequestError(f"`{self.where}.{name}` must be {_name(kind)}, not {_name(type(value))}")
        return value

    def number(self, name: str) -> float:
        """Returns a field that is a finite number."""
        self._known.append(name)
        if name not in self._values:
            raise BadRequestError(f"`{self.where}` lacks `{name}`")
        return finite(self._values.pop(name), f"{self.where}.{name}")

    def whole(self, name: str, smallest: int, largest: int, default: Any = _MISSING) -> int:
        """Returns a field that is a whole number between two bounds, both included, or `default` when it is absent."""
        value = self.take(name, int, default)
        if not smallest <= value <= largest:
            raise BadRequestError(f"`{self.where}.{name}` must be {smallest} to {largest}, not {value}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a field that is a list of texts, empty when it is absent."""
        values = self.take(name, list, [])
        for value in values:
            if not isinstance(value, str):
                raise BadRequestError(f"`{self.where}.{name}` must hold only texts")
        return tuple(values)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Returns a field that is one of some words; the first of them when it is absent."""
        value = self.take(name, str, choices[0])
        if value not in choices:
            raise BadRequestError(f"`{self.where}.{name}` must be one of {', '.join(choices)}, not `{value}`")
        return value

    def finish(self) -> None:
        """Refuses fields that nobody asked for."""
        for name in self._values:
            raise BadRequestError(f"`{self.where}` has no field `{name}` (it knows {', '.join(self._known)})")


def _name(kind: Any) -> str:
    """Returns what a type is called in a manifest."""
    names = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}
    return names.get(kind) or getattr(kind, "__name__", str(kind))


def finite(value: Any, where: str) -> float:
    """Returns a finite number, whole ones included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequestError(f"`{where}` must be a number, not {_name(type(value))}")
    if not math.isfinite(value):
        raise BadRequestError(f"`{where}` must be finite, not {value}")
    return float(value)
