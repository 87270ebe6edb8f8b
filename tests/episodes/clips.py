"""Small videos and episodes whose every frame can be told from the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode

BRIDGE = Path(__file__).parents[1] / "golden" / "episodes" / "bridge"


def picture(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A moving gradient with a block, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 4 + number * 3, y * 5 + number, (x + y) * 2 - number], axis=-1) % 256
    left = (number * 11) % (width - 16)
    image[8:24, left : left + 16] = [250, 30, 60]
    return image.astype(np.uint8)


def pictures(count: int, first: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    return np.stack([picture(first + i, height, width) for i in range(count)])


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it a real-time one where it may (as root), and leaves it so: all that this
    process and its children do later would keep other processes from the core."""
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    *,
    fps: int = 10,
    times: list[int] | None = None,
    **options: str,
) -> Path:
    """Any codec and options of PyAV, independent of the project's own writer; `times` in hundredths of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with scheduling_kept(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = times[i], stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> np.ndarray:
    """Every frame, decoded from the beginning in one go."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def episodes_of(dataset: str, **args: object):
    return registries().datasets.build(dataset, args).episodes()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """The worst frame's, in dB."""
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return float((10 * torch.log10(255**2 / error.clamp(min=1e-9))).min())


def nearest(frames: torch.Tensor, originals: np.ndarray) -> list[int]:
    """Which of the originals each frame resembles most."""
    return torch.cdist(frames.flatten(1).float(), torch.from_numpy(originals).flatten(1).float()).argmin(1).tolist()


def same_episode(a: Episode, b: Episode) -> None:
    assert a.instruction == b.instruction
    assert torch.equal(a.actions_TA, b.actions_TA)
    assert a.cameras == b.cameras and torch.equal(a.frames_TVHWC, b.frames_TVHWC)
