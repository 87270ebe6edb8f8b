"""Gives memory back that a loaded simulation holds and never looks at again.

A LIBERO scene has up to 200 MB of textures. MuJoCo keeps them three times: decoded in a cache for the next compilation,
in the description that the model was compiled from, and in the model; the renderer makes the copy that is drawn from.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np


def forget_sources() -> None:
    """Before a model is loaded: keep no decoded files for another one, which this process never loads."""
    import mujoco

    if hasattr(mujoco, "mj_setCacheCapacity"):  # since MuJoCo 3.3
        mujoco.mj_setCacheCapacity(mujoco.mj_getCache(), 0)


def forget_description() -> None:
    """After a model was loaded: MuJoCo keeps the description of the last one, so let that be an empty one."""
    import mujoco

    mujoco.MjModel.from_xml_string("<mujoco/>")
    trim()


def forget_pixels(pixels: np.ndarray) -> None:
    """Give the pages behind an array back to the system; it reads as zeros from then on. Linux only; elsewhere it
    does nothing."""
    if not sys.platform.startswith("linux"):
        return
    page = mmap.PAGESIZE
    address = pixels.ctypes.data
    start, end = -(-address // page) * page, (address + pixels.nbytes) // page * page
    if end > start:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(mmap.MADV_DONTNEED))


def trim() -> None:
    """Return free memory to the system, where the C library can."""
    with_trim: Any = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if with_trim is not None and hasattr(with_trim, "malloc_trim"):
        with_trim.malloc_trim(0)
