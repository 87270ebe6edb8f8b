"""What other libraries raise about a file becomes one `DataError` that names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gymnast_core.errors import DataError, GymnastError
from gymnast_episodes import REPAIR

_LONGEST = 200
"""Characters of another library's words."""


@contextmanager
def reading(what: str, advice: str = REPAIR) -> Iterator[None]:
    """Around calls of a library that parses a file; `what` names the file in the error, e.g. "the video a.mp4".

    Libraries raise all kinds of exceptions about damaged files (arrow, zlib, MemoryError of a claimed size, …), so that
    all of them mean the file. Errors of ours, and those of a missing file, pass.
    """
    try:
        yield
    except (GymnastError, FileNotFoundError):
        raise
    except Exception as error:
        raise DataError(f"Cannot read {what}: {reason(error)}. {advice}") from error


def reason(error: Exception) -> str:
    """What an exception says, as the part of one line."""
    said = getattr(error, "strerror", None) or str(error)
    text = " ".join(str(said).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def data_files(paths: Iterable[Path]) -> list[Path]:
    """The files of these, sorted, without what macOS leaves beside them (._NAME) and other hidden files."""
    return sorted(path for path in paths if not path.name.startswith("."))


def folder(path: str, advice: str) -> Path:
    """A folder that the user names, ~ filled in. Raises `DataError` if there is none."""
    try:
        found = Path(path).expanduser()
        if found.is_dir():
            return found
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"No folder {path!r}: {reason(error)}. {advice}") from error
    raise DataError(f"No folder {found}. {advice}")


def writable(text: str) -> bool:
    """Whether a text can be stored as UTF-8: JSON can hold halves of characters, which cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
