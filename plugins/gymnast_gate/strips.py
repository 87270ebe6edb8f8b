"""Film strips of measured rollouts: what was imagined above what really happens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gymnast_core.runs.atomic import replacing
from gymnast_gate.pixels import side_by_side

KINDS = ("frames", "false alarm", "miss")


def draw_strip(folder: Path, kind: str, index: int, rows: Sequence[tuple[str, Tensor]]) -> str:
    """Write a strip of captioned rows of frames (T, V, H, W, C); its place within the folder."""
    from gymnast_pages.video import strip

    name = f"strips/{kind.replace(' ', '-')}-{index:06d}.jpg"
    picture = strip([side_by_side(frames) for _, frames in rows], [caption for caption, _ in rows], min_pixels=96)
    with replacing(folder / name) as temporary:
        picture.save(temporary, format="JPEG", quality=85)
    return name
