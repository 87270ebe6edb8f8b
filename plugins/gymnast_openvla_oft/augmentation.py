"""Random shifts and colours of training images."""

from __future__ import annotations

import torch
from torch import Tensor


def shift(images_BVHWC: Tensor, pixels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move every sample by up to `pixels` on each axis; the border repeats.

    Returns the images and how far their content moved, (B, 2), in widths (right) and heights (down).
    """
    batch, _, height, width = images_BVHWC.shape[:4]
    moves_B2 = torch.randint(-pixels, pixels + 1, (batch, 2), generator=generator, device=generator.device)
    moves_B2 = moves_B2.to(images_BVHWC.device)
    columns = (torch.arange(width, device=moves_B2.device) - moves_B2[:, :1]).clamp(0, width - 1)
    rows = (torch.arange(height, device=moves_B2.device) - moves_B2[:, 1:]).clamp(0, height - 1)
    sample = torch.arange(batch, device=moves_B2.device)[:, None, None]
    # Indexing across the views axis moves it to the end of the indexed block.
    moved_BHWVC = images_BVHWC[sample, :, rows[:, :, None], columns[:, None, :]]
    scale = torch.tensor([width, height], dtype=torch.float32, device=moves_B2.device)
    return moved_BHWVC.movedim(3, 1), moves_B2 / scale


def jitter_color(images_BVHWC: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale contrast and brightness of each sample by factors from [1 - strength, 1 + strength]."""
    batch = len(images_BVHWC)
    draws = torch.rand(2, batch, 1, 1, 1, 1, generator=generator, device=generator.device)
    contrast, brightness = (1.0 + strength * (2.0 * draws - 1.0)).to(images_BVHWC.device)
    pixels = images_BVHWC.float()
    mean = pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
    return ((pixels - mean) * contrast + mean * brightness).round().clamp(0, 255).to(torch.uint8)
