"""Snapshots: everything a run needs to continue bit for bit, as safetensors + JSON, written atomically.

A snapshot is a folder `step-000000012` with `state.json` (the structure) and `state.safetensors` (the tensors), and one
such pair `process-0000` a process for what each of them keeps to itself. It is written under a temporary name, flushed
to disk and renamed, so a folder of the final name is always complete. `SHA256SUMS` (as `sha256sum` writes it) tells
whether the disk gave back what it was given: a damaged snapshot is passed over for the one before it.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gymnast_core.errors import CheckpointError, GymnastError
from gymnast_core.processes import Alone, Processes
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import atomic_directory, is_refusal, remove, remove_leftovers, storing

logger = logging.getLogger(__name__)
_TENSOR, _KEYED = "__tensor__", "__int_keys__"
SUMS = "SHA256SUMS"
MAX_STRUCTURE = 2**32
"""Bytes of a state's JSON: whatever fits into memory, since the checksum vouches for it."""


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot holds."""

    path: Path
    state: dict[str, Any]
    processes: list[dict[str, Any]]
    """What each of the processes that wrote it kept to itself."""


class UnstorableState(GymnastError, TypeError):
    """A state that holds what a snapshot cannot."""


@dataclass(frozen=True)
class HostCopy:
    """A state as it was at one moment, in host memory: whatever becomes of its tensors afterwards."""

    structure: Any
    """Nested dicts and lists of numbers, strings and None; a tensor is named by its place."""
    tensors: dict[str, Tensor]
    """By their place; none shares memory with another."""


def copied(state: Mapping[str, Any], room: Mapping[str, Tensor] | None = None) -> HostCopy:
    """Copy nested dicts and lists of tensors, numbers, strings, None; raises `TypeError` for anything else, and for
    dicts whose keys are neither all text nor all whole numbers: others would come back as other keys.

    Tensors go into those of `room` that have their place, shape and dtype: memory that was written once is several
    times as fast as new memory. Nobody may read an earlier copy's tensors any more then.
    """
    tensors: dict[str, Tensor] = {}

    def keep(x: Tensor, path: str) -> str:
        place = _free(path, tensors)
        tensors[place] = _copy(x.detach(), (room or {}).get(place))
        return place

    return HostCopy(_flatten(state, "", keep), tensors)


def check_storable(state: Mapping[str, Any], path: str) -> None:
    """Raises `UnstorableState`, which names the place below `path`, if a snapshot cannot hold the state; copies
    nothing."""
    _flatten(state, path, lambda _, place: place)


def save_snapshot(
    directory: Path,
    step: int,
    state: Mapping[str, Any],
    *,
    own: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    keep: int = 2,
) -> Path:
    """Write nested dicts and lists of tensors, numbers, strings, None. The newest `keep` snapshots remain.

    `state` is the leader's; `own` is what this process keeps to itself. All of the `processes` must call this, and
    write into one folder; without them, this process writes alone. Raises `StorageError`.
    """
    return store_copies(
        directory, step, copied(state), own=None if own is None else copied(own), processes=processes, keep=keep
    )


def store_copies(
    directory: Path,
    step: int,
    state: "HostCopy",
    *,
    own: "HostCopy | None" = None,
    processes: Processes | None = None,
    keep: int = 2,
) -> Path:
    """`save_snapshot` of what was copied before, which is not copied again."""
    processes = processes or Alone()
    target = directory / f"step-{step:09d}"
    with _shared(target, processes) as temporary:
        if processes.leads:
            _write(temporary / "state", state)
        if own is not None:
            _write(temporary / f"process-{processes.rank:04d}", own)
        processes.wait()
        if processes.leads:
            _write_sums(temporary)
    if processes.leads:
        for old in sorted(directory.glob("step-*"))[:-keep]:
            remove(old)
    return target


@contextmanager
def _shared(target: Path, processes: Processes) -> Iterator[Path]:
    """The leader's temporary folder, in all processes; it takes its name when all have written."""
    if processes.count == 1:
        with atomic_directory(target) as temporary:
            yield temporary
        return
    if not processes.leads:
        with storing(target):
            yield Path(processes.broadcast(""))
        processes.wait()
        return
    with atomic_directory(target) as temporary:
        processes.broadcast(str(temporary.resolve()))
        yield temporary
        processes.wait()


def load_snapshot(directory: Path) -> Snapshot | None:
    """A folder's newest snapshot whose checksums hold; None if the folder has none at all.

    A damaged one is told by a warning, and the one before it is read. Raises `CheckpointError` if all are damaged.
    """
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is not a folder of snapshots. Move it away to start from the beginning.")
    faults: list[CheckpointError] = []
    for path in sorted(directory.glob("step-*"), reverse=True):
        try:
            found = _load(path)
        except CheckpointError as error:
            faults.append(error)
            continue
        for fault in faults:
            logger.warning("%s Going on from %s, the one before it.", fault, path.name)
        return found
    if faults:
        raise CheckpointError(f"{faults[0]} No other can be read in {directory}: the run cannot go on.") from faults[0]
    return None


def load_latest_snapshot(directory: Path) -> dict[str, Any] | None:
    """The leader's state in a folder's newest snapshot; None if there is none. Raises `CheckpointError` if damaged."""
    found = load_snapshot(directory)
    return None if found is None else found.state


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Around whatever takes a snapshot's state over: a state that does not fit is one `CheckpointError`."""
    try:
        yield
    except GymnastError:
        raise
    except Exception as error:  # a plugin's load_state_dict may raise anything
        if isinstance(error, OSError) and is_refusal(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"Snapshot {path} does not fit this run: {type(error).__name__}: {reason}. Resume with the parts and "
            "options that the run began with."
        ) from error


def clean_snapshots(directory: Path) -> None:
    """Remove what a killed process left of a snapshot that it was writing."""
    if directory.is_dir():
        remove_leftovers(directory)


def _write(path: Path, state: HostCopy) -> None:
    save_file(state.tensors, str(path.with_suffix(".safetensors")))
    path.with_suffix(".json").write_text(json.dumps(state.structure))


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{_sha256(path)}  {path.name}\n" for path in files))


def _check_sums(folder: Path) -> None:
    """Raises `CheckpointError` unless the folder holds the files that were written, bit for bit."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
        wanted = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        found = {path.name: _sha256(path) for path in folder.iterdir() if path.name != SUMS}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Snapshot {folder} is damaged: {SUMS} cannot be used ({error}).") from error
    changed = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if changed:
        raise CheckpointError(f"Snapshot {folder} is damaged: {', '.join(changed)} changed since it was written.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path) -> Snapshot:
    _check_sums(folder)
    own = sorted(path.with_suffix("") for path in folder.glob("process-*.json"))
    return Snapshot(folder, _read(folder / "state"), [_read(path) for path in own])


def _read(path: Path) -> dict[str, Any]:
    structure = read_object(path.with_suffix(".json"), CheckpointError, allow_nan=True, max_bytes=MAX_STRUCTURE).values
    try:
        return _restored(structure, load_file(str(path.with_suffix(".safetensors"))))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"Snapshot {path.parent} is damaged ({type(error).__name__}: {error}).") from error


def _flatten(value: Any, path: str, keep: Callable[[Tensor, str], str]) -> Any:
    """`keep` takes a tensor and its path, and returns what it is found by."""
    if isinstance(value, Tensor):
        return {_TENSOR: keep(value, path)}
    if isinstance(value, Mapping):
        kinds = {type(key) for key in value}
        if (not kinds <= {str} and kinds != {int}) or not {_TENSOR, _KEYED}.isdisjoint(value):
            keys = ", ".join(map(repr, value))
            raise UnstorableState(
                f"A snapshot cannot hold {path.lstrip('.') or 'the state'}, a dict with the keys {keys}: they must be "
                f"all text (not {_TENSOR!r} or {_KEYED!r}) or all whole numbers."
            )
        flat = {str(key): _flatten(item, f"{path}.{key}", keep) for key, item in value.items()}
        # JSON turns integer keys (torch.optim's parameter indices) into strings.
        return {_KEYED: flat} if kinds == {int} else flat
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{path}.{index}", keep) for index, item in enumerate(value)]
    if isinstance(value, str | int | float) or value is None:
        return value
    raise UnstorableState(f"A snapshot cannot hold {path.lstrip('.')}, a {type(value).__name__}: {value!r:.200}")


def _free(path: str, tensors: Mapping[str, Tensor]) -> str:
    """A name for the tensor at a path: {"a.b": x} and {"a": {"b": y}} lie at the same one."""
    while path in tensors:
        path += "'"
    return path


def _copy(x: Tensor, room: Tensor | None) -> Tensor:
    if room is None or room.shape != x.shape or room.dtype != x.dtype:
        room = torch.empty(x.shape, dtype=x.dtype)
    return room.copy_(x)


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _KEYED in value:
        return {int(key): _restored(item, tensors) for key, item in value[_KEYED].items()}
    return {key: _restored(item, tensors) for key, item in value.items()}
