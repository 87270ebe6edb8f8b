"""Python's own numbers, from what counts as one (NumPy, torch, `decimal`): what is stored and sent knows no others."""

import operator
from collections.abc import Mapping
from typing import Any


def plain_number(name: str, value: Any) -> float:
    """Raises `ValueError` that says what is called `name` for what is no number."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ValueError(f"{name} is {value!r}; it must be a number.")
    return float(value)


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it: Python's own numbers, text and None, in lists and in mappings by text."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, str | int | float) or value is None


def plain_integer(name: str, value: Any) -> int:
    """The same for whole numbers; 3.0 is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; it must be a whole number.") from None
