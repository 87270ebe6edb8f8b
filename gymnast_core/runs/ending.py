"""RUN/ended.json: why the last process that worked in a folder stopped before its end, if it could say so."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError, GymnastError, StorageError
from gymnast_core.reading import as_record, read_json
from gymnast_core.runs.atomic import storing, write_json
from gymnast_core.signals import Terminated

FILE = "ended.json"
INTERRUPTED, CRASHED = "interrupted", "crashed"
MOST_TEXT = 2000
"""Characters of an error that are kept."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """How it came to an end."""

    name: str
    """`INTERRUPTED` (somebody wanted it) or `CRASHED`."""
    error: str
    """By what, in words."""


def ending_of(error: BaseException) -> Ending:
    """What an error says of how a run ended."""
    # Lightning answers Ctrl-C with `SystemExit`.
    if any(isinstance(found, KeyboardInterrupt) for found in (error, error.__context__)):
        return Ending(INTERRUPTED, "Ctrl-C")
    if isinstance(error, Terminated):
        return Ending(INTERRUPTED, "SIGTERM")
    if isinstance(error, SystemExit):
        return Ending(CRASHED, f"Another process of it failed, with status {error.code}.")
    text = str(error) if isinstance(error, GymnastError) else f"{type(error).__name__}: {error}"
    return Ending(CRASHED, text[:MOST_TEXT])


def note_ending(folder: Path, error: BaseException) -> None:
    """Write it down. A disk that refuses must not hide why: that is logged."""
    try:
        write_json(folder / FILE, asdict(ending_of(error)))
    except StorageError as failure:
        logger.warning("Why the run ended could not be written: %s", failure)


def forget_ending(folder: Path) -> None:
    """A process works in the folder again. Raises `StorageError`."""
    with storing(folder / FILE):
        (folder / FILE).unlink(missing_ok=True)


def read_ending(folder: Path) -> Ending | None:
    """Why the last process stopped; None if it came to its end, or could not say. Raises `DataError`."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = as_record(Ending, read_json(path), str(path))
    except DataError as error:
        raise DataError(f"{error} Delete that file; the state is then told by the rest.") from error
    if found.name not in (INTERRUPTED, CRASHED):
        raise DataError(f"{path}: name is {found.name!r}; it is {INTERRUPTED} or {CRASHED}. Delete that file.")
    return found
