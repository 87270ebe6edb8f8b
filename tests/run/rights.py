"""A process without root's rights over the files of others, so that permissions hold for it as for anybody."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DROP_FROM_BOUNDS, _VERSION = 24, 0x20080522
"""prctl(2)'s PR_CAPBSET_DROP; capget(2)'s version 3."""
_OVER_FILES = (1, 2, 3)
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER; see capabilities(7)."""
_MASK = ~sum(1 << number for number in _OVER_FILES) & 0xFFFFFFFF


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32 * 3) for name in ("low", "high")]  # each: effective, permitted, inheritable


def obey_permissions() -> None:
    """For the rest of this process, and in whatever it starts. Whoever is not root obeys anyway."""
    if os.geteuid() != 0 or sys.platform != "linux":
        return
    for number in _OVER_FILES:
        ctypes.CDLL(None).prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)
    sets = _rights()
    for index in range(3):
        sets.low[index] &= _MASK
    _set_rights(sets)


@contextmanager
def obeying_permissions() -> Iterator[None]:
    """In this thread, until the block ends."""
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    before, sets = _rights(), _rights()
    sets.low[0] &= _MASK
    _set_rights(sets)
    try:
        yield
    finally:
        _set_rights(before)


def why_not_obeyed(folder: Path) -> str:
    """Why permissions cannot be tried here; "" where they can."""
    locked = folder / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    try:
        with obeying_permissions():
            (locked / "file").touch()
    except PermissionError:
        return ""
    return "permissions do not hold for this user on this system"


def lock_up(place: Path, *, deep: bool, files: bool) -> None:
    """Take the right to write in a folder away; `deep`: in those within it, too; `files`: and that to change files."""
    place.chmod(place.stat().st_mode & ~0o222)
    for path in sorted(place.iterdir()):
        # Temporary ones may be gone by now, or have their name.
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink() and deep:
                lock_up(path, deep=deep, files=files)
            elif path.is_file() and not path.is_symlink() and files:
                path.chmod(path.stat().st_mode & ~0o222)


def unlock(place: Path) -> None:
    """Give all rights back."""
    place.chmod(place.stat().st_mode | 0o700)
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            unlock(path)
        elif path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o600)


def _rights() -> _Sets:
    sets = _Sets()
    if ctypes.CDLL(None, use_errno=True).capget(ctypes.byref(_Header(_VERSION, 0)), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capget")
    return sets


def _set_rights(sets: _Sets) -> None:
    if ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(_Header(_VERSION, 0)), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capset")
