"""What the value of a config field may be, declared beside the field: checked when a config is read, shown in the docs.

    @dataclass(frozen=True)
    class Config:
        temperature: Annotated[float, Range(least=1e-3)] = 1.0
        betas: list[Annotated[float, Range(least=0, below=1)]] = field(default_factory=lambda: [0.9, 0.95])
        rounds: Count | None = None
        order: Annotated[str, Choices("random", "given")] = "random"

NaN and infinities are refused everywhere. A rule that concerns several fields belongs into `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from gymnast_core.errors import ConfigError, ConfigErrors, unknown_name

INTEGERS = 2**63
"""Integers beyond this fit into no tensor, file format or seed."""


@dataclass(frozen=True)
class Range:
    """The numbers that a field takes, in the field's own unit; without bounds: any finite number."""

    least: float | None = None
    """The smallest that is allowed."""
    most: float | None = None
    """The largest that is allowed."""
    above: float | None = None
    """What it must exceed."""
    below: float | None = None
    """What it must stay under."""

    def holds(self, value: float) -> bool:
        """Whether a number is in the range; NaN, infinities and integers beyond 63 bits are in none."""
        finite = -INTEGERS <= value < INTEGERS if isinstance(value, int) else math.isfinite(value)
        return (
            finite
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"least": "at least", "most": "at most", "above": "above", "below": "below"}
        bounds = [f"{word} {_number(getattr(self, name))}" for name, word in words.items() if self._has(name)]
        return " and ".join(bounds) or "a finite number"

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


class Choices:
    """The values that a field takes, one of them."""

    def __init__(self, *values: str):
        self.values = values

    def holds(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choices) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)


AnyNumber = Annotated[float, Range()]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Fraction = Annotated[float, Range(least=0, most=1)]
"""A share or probability."""
Count = Annotated[int, Range(least=1)]
"""How many, at least one."""
ZeroOrMore = Annotated[int, Range(least=0)]
"""How many; 0 is none."""
Seed = Annotated[int, Range(least=0, below=INTEGERS)]


def check_values(schema: Any, values: Any, key: str = "") -> None:
    """Compare plain values, as of `dataclasses.asdict`, with what the fields of the dataclass `schema` declare.

    Dataclasses inside it, optional fields, lists and dicts are followed. `key` is the path of `values` in the whole
    config. Raises `ConfigError`, which names key and range, for a value that is outside its range, not one of its
    choices, NaN or infinite; `ConfigErrors` for several.
    """
    found = [error for _, error in refused_values(schema, values, key)]
    if len(found) == 1:
        raise found[0]
    if found:
        raise ConfigErrors(found)


def refused_values(schema: Any, values: Any, key: str = "") -> Iterator[tuple[str, ConfigError]]:
    """The keys whose values `check_values` refuses, each with its error."""
    for path, hint, value in _leaves(schema, values, key):
        declared = declaration(hint)
        if isinstance(declared, Choices) and not declared.holds(value):
            name = path.rpartition(".")[2].partition("[")[0]
            yield path, ConfigError(f"{path}: {unknown_name(name, str(value), declared.values)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not isinstance(declared, Choices) and not (declared or Range()).holds(value):
            yield path, ConfigError(f"{path} is {_number(value)}; it must be {declared or Range()}.")


def declaration(hint: Any) -> Range | Choices | None:
    """What an annotated type declares of its values, without its "or None"."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return next((part for part in parts[1:] if isinstance(part, Range | Choices)), None) or declaration(parts[0])
    if _is_union(hint):
        return next((found for part in parts if (found := declaration(part)) is not None), None)
    return None


def element(hint: Any) -> Any:
    """The type of the elements of a list, or of the values of a dict; None of other types."""
    hint = plain(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin not in (list, dict) or not parts:
        return None
    return parts[-1]


def plain(hint: Any) -> Any:
    """A type without annotations and without its "or None"."""
    if typing.get_origin(hint) is Annotated:
        return plain(typing.get_args(hint)[0])
    if _is_union(hint):
        members = [part for part in typing.get_args(hint) if part is not type(None)]
        return plain(members[0]) if len(members) == 1 else hint
    return hint


def undeclared(schema: Any) -> list[str]:
    """Fields of a dataclass, and of those inside it, that hold numbers of which no range is declared."""
    return [name for name, hint in _fields(schema, "", ()) if _lacks_range(hint)]


def hints(schema: Any) -> dict[str, Any]:
    """The types of a dataclass's fields with what they declare, in order, without those that its constructor sets."""
    found = typing.get_type_hints(schema, include_extras=True)
    return {item.name: found[item.name] for item in dataclasses.fields(schema) if item.init}


def _lacks_range(hint: Any) -> bool:
    inner = element(hint)
    if inner is not None:
        return _lacks_range(inner)
    members = typing.get_args(plain(hint)) if _is_union(plain(hint)) else (plain(hint),)
    return (int in members or float in members) and declaration(hint) is None


def _fields(schema: Any, path: str, above: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for name, hint in hints(schema).items():
        inner = plain(element(hint) or hint)
        if not dataclasses.is_dataclass(inner):
            yield _join(path, name), hint
        elif inner not in above:
            yield from _fields(inner, _join(path, name), (*above, inner))


def _leaves(hint: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Every value that is no dict and no list, with its path and declared type."""
    schema, inner = plain(hint), element(hint)
    if isinstance(value, Mapping):
        known = hints(schema) if dataclasses.is_dataclass(schema) else {}
        for name, part in value.items():
            yield from _leaves(known.get(name, inner), part, _join(path, str(name)))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(inner, part, f"{path}[{i}]")
    elif value is not None:
        yield path, hint, value


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _number(value: float) -> str:
    text = str(value) if isinstance(value, int) else f"{value:.12g}"
    # Nobody reads on after a hundred digits.
    return text if len(text) <= 40 else f"{text[:20]}… ({len(text)} digits)"


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
