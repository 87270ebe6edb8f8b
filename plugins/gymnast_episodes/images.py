"""Resizing frames as WorldGym's training data was: bilinear with antialiasing, corners not aligned.

Other filters (Lanczos, bilinear without antialiasing) shift pixel values by several grey levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config.ranges import Range
from gymnast_core.errors import ConfigError

Pixels = Annotated[int, Range(least=1, most=16384)]
"""Height or width."""


def check_size(size: Sequence[int] | None, key: str = "image_size") -> None:
    """Raises `ConfigError` for a size that is not height and width."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"{key} is {list(size)}; give height and width, e.g. [64, 64].")


def resize(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Frames (..., H, W, C) resized to `size` = (height, width), pixels.

    float32 stays float32; uint8 is filtered in float32 and rounded back. Frames of that size come back as they are.
    """
    height, width = size
    if tuple(frames.shape[-3:-1]) == (height, width):
        return frames
    images = frames.flatten(0, -4) if frames.ndim > 3 else frames[None]
    resized = F.interpolate(
        images.movedim(-1, -3).float(), (height, width), mode="bilinear", antialias=True, align_corners=False
    ).movedim(-3, -1)
    if frames.dtype == torch.uint8:
        resized = resized.round().clamp(0, 255).to(torch.uint8)
    return resized.reshape(*frames.shape[:-3], height, width, frames.shape[-1]).contiguous()
