"""What cameras and world models do to frames without changing what happened in them.

The classifier is fitted to recorded frames and judges imagined ones, which are blurred, blotchy, noisy and
drift in colour, the more so the further they are from the start. Distortions of the last frame are therefore
drawn independently and stronger than those of the first, which is always a real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config.ranges import Fraction, Range


@dataclass(frozen=True)
class AugmentationConfig:
    """Strength of each distortion; 0 switches it off."""

    shift: Fraction = 0.04
    """Largest shift of both frames together, as a fraction of the image side."""
    brightness: Fraction = 0.12
    """Largest change of brightness, as a fraction of full scale."""
    contrast: Fraction = 0.2
    """Largest relative change of contrast."""
    colour: Fraction = 0.08
    """Largest relative change of each colour channel of the last frame."""
    blur: Annotated[float, Range(least=0, most=2)] = 1.0
    """Largest standard deviation of the blur of the last frame, pixels; its kernel has 5."""
    noise: Fraction = 0.05
    """Largest standard deviation of pixel noise, as a fraction of full scale."""
    blotches: Fraction = 0.05
    """Largest standard deviation of smooth noise (8 x 8 cells) on the last frame, fraction of full scale."""


def augment(pairs_B2CHW: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """A distorted copy of float pairs in [0, 1]; every pair gets its own draw from `generator`."""
    draw = _Draw(len(pairs_B2CHW), pairs_B2CHW.device, generator)
    pairs = _shift(pairs_B2CHW, config.shift * draw.uniform(2))
    first_BCHW, last_BCHW = pairs.unbind(1)
    last_BCHW = last_BCHW * (1 + config.colour * draw.uniform(3)[:, :, None, None])
    last_BCHW = last_BCHW + _blotches(last_BCHW, draw, config.blotches)
    last_BCHW = _blur(last_BCHW, config.blur * draw.uniform(1).clamp(min=0)[:, 0])
    pairs = torch.stack([first_BCHW, last_BCHW], 1)
    gain_B1 = 1 + config.contrast * draw.uniform(1)
    offset_B1 = config.brightness * draw.uniform(1)
    pairs = (pairs - 0.5) * _wide(gain_B1) + 0.5 + _wide(offset_B1)
    noise_B2 = config.noise * draw.uniform(2).abs() * torch.tensor([0.5, 1.0], device=pairs.device)
    pairs = pairs + draw.normal(pairs.shape) * noise_B2[:, :, None, None, None]
    return pairs.clamp(0.0, 1.0)


class _Draw:
    """Random numbers from a generator that may live on another device than the images."""

    def __init__(self, batch: int, device: torch.device, generator: torch.Generator):
        self.batch, self.device, self.generator = batch, device, generator

    def uniform(self, count: int) -> Tensor:
        """(B, count) in [-1, 1)."""
        shape = (self.batch, count)
        drawn = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return drawn.to(self.device) * 2 - 1

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)


def _wide(values_B1: Tensor) -> Tensor:
    return values_B1[:, :, None, None, None]


def _shift(pairs_B2CHW: Tensor, offset_B2: Tensor) -> Tensor:
    """Both frames moved by the same (x, y) offset, in image sides; borders are repeated."""
    batch, _, channels, height, width = pairs_B2CHW.shape
    affine_B23 = torch.eye(2, 3, device=pairs_B2CHW.device).repeat(batch, 1, 1)
    affine_B23[:, :, 2] = 2 * offset_B2
    stacked_BCHW = pairs_B2CHW.flatten(1, 2)
    grid = F.affine_grid(affine_B23, list(stacked_BCHW.shape), align_corners=False)
    moved = F.grid_sample(stacked_BCHW, grid, padding_mode="border", align_corners=False)
    return moved.view(batch, 2, channels, height, width)


def _blotches(images_BCHW: Tensor, draw: _Draw, strength: float) -> Tensor:
    coarse = draw.normal((draw.batch, images_BCHW.shape[1], 8, 8)) * strength
    coarse = coarse * draw.uniform(1).abs()[:, :, None, None]
    return F.interpolate(coarse, size=images_BCHW.shape[-2:], mode="bilinear", align_corners=False)


def _blur(images_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation per image (pixels); 0 leaves the image as it is."""
    batch, channels, height, width = images_BCHW.shape
    offsets_5 = torch.arange(-2, 3, device=images_BCHW.device)
    kernel_B5 = torch.exp(-(offsets_5**2) / (2 * sigma_B[:, None].clamp(min=0.1) ** 2))
    kernel_B5 = kernel_B5 / kernel_B5.sum(1, keepdim=True)
    kernel_B5 = kernel_B5.repeat_interleave(channels, 0)
    folded = F.pad(images_BCHW, (2, 2, 2, 2), mode="replicate").view(1, batch * channels, height + 4, width + 4)
    folded = F.conv2d(folded, kernel_B5[:, None, None, :], groups=batch * channels)
    folded = F.conv2d(folded, kernel_B5[:, None, :, None], groups=batch * channels)
    return folded.view(batch, channels, height, width)
