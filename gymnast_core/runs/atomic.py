"""Files and folders that are whole or absent, however the process ends; a disk that refuses is one clear error."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from gymnast_core.errors import StorageError


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`: `StorageError` says what the disk refused (full, read-only, no permission, …)."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}. {_space(path)}") from error
    except SafetensorError as error:  # the only name that safetensors has for a full disk
        raise StorageError(f"{path} cannot be written: {error}. {_space(path)}") from error


def _space(path: Path) -> str:
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), Path("/"))
    return f"{shutil.disk_usage(existing).free / 1e6:.0f} MB are free there."


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
            temporary.unlink(missing_ok=True)


def flush(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), making its folder if needed; a reader sees the old or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file, making its folder if needed."""
    write_text(path, json.dumps(value, indent=1))
