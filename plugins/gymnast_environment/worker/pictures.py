"""Pictures as arrays: turned, resized, compared. NumPy alone, since that is all a worker may rely on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

LEVELS = 16
"""Levels of 255 by which two renderings of one scene may differ in a pixel: rounding and compression stay below."""
EDGE = 0.4
"""Share of the contrast around a pixel by which it may differ as well: renderers disagree about how much of a pixel at
an edge either side covers. An edge that lies a whole pixel further changes one by more."""


def turned(image_HWC: np.ndarray, flip: str, rotate: int) -> np.ndarray:
    """Flipped ("vertical": upside down, "horizontal": mirrored, "both"), then rotated counter-clockwise, degrees."""
    if flip in ("vertical", "both"):
        image_HWC = image_HWC[::-1]
    if flip in ("horizontal", "both"):
        image_HWC = image_HWC[:, ::-1]
    return np.rot90(image_HWC, rotate // 90) if rotate else image_HWC


def resized(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """`size` x `size` pixels, uint8: a linear filter as wide as the larger of the two pixel sizes (antialiased)."""
    height, width = image_HWC.shape[:2]
    if (height, width) == (size, size):
        return image_HWC
    rows, columns = _weights(height, size), _weights(width, size)
    tall = np.tensordot(rows, image_HWC.astype(np.float32), axes=(1, 0))
    found = np.tensordot(columns, tall, axes=(1, 1)).transpose(1, 0, 2)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _weights(before: int, after: int) -> np.ndarray:
    """float32 (after, before): how much each old pixel counts in each new one."""
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before)[None] + 0.5 - centres[:, None]) / reach
    weights = np.clip(1.0 - distance, 0.0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def differing_share(first_HWC: np.ndarray, second_HWC: np.ndarray) -> float:
    """Share of pixels that two pictures of one size show differently, in [0, 1].

    A pixel differs if a channel is off by more than `LEVELS`, and by more than `EDGE` of the contrast in its
    surroundings of 3 x 3 pixels.
    """
    first, second = first_HWC.astype(np.int16), second_HWC.astype(np.int16)
    off_HWC = np.abs(first - second)
    if off_HWC.max(initial=0) <= LEVELS:
        return 0.0
    contrast_HWC = _around(np.maximum(first, second), np.maximum) - _around(np.minimum(first, second), np.minimum)
    differs_HW = ((off_HWC > LEVELS) & (off_HWC > EDGE * contrast_HWC)).any(-1)
    return float(differs_HW.mean())


def _around(image_HWC: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """The largest or smallest value in the 3 x 3 surroundings of each pixel."""
    padded = np.pad(image_HWC, ((1, 1), (0, 0), (0, 0)), mode="edge")
    found = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:])
    padded = np.pad(found, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return extreme(extreme(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
