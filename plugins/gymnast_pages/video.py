"""Frames to what people look at: browser-playable video, poster images, and film strips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.runs.atomic import replacing

Frames = Tensor | NDArray[np.uint8]

FRAMES_PER_SECOND = 10
"""Control steps shown a second."""
MIN_PIXELS = 256
"""Shorter side of a written video, below which browsers blur the frames when they scale them."""


def side_by_side(frames_TVHWC: Tensor) -> Tensor:
    """The frames of all cameras in one picture, the main camera leftmost: uint8 (T, H, V·W, C)."""
    return torch.cat(frames_TVHWC.unbind(dim=1), dim=2)


def write_video(frames_THWC: Frames, path: Path, *, fps: int = FRAMES_PER_SECOND, min_pixels: int = MIN_PIXELS) -> Path:
    """Write uint8 RGB frames as the H.264 (yuv420p, index first) that browsers play; the file appears whole.

    Frames are scaled up by a whole factor without smoothing until the shorter side has `min_pixels`, and
    padded to even sides. Raises `DataError` if the frames are not uint8 (T >= 1, H, W, 3).
    """
    video_THWC = _even(_enlarge(_as_array(frames_THWC), min_pixels))
    _, height, width, _ = video_THWC.shape
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "24", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame_HWC in video_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_poster(frames_THWC: Frames, path: Path, *, min_pixels: int = MIN_PIXELS) -> Path:
    """Write the last frame, which shows the outcome, as JPEG at the size of the video."""
    image_HWC = _even(_enlarge(_as_array(frames_THWC)[-1:], min_pixels))[0]
    with replacing(path) as temporary:
        Image.fromarray(image_HWC).save(temporary, format="JPEG", quality=80)
    return path


def strip(rows: Sequence[Frames], captions: Sequence[str], *, columns: int = 8, min_pixels: int = 128) -> Image.Image:
    """Draw one row of `columns` evenly spaced frames per video under its caption, e.g. imagined above real.

    Each row holds uint8 RGB frames (T, H, W, 3) of one size; first and last frame are always
    shown. Rows with equal T show the same time steps in the same column.
    """
    if not rows or len(rows) != len(captions):
        raise DataError(f"A strip needs one caption per row; got {len(rows)} rows and {len(captions)} captions.")
    pictures = [_row(_as_array(frames), columns, min_pixels) for frames in rows]
    font = ImageFont.load_default(size=15)
    gap, caption_height = 8, 24
    width = max(picture.width for picture in pictures) + 2 * gap
    height = sum(picture.height + caption_height for picture in pictures) + gap
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    top = 0
    for picture, caption in zip(pictures, captions, strict=True):
        draw.text((gap, top + 3), caption, fill="#1b1f24", font=font)
        canvas.paste(picture, (gap, top + caption_height))
        top += caption_height + picture.height
    return canvas


def _row(frames_THWC: NDArray[np.uint8], columns: int, min_pixels: int) -> Image.Image:
    shown = np.linspace(0, len(frames_THWC) - 1, min(columns, len(frames_THWC))).round().astype(int)
    large_THWC = _enlarge(frames_THWC[shown], min_pixels)
    _, height, width, _ = large_THWC.shape
    gap = 2
    row = Image.new("RGB", (len(shown) * (width + gap) - gap, height), "white")
    for column, frame_HWC in enumerate(large_THWC):
        row.paste(Image.fromarray(frame_HWC), (column * (width + gap), 0))
    return row


def _as_array(frames_THWC: Frames) -> NDArray[np.uint8]:
    array = frames_THWC.detach().cpu().numpy() if isinstance(frames_THWC, Tensor) else np.asarray(frames_THWC)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape:
        raise DataError(
            f"A video needs uint8 RGB frames (T, H, W, 3) with T >= 1; got {array.dtype} {array.shape}. "
            "Convert float frames with (frames * 255).round().astype('uint8')."
        )
    return array


def _enlarge(frames_THWC: NDArray[np.uint8], min_pixels: int) -> NDArray[np.uint8]:
    factor = max(1, math.ceil(min_pixels / min(frames_THWC.shape[1:3])))
    return frames_THWC.repeat(factor, axis=1).repeat(factor, axis=2)


def _even(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, height, width, _ = frames_THWC.shape
    return np.pad(frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
