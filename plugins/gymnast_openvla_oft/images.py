"""From camera frames to what the towers read: centre crop, resize and normalise, as the reference does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gymnast_core.errors import CheckpointError, DataError, unknown_name

CROP_AREA = 0.9
RESIZES = ("resize-naive", "letterbox", "resize-crop")


@dataclass(frozen=True)
class ImageProcessor:
    """The processor of a checkpoint (`preprocessor_config.json`)."""

    size: int
    """Pixels a side of the towers' input."""
    means: tuple[tuple[float, ...], ...]
    """Of each tower, of RGB in [0, 1]."""
    stds: tuple[tuple[float, ...], ...]
    strategy: str = "resize-naive"
    """What happens to the aspect ratio; see `RESIZES`."""
    center_crop: bool = False
    """Whether to crop to 90 % of the area first, as training-time random crops of 90 % ask for."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, center_crop: bool) -> ImageProcessor:
        strategy = config.get("image_resize_strategy", "resize-naive")
        if strategy not in RESIZES:
            raise CheckpointError(unknown_name("image_resize_strategy", strategy, RESIZES))
        try:
            size = int(config["input_sizes"][0][-1])
            means, stds = (tuple(map(tuple, config[name])) for name in ("means", "stds"))
        except (KeyError, IndexError, TypeError) as error:
            raise CheckpointError(f"preprocessor_config.json lacks or garbles {error}.") from error
        return cls(size=size, means=means, stds=stds, strategy=strategy, center_crop=center_crop)

    def __call__(self, images_BVHWC: Tensor) -> Tensor:
        """uint8 RGB (B, V, H, W, 3) to normalised float32 pixels (B, V, 6, size, size), DINOv2's first.

        Raises `DataError` for other dtypes or shapes.
        """
        check_images(images_BVHWC)
        if self.center_crop:
            images_BVHWC = crop_center(images_BVHWC, self.size)
        if images_BVHWC.shape[2:4] != (self.size, self.size):
            images_BVHWC = self._resize(images_BVHWC)
        towers = zip(self.means, self.stds, strict=True)
        return torch.cat([_normalise(images_BVHWC, mean, std) for mean, std in towers], dim=2)

    def _resize(self, images_BVHWC: Tensor) -> Tensor:
        # The reference pads the images of both towers with the last tower's mean.
        fill = tuple(int(mean * 255) for mean in self.means[-1])
        flat = images_BVHWC.flatten(0, 1).cpu().numpy()
        resized = np.stack([resize(image, self.size, self.strategy, fill) for image in flat])
        return torch.from_numpy(resized).to(images_BVHWC.device).unflatten(0, images_BVHWC.shape[:2])


def _normalise(images_BVHWC: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    mean_C11, std_C11 = (torch.tensor(x, device=images_BVHWC.device)[:, None, None] for x in (mean, std))
    return (images_BVHWC.movedim(-1, 2).float() / 255.0 - mean_C11) / std_C11


def check_images(images_BVHWC: Tensor) -> None:
    shape = tuple(images_BVHWC.shape)
    if images_BVHWC.dtype != torch.uint8 or len(shape) != 5 or shape[-1] != 3:
        raise DataError(
            "The policy sees uint8 RGB images of shape (episodes, views, height, width, 3); "
            f"it was given {str(images_BVHWC.dtype).removeprefix('torch.')} {shape}."
        )


def resize(image_HWC: np.ndarray, size: int, strategy: str, fill: tuple[int, ...]) -> np.ndarray:
    """One uint8 image to size x size with Pillow's bicubic filter, which tensor libraries do not repeat."""
    image = Image.fromarray(image_HWC)
    if strategy == "letterbox":
        side = max(image.size)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        # The reference pads both sides alike, so an odd difference ends one pixel short of square.
        padded = Image.new("RGB", (image.width + 2 * left, image.height + 2 * top), fill)
        padded.paste(image, (left, top))
        image = padded
    if strategy == "resize-crop":
        scale = size / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    elif image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def crop_center(images_BVHWC: Tensor, size: int) -> Tensor:
    """The central 90 % of the area, bilinearly resampled to size x size without antialiasing, uint8.

    Equals the reference's `tf.image.crop_and_resize` path bit for bit: float32, then floor(x · 255.5).
    """
    height, width = images_BVHWC.shape[2:4]
    top, bottom, y_weight = _sample_positions(height, size, images_BVHWC.device)
    left, right, x_weight = _sample_positions(width, size, images_BVHWC.device)
    x_weight, y_weight = x_weight[None, :, None], y_weight[:, None, None]
    rows = []
    for index in (top, bottom):
        line = images_BVHWC[:, :, index].float() * np.float32(1.0 / 255.0).item()
        rows.append(line[:, :, :, left] + (line[:, :, :, right] - line[:, :, :, left]) * x_weight)
    cropped = rows[0] + (rows[1] - rows[0]) * y_weight
    return (cropped.clamp(0.0, 1.0) * 255.5).to(torch.uint8)


def _sample_positions(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    side = np.float32(math.sqrt(np.float32(CROP_AREA)))
    start = (np.float32(1.0) - side) / np.float32(2.0)
    step = (start + side - start) * np.float32(length - 1) / np.float32(size - 1)
    position = start * np.float32(length - 1) + np.arange(size, dtype=np.float32) * step
    lower = np.floor(position)
    index = torch.from_numpy(lower.astype(np.int64)).to(device)
    upper = torch.from_numpy(np.ceil(position).astype(np.int64)).clamp(max=length - 1).to(device)
    return index, upper, torch.from_numpy(position - lower).to(device)
