"""Where things stand at the start: dimensions of the table, and random scenes. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gymnast_core.errors import ConfigError

FPS = 10.0
"""Control steps, and so frames, a second."""
COLOURS = ("red", "green", "blue", "yellow")
VIEW_WIDTH = 0.32
"""Metres that the image spans at the height of the blocks' tops."""
BLOCK_SIZE = 0.058
"""Edge of a block, metres."""
EFFECTOR_RADIUS = 0.016
MAX_DELTA = 0.02
"""Largest displacement an axis and control step, metres: 2 pixels of a 32-pixel image."""
EFFECTOR_LIMIT = 0.144
"""The end-effector's centre stays in ± this, metres: its whole disc is in view."""
BLOCK_LIMIT = 0.128
"""The blocks' centres stay in ± this, metres."""

_START_LIMIT = 0.105
_MAX_YAW = 0.4
_BLOCK_DISTANCE = 0.085
_EFFECTOR_DISTANCE = 0.06


@dataclass(frozen=True)
class Scene:
    """A start: which colours the blocks have, and the state vector (see `simulation`)."""

    colours: tuple[str, ...]
    state: NDArray[np.float64]


def check_n_blocks(n_blocks: int) -> None:
    if n_blocks not in (2, 3):
        raise ConfigError(f"A tabletop has 2 or 3 blocks, not {n_blocks}. Set n_blocks to 2 or 3.")


def sample_scene(rng: np.random.Generator, n_blocks: int) -> Scene:
    """A random scene: distinct colours, blocks apart from each other and from the end-effector."""
    check_n_blocks(n_blocks)
    colours = tuple(COLOURS[i] for i in rng.permutation(len(COLOURS))[:n_blocks])
    yaws = rng.uniform(-_MAX_YAW, _MAX_YAW, n_blocks)
    while True:
        blocks = rng.uniform(-_START_LIMIT, _START_LIMIT, (n_blocks, 2))
        effector = rng.uniform(-EFFECTOR_LIMIT, EFFECTOR_LIMIT, 2)
        gaps = np.linalg.norm(blocks[:, None] - blocks[None], axis=-1)[np.triu_indices(n_blocks, 1)]
        clear = np.linalg.norm(blocks - effector, axis=-1).min()
        if gaps.min() > _BLOCK_DISTANCE and clear > _EFFECTOR_DISTANCE:
            return Scene(colours, np.concatenate([effector, np.column_stack([blocks, yaws]).ravel()]))
