"""Where things on the table appear in the image. Needs numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gymnast_tabletop.scene import BLOCK_SIZE, VIEW_WIDTH

EFFECTOR_HEIGHT = 0.08
"""Of the cylinder's top above the table, metres: it stands out above the blocks."""
CAMERA_HEIGHT = 2.0
"""Metres above the table: far enough that the sides of the blocks hardly show."""

CAMERAS = ("front", "wrist")
"""The whole table; and what a camera sees that moves with the end-effector, straight above it."""
WRIST_ZOOM = 1.6
"""Of the wrist camera: it spans 0.2 m, the end-effector in its middle."""


def scale(height: float) -> float:
    """Image widths a metre at that height above the table; 1 / VIEW_WIDTH at the top of a block."""
    return (CAMERA_HEIGHT - BLOCK_SIZE) / (CAMERA_HEIGHT - height) / VIEW_WIDTH


def wrist_points(states: NDArray[np.floating]) -> NDArray[np.float32]:
    """As `image_points`, in the picture of the wrist camera (without a `Gap`)."""
    states = np.array(states, copy=True)
    blocks = states[..., 2:].reshape(*states.shape[:-1], -1, 3)  # a view: the copy's blocks, seen from the effector
    blocks[..., :2] -= states[..., None, :2]
    states[..., :2] = 0.0
    return (0.5 + (image_points(states) - 0.5) * WRIST_ZOOM).astype(np.float32)


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
