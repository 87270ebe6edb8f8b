"""What browsers and readers get from frames."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_pages.video import strip, write_poster, write_video


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.codec_context, float(stream.average_rate), np.stack(frames)


def test_a_video_is_browser_playable_h264_with_every_frame(tmp_path):
    frames_THWC = torch.zeros(9, 48, 64, 3, dtype=torch.uint8)
    for time in range(9):
        frames_THWC[time, :, :, time % 3] = 200
    path = write_video(frames_THWC, tmp_path / "deep" / "a.mp4", fps=5)
    codec, rate, shown_THWC = decode(path)
    assert (codec.name, codec.pix_fmt, rate) == ("h264", "yuv420p", 5.0)
    assert shown_THWC.shape == (9, 288, 384, 3)
    small_THWC = shown_THWC[:, 3::6, 3::6].astype(int)
    assert np.abs(small_THWC - frames_THWC.numpy()).mean() < 8
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_the_index_comes_before_the_pictures(tmp_path):
    content = write_video(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("height, width", [(255, 301), (300, 257), (1, 1)])
def test_odd_sizes_are_padded_to_even_ones(tmp_path, height, width):
    frames_THWC = torch.randint(0, 255, (2, height, width, 3), dtype=torch.uint8)
    _, _, shown_THWC = decode(write_video(frames_THWC, tmp_path / "a.mp4"))
    assert shown_THWC.shape[1] % 2 == shown_THWC.shape[2] % 2 == 0
    assert min(shown_THWC.shape[1:3]) >= 256


@pytest.mark.parametrize(
    "shape, dtype", [((4, 8, 8, 3), torch.float32), ((8, 8, 3), torch.uint8), ((0, 8, 8, 3), torch.uint8)]
)
def test_what_is_no_video_is_refused_without_leaving_a_file(tmp_path, shape, dtype):
    with pytest.raises(DataError, match="uint8 RGB frames"):
        write_video(torch.zeros(shape, dtype=dtype), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_the_poster_is_the_last_frame(tmp_path):
    frames_THWC = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    frames_THWC[-1] = 250
    image = Image.open(write_poster(frames_THWC, tmp_path / "a.jpg"))
    assert image.size == (256, 256)
    assert np.asarray(image).mean() > 245


def test_a_strip_shows_first_and_last_frame_of_each_row():
    frames_THWC = torch.zeros(10, 32, 32, 3, dtype=torch.uint8)
    frames_THWC[0], frames_THWC[-1] = 77, 199
    image = strip([frames_THWC, frames_THWC], ["imagined", "real"], columns=4, min_pixels=64)
    pixels = np.asarray(image)
    assert image.width == 4 * 64 + 3 * 2 + 2 * 8
    assert (pixels[24 + 32, 8 + 32] == 77).all()
    assert (pixels[-8 - 32, -8 - 32] == 199).all()
    with pytest.raises(DataError, match="one caption per row"):
        strip([frames_THWC], [])
