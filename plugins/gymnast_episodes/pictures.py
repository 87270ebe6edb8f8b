"""Pictures as files or bytes (PNG, JPEG, …) to RGB, as every viewer shows them, or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading

_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes whose levels become RGB without loss of range."""


def read_picture(content: bytes | Path, what: str, advice: str = REPAIR, *, alpha: bool = False) -> NDArray[np.uint8]:
    """A picture, uint8 RGB (H, W, 3), with `alpha` RGBA (H, W, 4), upright (EXIF orientation); `what` names it in
    errors.

    Raises `DataError` for a damaged picture, and for one of more than 8 bits a pixel without colours (depth): cut to 8
    bits it would be white. FileNotFoundError passes.
    """
    with reading(what, advice), Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
        if image.mode not in _EIGHT_BITS:
            raise DataError(
                f"{what} has pixels of the kind {image.mode!r}, with a range beyond 8 bits, as depth has; only "
                "pictures of 8 bits a colour can be shown to a model. Choose other cameras, or write it anew with "
                "levels 0 to 255."
            )
        return np.array(ImageOps.exif_transpose(image).convert("RGBA" if alpha else "RGB"))
