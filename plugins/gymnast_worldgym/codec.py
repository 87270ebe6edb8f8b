"""Between uint8 frames and the latents that the transformer sees."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """Frames are uint8 (..., H, W, 3), latents float32 (..., h, w, C)."""

    channels: int
    """Latent channels C."""
    clip: float | None
    """Bound of the latents' absolute value, where they have one."""

    def encode(self, frames: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class PixelCodec:
    """No autoencoder: latents are the pixels themselves, from -1 to 1."""

    channels = 3
    clip: float | None = 1.0

    def encode(self, frames: Tensor) -> Tensor:
        return frames.float() / 127.5 - 1

    def decode(self, latents: Tensor) -> Tensor:
        return ((latents + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


CODECS: dict[str, type[PixelCodec]] = {"pixels": PixelCodec}
