"""What a caller changes of a preset, as the `key=value` words of the command line: one way to read them all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnast_core.errors import ConfigError, shortened


def words(changes: Sequence[str | Mapping[str, Any]], keys: Mapping[str, Any]) -> list[str]:
    """`"seed=1"`, `{"loop": {"iterations": 2}}` and `{"loop.iterations": 2}` as words, then `keys`; the last one wins.

    Raises `ConfigError` for what is neither, and for values that no config holds.
    """
    found: list[str] = []
    for change in changes:
        if isinstance(change, str):
            found.append(change)
        elif isinstance(change, Mapping):
            found.extend(_of_mapping(change))
        else:
            raise ConfigError(
                f"{shortened(repr(change))} changes nothing: give 'key=value', or a dict such as "
                "{'loop': {'iterations': 2}}."
            )
    return [*found, *_of_mapping(keys)]


def _of_mapping(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and value:
            yield from _of_mapping(value, name)
        else:
            yield f"{name}={_text(name, value)}"


def _text(name: str, value: Any) -> str:
    """A value as the command line takes it: JSON is YAML's flow style."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {shortened(repr(value))}, which no config holds: {error}.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a number of numpy or torch
        return value.item()
    raise TypeError(f"give numbers, texts, lists and dicts, not a {type(value).__name__}")
