"""Finding things in what environments return: nested dictionaries, torch tensors, batches of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

MISSING = object()
"""What `find` returns where there is nothing."""


def find(tree: Any, key: str) -> Any:
    """The value under a key, "sensor_data.front.rgb" for nested ones; `MISSING` if there is none."""
    if not isinstance(tree, Mapping):
        return MISSING
    if key in tree:
        return tree[key]
    places = [place for place, letter in enumerate(key) if letter == "."]
    for place in places:
        if key[:place] in tree:
            found = find(tree[key[:place]], key[place + 1 :])
            if found is not MISSING:
                return found
    return MISSING


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no dictionary and no sequence, with its dotted key ("" for a tree that is one value)."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)):
        for place, value in enumerate(tree):
            yield from leaves(value, f"{path}.{place}" if path else str(place))
    else:
        yield path, tree


def array(value: Any) -> Any:
    """A torch or JAX tensor as an array; anything else as it is."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__array__"):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)


def number(value: Any) -> float | None:
    """A number out of whatever holds exactly one: a bool, an array or tensor of one element; else None."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    try:
        found = np.asarray(array(value), dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    return float(found[0]) if found.size == 1 else None


def text(value: Any) -> str | None:
    """A text out of whatever holds exactly one: a string, bytes, a list or array of one; else None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None
