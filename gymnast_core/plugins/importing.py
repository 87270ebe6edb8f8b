"""Heavy imports without the garbage collector in their way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Collect no cycles until the block ends, and never look again at what was imported in it.

    For commands, which own their process: PyTorch, Lightning and transformers make several hundred thousand objects
    while they are imported, and all of them stay. Looking through them again and again as they come takes a sixth of a
    command's start-up.
    """
    if not gc.isenabled():
        yield
        return
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()
