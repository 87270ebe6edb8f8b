"""Crops and pixel values equal the reference's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gymnast_core.errors import CheckpointError, DataError
from gymnast_openvla_oft.images import ImageProcessor, crop_center


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
    with pytest.raises(CheckpointError, match="Did you mean 'letterbox'"):
        processor(golden, 56, image_resize_strategy="leterbox")
