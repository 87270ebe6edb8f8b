"""Collects what is wrong with a config, so that one error lists everything."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from gymnast_core.errors import ConfigErrors, GymnastError


class Problems:
    """The errors found so far, and the keys whose values were set aside because of them."""

    def __init__(self) -> None:
        self.found: list[GymnastError] = []
        self.lost: set[str] = set()
        """Keys that are wrong: nothing else is said of them, as that they were missing."""
        self.is_partial = False
        """Whether values may be missing for another reason, as that their file could not be read."""

    def add(self, error: GymnastError, key: str = "") -> None:
        """Keep an error, several in one as several; each is told once. `key` is what it makes unusable."""
        known = {str(problem) for problem in self.found}
        self.found += [problem for problem in error.problems if str(problem) not in known]
        if key:
            self.lost.add(key)

    @contextlib.contextmanager
    def collected(self, key: str = "") -> Iterator[None]:
        """Errors of the user's end the block, and are kept."""
        try:
            yield
        except GymnastError as error:
            self.add(error, key)

    def spoil(self, key: str) -> bool:
        """Whether the value of a key, or a part of it, was set aside."""
        return any(is_below(lost, key) or is_below(key, lost) for lost in self.lost)

    def raise_any(self) -> None:
        """Raises what was found: one error as it is, several as `ConfigErrors`."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise ConfigErrors(self.found)


def is_below(key: str, above: str) -> bool:
    """Whether a dotted key is `above`, or in it."""
    return not above or key == above or key.startswith((f"{above}.", f"{above}["))


def without(values: Any, key: str) -> tuple[Any, bool]:
    """Nested dicts without the value of a dotted key, and whether there was one; a list goes as a whole."""
    first, _, rest = re.sub(r"\[.*", "", key).partition(".")
    if not isinstance(values, dict) or first not in values:
        return values, False
    if not rest:
        return {name: value for name, value in values.items() if name != first}, True
    inner, is_there = without(values[first], rest)
    return ({**values, first: inner}, True) if is_there else without(values, first)
