"""From camera frames to what the towers read: centre crop, resize and normalise, as the reference does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.reading import JsonObject, as_object
from gymnast_openvla_oft.jpeg import jpeg_round_trip

CROP_AREA = 0.9
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
COLOURS = {"means": (IMAGENET[0], HALF), "stds": (IMAGENET[1], HALF)}
"""What DINOv2 and SigLIP were trained with (timm's `data_config`)."""
ROUNDING = 4e-3
"""Published files hold these numbers in bfloat16."""
MAX_SIDE = 4096
RESIZES = ("resize-naive", "letterbox", "resize-crop")
PREPARATIONS = ("none", "jpeg-lanczos", "libero")
"""What happened to the frames that a model was trained on before anything else; see `ImageProcessor.preparation`."""


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
    preparation: str = "none"
    """Before the crop: "none" (Bridge, World-Gymnast); "jpeg-lanczos", a JPEG round trip and Lanczos resize to `size`
    (ALOHA); "libero", the same after a rotation by 180°, because LIBERO's camera is upside down."""

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        center_crop: bool,
        preparation: str = "none",
        where: str = "preprocessor_config.json",
    ) -> ImageProcessor:
        """Raises `CheckpointError` for a file (`where`) that describes another processor than the towers were trained
        with."""
        if preparation not in PREPARATIONS:
            raise ConfigError(unknown_name("preparation", preparation, PREPARATIONS))
        stated = as_object(config, where, CheckpointError)
        strategy = stated.text("image_resize_strategy", RESIZES, default="resize-naive")
        if not stated.flag("use_fused_vision_backbone", default=True):
            stated.refuse("use_fused_vision_backbone", "is false; the network has two vision towers")
        if stated.values.get("interpolations", ["bicubic"] * 2) != ["bicubic"] * 2:
            stated.refuse("interpolations", f"is {stated['interpolations']}; images are resized bicubically here")
        size = input_size(stated)
        means, stds = (_colours(stated, name) for name in ("means", "stds"))
        return cls(size, means, stds, strategy=strategy, center_crop=center_crop, preparation=preparation)

    def __call__(self, images_BVHWC: Tensor) -> Tensor:
        """uint8 RGB (B, V, H, W, 3) to normalised float32 pixels (B, V, 6, size, size), DINOv2's first.

        Raises `DataError` for other dtypes or shapes.
        """
        images_BVHWC = self.prepare(images_BVHWC)
        if self.center_crop:
            images_BVHWC = crop_center(images_BVHWC, self.size)
        return self.finish(images_BVHWC)

    def prepare(self, images_BVHWC: Tensor) -> Tensor:
        """What comes before any crop: `preparation`, on uint8 images."""
        check_images(images_BVHWC)
        if self.preparation == "none":
            return images_BVHWC
        rotate = self.preparation == "libero"
        return _each(images_BVHWC, lambda image: jpeg_lanczos(image, self.size, rotate=rotate))

    def finish(self, images_BVHWC: Tensor) -> Tensor:
        """What comes after a crop, central or random: resize and normalise."""
        if images_BVHWC.shape[2:4] != (self.size, self.size):
            images_BVHWC = self._resize(images_BVHWC)
        towers = zip(self.means, self.stds, strict=True)
        return torch.cat([_normalise(images_BVHWC, mean, std) for mean, std in towers], dim=2)

    def _resize(self, images_BVHWC: Tensor) -> Tensor:
        # The reference pads the images of both towers with the last tower's mean.
        fill = tuple(int(mean * 255) for mean in self.means[-1])
        return _each(images_BVHWC, lambda image: resize(image, self.size, self.strategy, fill))


def input_size(stated: JsonObject) -> int:
    """Pixels a side that a `preprocessor_config.json` makes of an image, for both towers alike."""
    sizes = stated["input_sizes"]
    side = sizes[0][-1] if isinstance(sizes, list) and sizes and isinstance(sizes[0], list) and sizes[0] else None
    if type(side) is not int or not 1 <= side <= MAX_SIDE or sizes != [[3, side, side]] * 2:
        stated.refuse(
            "input_sizes", f"is {sizes}; it must be [3, side, side] for each of two vision towers, side alike"
        )
    return side


def _colours(stated: JsonObject, name: str) -> tuple[tuple[float, ...], ...]:
    """The mean or deviation of red, green and blue for each tower, which are those that the tower was trained with."""
    towers = stated[name]
    if not isinstance(towers, list) or len(towers) != len(COLOURS[name]):
        stated.refuse(name, f"must have one list of three numbers for each of {len(COLOURS[name])} vision towers")
    found = []
    for i, (colours, wanted) in enumerate(zip(towers, COLOURS[name], strict=True)):
        tower = JsonObject({f"{name}[{i}]": colours}, stated.place, CheckpointError)
        numbers = tower.numbers(f"{name}[{i}]", Range(least=0, most=1), length=3)
        if max(abs(x - y) for x, y in zip(numbers, wanted, strict=True)) > ROUNDING:
            tower.refuse(f"{name}[{i}]", f"is {numbers}, but this vision tower was trained with {list(wanted)}")
        found.append(tuple(numbers))
    return tuple(found)


def _each(images_BVHWC: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    flat = images_BVHWC.flatten(0, 1).cpu().numpy()
    changed = np.stack([change(image) for image in flat])
    return torch.from_numpy(changed).to(images_BVHWC.device).unflatten(0, images_BVHWC.shape[:2])


def _normalise(images_BVHWC: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    mean_C11, std_C11 = (torch.tensor(x, device=images_BVHWC.device)[:, None, None] for x in (mean, std))
    return (images_BVHWC.movedim(-1, 2).float() / 255.0 - mean_C11) / std_C11


def check_images(images_BVHWC: Tensor) -> None:
    shape = tuple(images_BVHWC.shape)
    if images_BVHWC.dtype != torch.uint8 or len(shape) != 5 or shape[-1] != 3 or 0 in shape[1:4]:
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


def jpeg_lanczos(image_HWC: np.ndarray, size: int, *, rotate: bool) -> np.ndarray:
    """One uint8 image as LIBERO and ALOHA models want it: to JPEG and back, then Lanczos to size x size."""
    image_HWC = jpeg_round_trip(image_HWC[::-1, ::-1] if rotate else image_HWC)
    # Not Pillow's filter, which rounds and clips between the two axes.
    rows, columns = (_lanczos(length, size) for length in image_HWC.shape[:2])
    resized = np.moveaxis(columns @ (rows @ image_HWC.transpose(2, 0, 1)).swapaxes(1, 2), 0, -1).swapaxes(0, 1)
    return resized.round().clip(0, 255).astype(np.uint8)


def _lanczos(length: int, size: int) -> np.ndarray:
    """Antialiased Lanczos3 weights, (size, length)."""
    scale = length / size
    centers = (np.arange(size) + 0.5) * scale - 0.5
    distance = (np.arange(length) - centers[:, None]) / max(scale, 1.0)
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    return weights / weights.sum(1, keepdims=True)


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
