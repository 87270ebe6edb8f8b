"""Which frames a judge sees, at what size, and how they are told apart.

Frames are numbered in text parts before each image, not by drawing on the pixels: a digit would hide a part of scenes
that are only 32 to 256 pixels wide, and text is exact at any size.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image
from torch import Tensor

from gymnast_core.config.ranges import Count, Range, check_values
from gymnast_core.errors import ConfigError

PNG_LEVEL = 1
"""zlib's level. Of frames that are scaled up it takes less than half the time of its usual 6, for a quarter more bytes;
the pixels are the same at any level, and they alone name a question in the cache, so answers to files of another level
are found again."""


@dataclass(frozen=True)
class FramesConfig:
    """Which frames are shown, and how."""

    stride: Count | None = 3
    """Every n-th frame from the first one, and the last one; with `count`, set it to null."""
    count: Annotated[int, Range(least=2, most=10_000)] | None = None
    """Instead of a stride: this many frames, evenly spaced, the first and the last one among them."""
    size: Annotated[int, Range(least=8, most=8192)] | None = 256
    """Longer side in pixels that frames are scaled to, up or down (bicubic); null: as they are."""

    def check(self, key: str) -> None:
        """Raise `ConfigError` for values that select nothing or contradict each other."""
        if (self.stride is None) == (self.count is None):
            raise ConfigError(f"{key}: set either stride or count, and the other one to null.")
        check_values(FramesConfig, vars(self), key)

    def select(self, total: int) -> list[int]:
        """Indices of the frames shown out of `total` >= 1, rising; always the first and the last one."""
        if self.count is not None:
            shown = min(self.count, total)
            return [round(i * (total - 1) / max(shown - 1, 1)) for i in range(shown)]
        assert self.stride is not None
        indices = list(range(0, total, self.stride))
        return indices if indices[-1] == total - 1 else [*indices, total - 1]

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels as sent."""
        if self.size is None:
            return width, height
        longer = max(width, height)
        return max(1, round(width * self.size / longer)), max(1, round(height * self.size / longer))

    def encode(self, shown_SHWC: Tensor) -> list[bytes]:
        """Frames as PNG files: no compression artefact may decide a reward."""
        return [self._png(frame_HWC.cpu().numpy()) for frame_HWC in shown_SHWC]

    def _png(self, frame_HWC: np.ndarray) -> bytes:
        image = Image.fromarray(frame_HWC)
        size = self.scaled(*image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=PNG_LEVEL)
        return file.getvalue()


def digest(shown_SHWC: Tensor) -> str:
    """SHA-256 of the frames' shape and bytes, hexadecimal."""
    whole_SHWC = shown_SHWC.cpu().contiguous()
    hasher = hashlib.sha256(repr(tuple(whole_SHWC.shape)).encode())
    hasher.update(whole_SHWC.numpy().data)
    return hasher.hexdigest()
