"""Files and folders that are whole or absent, however the process ends; a disk that refuses is one clear error."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gymnast_core.errors import StorageError

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`: `StorageError` says what the disk refused (full, read-only, no permission, …)."""
    try:
        yield
    except OSError as error:
        raise StorageError(refusal(error, path)) from error
    except SafetensorError as error:  # the only name that safetensors has for a full disk
        # It has no number either: whether the folder may be written is asked.
        folder = path if path.is_dir() else _existing(path)
        hint = _space(path) if os.access(folder, os.W_OK | os.X_OK) else _ask_for(folder)
        raise StorageError(f"{path} cannot be written: {error}. {hint}") from error


def refusal(error: OSError, path: Path) -> str:
    """What to tell of an error that came up where `path` was written: what the system says, and what to do."""
    place = _place(error, path)
    # A part of it is told; a temporary name beside it says nothing to anybody.
    part = f" ({place})" if place != path and place.is_relative_to(path) else ""
    return f"{path} cannot be written{part}: {error.strerror or error}. {advice(error, path)}"


def advice(error: OSError, path: Path) -> str:
    """What to do about a disk that refused to write `path`."""
    if not is_forbidden(error):
        return _space(path)
    place = _place(error, path)
    folder = _existing(place)
    blocked = place if os.access(folder, os.W_OK | os.X_OK) and place.exists() else folder
    return _ask_for(blocked)


def is_refusal(error: OSError) -> bool:
    """Whether an error tells of a disk that is full, or that may not be used."""
    return is_forbidden(error) or error.errno in _NO_ROOM


def is_forbidden(error: OSError) -> bool:
    """Whether an error tells of a file, folder or disk that this user may not use so."""
    return error.errno in _FORBIDDEN


def _place(error: OSError, path: Path) -> Path:
    """The file or folder that the system named: of two, the one that was to be."""
    return next((Path(name) for name in (error.filename2, error.filename) if isinstance(name, str)), path)


def _existing(path: Path) -> Path:
    """The folder in which a path is, or would be made: the nearest one that there is."""
    # os.path: `Path.is_dir` raises in a folder that may not be entered.
    return next((folder for folder in path.absolute().parents if os.path.isdir(folder)), Path("/"))  # noqa: PTH112


def _ask_for(blocked: Path) -> str:
    return f"Let this user write {blocked}, or choose another folder."


def _space(path: Path) -> str:
    return f"{shutil.disk_usage(_existing(path)).free / 1e6:.0f} MB are free there."


@contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `directory` when the block ends without an error."""
    with storing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = directory.parent / f".{directory.name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    flush(file)
            old = directory.parent / f".{directory.name}.{os.getpid()}.old"
            if directory.exists():
                directory.rename(old)
            temporary.rename(directory)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes had not finished here. Call it only while nobody else writes into `folder`."""
    for pattern in (".*.tmp", ".*.old"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a folder. Raises `StorageError`."""
    with storing(folder):
        shutil.rmtree(folder)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; its file replaces `path`, flushed to disk, if the block succeeds."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            flush(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):  # what ended the block is what counts
                temporary.unlink(missing_ok=True)


def flush(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def append(path: Path, content: bytes) -> None:
    """Add to a file, making its folder if needed, and wait until that is on the disk.

    Whoever is killed leaves all of it or a beginning; where the disk refuses, none of it: raises `StorageError`.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                # Unbuffered, in one call where the system takes it so.
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), making its folder if needed; a reader sees the old or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, making its folder if needed."""
    write_text(path, json.dumps(value, indent=1))
