"""Where things on the table appear in the image. Needs numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gymnast_tabletop.scene import BLOCK_SIZE, VIEW_WIDTH

EFFECTOR_HEIGHT = 0.08
"""Of the cylinder's top above the table, metres: it stands out above the blocks."""
CAMERA_HEIGHT = 2.0
"""Metres above the table: far enough that the sides of the blocks hardly show."""


def scale(height: float) -> float:
    """Image widths a metre at that height above the table; 1 / VIEW_WIDTH at the top of a block."""
    return (CAMERA_HEIGHT - BLOCK_SIZE) / (CAMERA_HEIGHT - height) / VIEW_WIDTH


def image_points(states: NDArray[np.floating]) -> NDArray[np.float32]:
    """Image coordinates of the tops of (block 0, block 1, ..., end-effector).

    `states` is (..., 2 + 3 blocks); the result (..., blocks + 1, 2), x right, y down, in [0, 1] where in
    view.
    """
    states = np.asarray(states)
    blocks = states[..., 2:].reshape(*states.shape[:-1], -1, 3)[..., :2] * scale(BLOCK_SIZE)
    effector = states[..., None, :2] * scale(EFFECTOR_HEIGHT)
    points = np.concatenate([blocks, effector], axis=-2)
    return (0.5 + points * np.array([1.0, -1.0])).astype(np.float32)
