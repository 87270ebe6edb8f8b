"""JSON files that others wrote: one error with file and key, whatever is wrong with them.

config = read_object(folder / "config.json", CheckpointError)
heads = config.integer("heads", Range(least=1))
lows = config.object("norm_stats").numbers("q01", length=7)
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from gymnast_core.config.ranges import Range
from gymnast_core.errors import DataError, GymnastError, shortened, unknown_name

Record = TypeVar("Record")
MAX_BYTES = 256 * 2**20
MAX_DEPTH = 200
REQUIRED = object()


def read_json(
    path: Path, error: type[GymnastError] = DataError, *, allow_nan: bool = False, max_bytes: int = MAX_BYTES
) -> Any:
    """What a JSON file holds; a byte order mark is passed over. `allow_nan` says that NaN and Infinity are read, which
    JSON does not know and Python writes.

    Raises `error`, which names the file, if that cannot be read, has more than `max_bytes`, is not UTF-8 or not JSON,
    repeats a key, is nested too deeply or holds a number that is too large.
    """
    return parse_json(_read(path, error, max_bytes), str(path), error, allow_nan=allow_nan)


def read_json_lines(
    path: Path, error: type[GymnastError] = DataError, *, allow_nan: bool = False, max_bytes: int = MAX_BYTES
) -> list[Any]:
    """What each line of a JSON Lines file holds, empty lines left out; arguments and errors as of `read_json`."""
    text = _decoded(_read(path, error, max_bytes), str(path), error)
    # Only line feeds end a line: texts may hold the other separators that `splitlines` knows.
    lines = enumerate(text.split("\n"), start=1)
    return [
        parse_json(line, f"{path}, line {number}", error, allow_nan=allow_nan) for number, line in lines if line.strip()
    ]


def read_object(
    path: Path, error: type[GymnastError] = DataError, *, allow_nan: bool = False, max_bytes: int = MAX_BYTES
) -> JsonObject:
    """A JSON file that holds an object, whose values are asked for by key and type; the rest is as of `read_json`."""
    return as_object(read_json(path, error, allow_nan=allow_nan, max_bytes=max_bytes), str(path), error)


def read_list(path: Path, error: type[GymnastError] = DataError, *, allow_nan: bool = False) -> list[Any]:
    """A JSON file that holds a list; errors as of `read_json`."""
    found = read_json(path, error, allow_nan=allow_nan)
    if not isinstance(found, list):
        raise error(f"{path} must hold a list ([...]), not {_kind(found)}.")
    return found


def parse_json(text: str | bytes, place: str, error: type[GymnastError] = DataError, *, allow_nan: bool = False) -> Any:
    """What a JSON text holds; `place` says in errors where it is from. Raises `error` as `read_json` does."""
    if isinstance(text, bytes):
        text = _decoded(text, place, error)
    try:
        value = json.loads(
            text, object_pairs_hook=_without_repetition, parse_constant=float if allow_nan else _refuse_constant
        )
    except RecursionError:
        raise error(f"{place} is nested too deeply to be read.") from None
    except ValueError as fault:
        raise error(f"{place} is not valid JSON: {shortened(str(fault))}.") from fault
    if _depth_exceeds(value, MAX_DEPTH):
        raise error(f"{place} is nested more than {MAX_DEPTH} levels deep.")
    return value


def as_object(value: Any, place: str, error: type[GymnastError] = DataError) -> JsonObject:
    """A value that must be an object."""
    if not isinstance(value, dict):
        raise error(f"{place} must hold an object ({{...}}), not {_kind(value)}.")
    return JsonObject(value, place, error)


def as_record(schema: type[Record], value: Any, place: str, error: type[GymnastError] = DataError) -> Record:
    """A dataclass of plain fields (numbers, texts, truth values, lists, objects, or None) from an object.

    Fields may be left out that have a default. Raises `error` for other keys, missing ones and values of other types.
    """
    found = as_object(value, place, error)
    hints = typing.get_type_hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema) if item.init}  # type: ignore[arg-type]
    for key in found.values:
        if key not in fields:
            raise error(f"{place}: {unknown_name('key', key, fields)}")
        if not _is_a(hints[key], found.values[key]):
            found.refuse(key, f"is {shortened(repr(found.values[key]))}; it must be {_type_words(hints[key])}")
    for name, item in fields.items():
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            found[name]
    return schema(**found.values)


class JsonObject:
    """An object of a JSON file. Values are asked for by key, type and range; errors name file and key.

    Every method that takes `default` returns it where the key is missing; without one a missing key is an error. null
    counts as missing where `default` is None.
    """

    def __init__(self, values: dict[str, Any], place: str, error: type[GymnastError]):
        self.values = values
        """What it holds, as read."""
        self.place = place
        self.error = error

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            self.refuse(key, f"is missing; there are {', '.join(map(repr, self.values)) or 'no keys'}")
        return self.values[key]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def refuse(self, key: str, fault: str) -> NoReturn:
        """Raise the error that says what is wrong with a key: "FILE: KEY is missing"."""
        raise self.error(f"{self.place}: {shortened(key)} {fault}.")

    def integer(self, key: str, range_: Range | None = None, default: Any = REQUIRED) -> int:
        """A whole number in the range; 3.0 is none."""
        return self._checked(key, default, lambda value: _check_integer(value, range_ or Range()))

    def number(self, key: str, range_: Range | None = None, default: Any = REQUIRED) -> float:
        """A number in the range, as float."""
        return self._checked(key, default, lambda value: _check_number(value, range_ or Range()))

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """true or false."""
        return self._checked(key, default, lambda value: _check_type(value, bool, "true or false"))

    def text(self, key: str, choices: tuple[str, ...] = (), default: Any = REQUIRED) -> str:
        """A text, one of `choices` where there are some."""

        def check(value: Any) -> str | None:
            fault = _check_type(value, str, "a text")
            if fault is None and choices and value not in choices:
                return f"must be one of {', '.join(choices)}"
            return fault

        return self._checked(key, default, check)

    def numbers(
        self, key: str, range_: Range | None = None, length: int | None = None, default: Any = REQUIRED
    ) -> list[float]:
        """A list of numbers in the range, of `length` if given."""
        found = self._checked(key, default, lambda value: _check_list(value, length, _check_number, range_))
        return found if found is default else [float(number) for number in found]

    def integers(
        self, key: str, range_: Range | None = None, length: int | None = None, default: Any = REQUIRED
    ) -> list[int]:
        """A list of whole numbers in the range, of `length` if given."""
        return self._checked(key, default, lambda value: _check_list(value, length, _check_integer, range_))

    def flags(self, key: str, length: int | None = None, default: Any = REQUIRED) -> list[bool]:
        """A list of true and false, of `length` if given."""
        check = lambda value, _: _check_type(value, bool, "true or false")  # noqa: E731
        return self._checked(key, default, lambda value: _check_list(value, length, check, None))

    def texts(self, key: str, length: int | None = None, default: Any = REQUIRED) -> list[str]:
        """A list of texts, of `length` if given."""
        check = lambda value, _: _check_type(value, str, "a text")  # noqa: E731
        return self._checked(key, default, lambda value: _check_list(value, length, check, None))

    def object(self, key: str, default: Any = REQUIRED) -> JsonObject:
        """An object within this one."""
        found = self._checked(key, default, lambda value: _check_type(value, dict, "an object"))
        return found if found is default else JsonObject(found, f"{self.place}: {shortened(key)}", self.error)

    def objects(self, key: str, default: Any = REQUIRED) -> list[JsonObject]:
        """A list of objects."""
        check = lambda value, _: _check_type(value, dict, "an object")  # noqa: E731
        found = self._checked(key, default, lambda value: _check_list(value, None, check, None))
        if found is default:
            return found
        places = [f"{self.place}: {shortened(key)}[{i}]" for i in range(len(found))]
        return [JsonObject(value, place, self.error) for value, place in zip(found, places, strict=True)]

    def _checked(self, key: str, default: Any, fault_of: Any) -> Any:
        missing = key not in self.values or (default is None and self.values[key] is None)
        if missing and default is not REQUIRED:
            return default
        value = self[key]
        fault = fault_of(value)
        if fault is not None:
            self.refuse(key, f"is {shortened(json.dumps(value, ensure_ascii=False))}; it {fault}")
        return value


def _is_a(hint: Any, value: Any) -> bool:
    """Whether a plain value is of a type; what is inside lists and objects of unknown type is not looked at."""
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_is_a(part, value) for part in typing.get_args(hint))
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(_is_a(parts[0], part) for part in value if parts)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_is_a(parts[1], part) for part in value.values() if parts)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin)


def _type_words(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_type_words(part) for part in typing.get_args(hint))
    origin = typing.get_origin(hint) or hint
    return words.get(hint) or ("a list" if origin in (list, tuple, Sequence) else "an object")


def _read(path: Path, error: type[GymnastError], max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise error(f"{path} has {size} bytes, more than the {max_bytes} that such a file may have.")
        return path.read_bytes()
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror or fault}.") from fault


def _decoded(data: bytes, place: str, error: type[GymnastError]) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{place} is not UTF-8 text: {fault.reason} at byte {fault.start}.") from fault


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [part for whole in level if isinstance(whole, dict | list) for part in _parts(whole)]
        if not level:
            return False
    return True


def _parts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _check_type(value: Any, kind: type, words: str) -> str | None:
    return None if isinstance(value, kind) else f"must be {words}"


def _check_integer(value: Any, range_: Range) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be a whole number, {range_}" if range_ != Range() else "must be a whole number"
    return None if range_.holds(value) else f"must be {range_}"


def _check_number(value: Any, range_: Range) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, {range_}" if range_ != Range() else "must be a number"
    return None if range_.holds(value) else f"must be {range_}"


def _check_list(value: Any, length: int | None, check: Any, range_: Range | None) -> str | None:
    if not isinstance(value, list):
        return "must be a list"
    if length is not None and len(value) != length:
        return f"must have {length} entries, not {len(value)}"
    faults = (check(part, range_ or Range()) for part in value)
    fault = next((fault for fault in faults if fault is not None), None)
    return None if fault is None else f"{fault}, in every entry"


def _kind(value: Any) -> str:
    kinds = {
        list: "a list",
        dict: "an object",
        str: "a text",
        bool: "true or false",
        type(None): "null",
        int: "a number",
    }
    return kinds.get(type(value), "a number")
