"""Pictures of a table, drawn with as many samples a pixel as a renderer takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SIZE = 64


@dataclass(frozen=True)
class Block:
    """An upright rectangle; lengths in pixels."""

    x: float
    y: float
    side: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What stands where, how bright it is, and where the camera stands."""

    blocks: tuple[Block, ...]
    light: float = 1.0
    camera: float = 0.0
    """Pixels by which the view is shifted."""

    def draw(self, samples: int = 4, size: int = SIZE) -> np.ndarray:
        """uint8 (size, size, 3), the mean of samples x samples points a pixel."""
        at = (np.arange(size * samples) + 0.5) / samples * (SIZE / size)
        x, y = np.meshgrid(at + self.camera, at)
        # A wooden table before a wall: grain, and a horizon.
        grain = 12 * np.sin(x / 3.0 + 2 * np.sin(y / 9.0))
        picture = np.array([150.0, 110.0, 70.0]) + grain[..., None]
        picture[y < 14] = (90, 95, 100)
        for block in self.blocks:
            inside = (np.abs(x - block.x) <= block.side / 2) & (np.abs(y - block.y) <= block.side / 2)
            picture[inside] = block.colour
        rows = (picture * self.light).reshape(size, samples, size, samples, 3)
        return np.clip(rows.mean((1, 3)) + 0.5, 0, 255).astype(np.uint8)

    def with_block(self, place: int, **changes: object) -> Scene:
        """One block changed."""
        blocks = list(self.blocks)
        blocks[place] = replace(blocks[place], **changes)  # type: ignore[arg-type]
        return replace(self, blocks=tuple(blocks))


RED, GREEN, BLUE, GREY = (200, 40, 40), (40, 160, 60), (50, 70, 190), (120, 120, 125)
TABLE = Scene((Block(20.0, 30.0, 9.0, RED), Block(44.0, 40.0, 9.0, GREEN), Block(30.0, 52.0, 3.0, BLUE)))
"""Two blocks and a small one, of nine pixels."""
FAR = Scene((Block(30.0, 18.0, 3.0, GREY), Block(40.0, 18.0, 3.0, (60, 60, 65))))
"""Two small things far away."""
