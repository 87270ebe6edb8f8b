"""Crops and pixel values equal the reference's."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gymnast_core.errors import CheckpointError, DataError
from gymnast_openvla_oft.images import ImageProcessor, crop_center, jpeg_lanczos
from gymnast_openvla_oft.jpeg import jpeg_round_trip


def archive(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x) for name, x in np.load(path).items()}


def processor(golden: Path, size: int, **changes: object) -> ImageProcessor:
    config = json.loads((golden / "tiny_ckpt" / "preprocessor_config.json").read_text())
    config |= {"input_sizes": [[3, size, size]] * 2, **changes}
    return ImageProcessor.from_config(config, center_crop=False)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_center_crop_is_bit_exact(golden: Path, index: int) -> None:
    images = archive(golden / "image_crop.npz")
    cropped = crop_center(images[f"image{index}"][None, None], 224)[0, 0]
    assert torch.equal(cropped, images[f"center_crop_224_{index}"])


def test_rounding_to_uint8_is_bit_exact(golden: Path) -> None:
    """The reference's rule, floor(x * 255.5), as the crop applies it to constant images."""
    images = archive(golden / "image_crop.npz")
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None, None].expand(256, 1, 4, 4, 3)
    assert torch.equal(crop_center(levels, 4), levels)
    found = (images["float_to_uint8_in"].clamp(0.0, 1.0) * 255.5).to(torch.uint8)
    assert torch.equal(found, images["float_to_uint8_out"])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_jpeg_and_lanczos(golden: Path, index: int) -> None:
    """Within one level (Lanczos), and 14 from it without the JPEG round trip; image 1 has the size already: exact."""
    images = archive(golden / "image_crop.npz")
    image, wanted = images[f"image{index}"].numpy(), images[f"jpeg_lanczos3_224_{index}"].int()
    found = torch.from_numpy(jpeg_lanczos(image, 224, rotate=False)).int()
    error = (found - wanted).abs()
    assert error.max() <= (0 if index == 1 else 1)
    assert (error > 0).float().mean() < 1e-3
    assert (images[f"lanczos3_nojpeg_224_{index}"].int() - found).abs().max() > 10


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 17), (33, 48)])
def test_jpeg_of_any_size_stays_near_pillow_s(shape: tuple[int, int]) -> None:
    """Another reader of the same format, on smooth pictures whose sides are no multiples of a block."""
    row, column = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    image = np.stack([128 + 90 * np.sin(row / 9 + i) * np.cos(column / 7) for i in range(3)], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=95, subsampling="4:2:0")
    decoded = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    error = np.abs(jpeg_round_trip(image) - decoded)
    assert jpeg_round_trip(image).shape == image.shape
    assert error.max() <= 6 and error.mean() < 2


@pytest.mark.parametrize("index", [0, 1, 2])
def test_libero_frames_are_turned_first_and_cropped_last(golden: Path, index: int) -> None:
    images = archive(golden / "image_crop.npz")
    config = json.loads((golden / "tiny_ckpt" / "preprocessor_config.json").read_text())
    config |= {"input_sizes": [[3, 224, 224]] * 2}
    libero, plain = (
        ImageProcessor.from_config(config, center_crop=True, preparation=kind) for kind in ("libero", "none")
    )
    upside_down = images[f"image{index}"].flip(0, 1)[None, None]
    wanted = plain(images[f"jpeg_lanczos3_224_{index}"][None, None])
    assert (libero(upside_down) - wanted).abs().max() <= 1.01 / 255 / 0.22
    assert (plain(upside_down) - wanted).abs().mean() > 0.05


@pytest.mark.parametrize("index", [0, 1, 2])
def test_pixel_values(golden: Path, index: int) -> None:
    images, wanted = archive(golden / "image_crop.npz"), archive(golden / "image_pixel_values.npz")
    crop = images[f"center_crop_224_{index}"][None, None]
    for size in (224, 56):
        name = f"pixel_values_{size}_from_crop{index}"
        if name in wanted:
            torch.testing.assert_close(processor(golden, size)(crop)[0], wanted[name], atol=1e-6, rtol=0)
    for strategy in ("resize-naive", "letterbox", "resize-crop"):
        found = processor(golden, 56, image_resize_strategy=strategy)(images[f"image{index}"][None, None])
        name = f"pixel_values_56_{strategy}_from_image{index}"
        torch.testing.assert_close(found[0], wanted[name], atol=1e-6, rtol=0)


def test_model_inputs_from_frames(golden: Path, case: dict[str, Tensor]) -> None:
    found = processor(golden, 56)(case["images_uint8"])
    torch.testing.assert_close(found.flatten(1, 2), case["pixel_values"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 8, 8, 3), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)])
def test_other_dtypes_and_shapes_are_refused(golden: Path, images: Tensor) -> None:
    with pytest.raises(DataError, match="uint8 RGB images of shape"):
        processor(golden, 56)(images)


def test_unknown_strategy_is_named(golden: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"image_resize_strategy is .leterbox.; it must be one of resize-naive",
    ):
        processor(golden, 56, image_resize_strategy="leterbox")
