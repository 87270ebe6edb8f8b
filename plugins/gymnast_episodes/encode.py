"""Frames to H.264, for storage rather than for looking at: full colour, (near-)lossless, quick to seek in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import VideoReformatter
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError, unknown_name

PIXEL_FORMATS = ("yuv444p", "yuv420p", "rgb24")
_QUALITY = "12"
"""x264's constant rate factor: PSNR above 40 dB on the Bridge data."""
_KEY_FRAMES = "10"
"""Frames from one key frame to the next: what a random access has to decode at most."""


def encode_video(path: Path, frames_THWC: Tensor, fps: float, pixel_format: str) -> None:
    """Write uint8 RGB frames (T, H, W, 3) as H.264 at `fps` frames a second; as rgb24 without any loss.

    No frame refers to a later one, so that the videos can be joined and cut at key frames. Raises `DataError` if the
    file cannot be written.
    """
    if pixel_format not in PIXEL_FORMATS:
        raise ConfigError(unknown_name("pixel format", pixel_format, PIXEL_FORMATS))
    _, height, width, _ = frames_THWC.shape
    if pixel_format == "yuv420p" and (height % 2 or width % 2):
        raise DataError(f"yuv420p needs even sides; the frames are {height}x{width}. Use --pixel-format yuv444p.")
    lossless = pixel_format == "rgb24"
    options = {"crf": "0" if lossless else _QUALITY, "preset": "medium", "bf": "0", "g": _KEY_FRAMES}
    with _writing(path) as container:
        stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        # Small frames are converted several times faster by one thread than by all.
        converter = VideoReformatter()
        for frame_HWC in frames_THWC.cpu().contiguous().numpy():
            picture = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            container.mux(stream.encode(converter.reformat(picture, format=pixel_format, threads=1)))
        container.mux(stream.encode())


def join_videos(parts: Sequence[Path], path: Path, fps: float) -> None:
    """Put videos that `encode_video` wrote at the same size and rate one after the other, without encoding anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with _writing(path) as out:
        target: Any = None
        for part in parts:
            with av.open(str(part)) as container:
                source: Any = container.streams.video[0]
                target = target or out.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.pts is None or packet.dts is None:
                        continue  # the flush at the end
                    shift = round(written / rate(fps) / source.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = target
                    out.mux(packet)
                written += source.frames


def rate(fps: float) -> Fraction:
    """Frames a second as a ratio of small numbers, which containers can hold."""
    return Fraction(fps).limit_denominator(1001)


@contextmanager
def _writing(path: Path) -> Iterator[Any]:
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"Cannot write the video {path}: {error}.") from error
