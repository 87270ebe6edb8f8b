"""Who is asking what: claims on questions that live exactly as long as their owners.

A claim is a locked file. The kernel releases the lock when its owner ends, however it ends; no clock and no process id
has a say, so that neither a changed clock nor another container's numbering gives one question to two owners.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.runs.atomic import is_forbidden


class Claims:
    """The claims that one owner holds, as files in a folder that all owners share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Whether the question is this owner's now; no other one has it until it is given back or the process ends.

        Raises `DataError` if files cannot be locked there.
        """
        with self._lock:
            if key in self._held:
                return True
            descriptor = self._locked(self._path(key))
            if descriptor is not None:
                self._held[key] = descriptor
            return descriptor is not None

    def give_back(self, key: str) -> None:
        """Let others have the question."""
        with self._lock:
            descriptor = self._held.pop(key, None)
            if descriptor is not None:
                _remove(self._path(key), descriptor)

    def close(self) -> None:
        """Give everything back."""
        for key in list(self._held):
            self.give_back(key)

    def sweep(self) -> None:
        """Remove what killed processes have left."""
        for path in self.folder.glob("*.lock") if self.folder.is_dir() else ():
            descriptor = self._locked(path)
            if descriptor is not None:
                _remove(path, descriptor)

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.lock"

    def _locked(self, path: Path) -> int | None:
        """The open, locked file; None if somebody else has locked it."""
        while True:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise self._unusable(error) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError as error:
                os.close(descriptor)
                raise self._unusable(error) from error
            # Its last owner may have removed it between the two calls: then the lock is on a file without a name.
            if _is(path, descriptor):
                return descriptor
            os.close(descriptor)

    def _unusable(self, error: OSError) -> DataError:
        where = f"Let this user write {self.folder}, or choose" if is_forbidden(error) else "Choose"
        return DataError(
            f"Files in {self.folder} cannot be locked: {error.strerror or error}. {where} a cache on another file "
            "system with reward_model.args.cache=PATH."
        )


def _is(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _remove(path: Path, descriptor: int) -> None:
    # While it is locked: whoever opens it afterwards sees that it has lost its name.
    path.unlink(missing_ok=True)
    os.close(descriptor)
