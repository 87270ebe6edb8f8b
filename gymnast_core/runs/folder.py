"""The folder of a run: who owns it, what stands in it first, and what was asked for when it was resumed."""

import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from gymnast_core.config.load import load_config, to_yaml
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.reading import as_object, read_json
from gymnast_core.runs.atomic import storing, write_json, write_text
from gymnast_core.runs.ending import forget_ending, note_ending
from gymnast_core.runs.snapshot import clean_snapshots

LOCK = ".lock"
RESUMED = "resumed.json"
"""What each resume changed: [{"time": …, "changes": {key: [before, after]}}]."""
_DONE = ("snapshots/step-*", "evaluations/*.json", "metrics.csv", "results.jsonl", "checkpoint", "summary.json")
"""What shows that a run has come further than its start."""


@contextmanager
def run_folder(config: Any, name: str, resume: Path | None = None) -> Iterator[tuple[Any, Path]]:
    """The config with `output` set, and that folder, which belongs to this process until the block ends.

    The folder is `resume`, or a new one at `output` or runs/NAME-DATE-TIME. A new folder begins with the resolved
    config; a resumed one takes the config over and notes what changed. An error that ends the block is noted there
    (`ending`). Raises `ConfigError` if the folder holds another run, or if another process works in it; `StorageError`
    if it cannot be written.
    """
    path = resume or _new_folder(config.output, name)
    config = replace(config, output=str(path))
    with storing(path):
        path.mkdir(parents=True, exist_ok=True)
    with _owned(path):
        if resume is None:
            if any(next(path.glob(pattern), None) for pattern in _DONE):
                raise ConfigError(
                    f"{path} already holds a run. Continue it with --resume {shlex.quote(str(path))}, or choose "
                    "another folder with output=…"
                )
            write_text(path / "config.yaml", to_yaml(config))
        else:
            clean_snapshots(path / "snapshots")
            _take_over(config, path)
        forget_ending(path)
        try:
            yield config, path
        except BaseException as error:
            note_ending(path, error)
            raise


def config_changes(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (before, after) of what differs between two configs of one kind, `output` left out."""
    old, new = _flat(before), _flat(after)
    keys = [key for key in dict.fromkeys([*old, *new]) if key != "output"]
    return {key: (old.get(key), new.get(key)) for key in keys if not same_value(old.get(key), new.get(key))}


def refuse_changes(before: Any, after: Any, fixed: Sequence[str], free: Sequence[str] = ()) -> None:
    """Raises `ConfigError` that names every key under `fixed`, but not under `free`, in which the configs differ."""
    changed = config_changes(before, after)
    refused = [key for key in changed if _under(key, fixed) and not _under(key, free)]
    if refused:
        said = "; ".join(f"{key} was {changed[key][0]!r} and would become {changed[key][1]!r}" for key in refused)
        raise ConfigError(
            f"A resumed run cannot change {', '.join(refused)}: {said}. Leave that as it was, or start a new run."
        )


def read_resumes(path: Path) -> list[dict[str, Any]]:
    """What each resume of a run changed. Raises `DataError` if that record is damaged."""
    file = path / RESUMED
    if not file.exists():
        return []
    try:
        items = read_json(file)
        rows = [as_object(item, str(file)) for item in (items if isinstance(items, list) else [items])]
        return [{"time": row.text("time"), "changes": row.object("changes").values} for row in rows]
    except DataError as error:
        raise DataError(f"{error} Delete that file; the run goes on without that record.") from error


def _take_over(config: Any, path: Path) -> None:
    before = load_config(type(config), str(path / "config.yaml"))
    changes = config_changes(before, config)
    resumes = read_resumes(path)
    resumes.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), "changes": changes})
    write_json(path / RESUMED, resumes)
    if changes or before.output != config.output:
        write_text(path / "config.yaml", to_yaml(config))


def _new_folder(output: str | None, name: str) -> Path:
    """The folder that was asked for, or one of our own that no other run has."""
    if output is not None:
        return Path(output)
    stem = f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = Path(stem if number == 1 else f"{stem}-{number}")
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
        return path
    raise ConfigError(f"{stem} and 998 more of that name exist. Give output=FOLDER.")


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when this process dies, however it dies."""
    with storing(path):
        handle = (path / LOCK).open("a")
    _LOCKS.add(handle)
    try:
        if not _locked(handle):
            raise ConfigError(
                f"Another process works in {path}. Wait until it ends, or choose another folder with output=…"
            )
        yield
    finally:
        _LOCKS.discard(handle)
        handle.close()


def _locked(handle: IO[str], attempts: int = 3) -> bool:
    """Whether the lock is ours now. Tried again soon: who only looks whether a run goes on holds it for a moment."""
    for attempt in range(attempts):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05 if attempt < attempts - 1 else 0)
        else:
            return True
    return False


_LOCKS: set[IO[str]] = set()
"""Open locks of this process."""


def _let_go() -> None:
    """In a forked child: a lock is shared with it, and a data worker outlives a killed process by some seconds."""
    for handle in _LOCKS:
        handle.close()
    _LOCKS.clear()


os.register_at_fork(after_in_child=_let_go)


def _flat(config: Any) -> dict[str, Any]:
    values = asdict(config)
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) and "name" in v for v in value):
            value = dict(enumerate(value))  # parts: each argument of theirs is a key
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                walk(item, f"{key}.{name}".lstrip("."))
        elif not isinstance(value, Mapping):
            flat[key] = value

    walk(values, "")
    return flat


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a config are one, paths in two spellings included; part by part of what they hold."""
    if one == other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if not (isinstance(one, str) and isinstance(other, str) and "/" in one and "/" in other):
        return False
    try:
        return Path(one).exists() and Path(one).resolve() == Path(other).resolve()
    except (OSError, ValueError, RuntimeError):
        return False  # text that can be no path


def _under(key: str, places: Sequence[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
