"""Pictures and videos as every viewer shows them: upright, with their range, or refused."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from clips import decode_all, encode, episodes_of, pictures
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries
from gymnast_episodes.pictures import read_picture
from gymnast_episodes.video import read_frames


def png(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(high: float, kind: type) -> Image.Image:
    return Image.fromarray((np.mgrid[:8, :16][1] * (high / 15)).astype(kind))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pictures_of_more_than_8_bits_are_refused(kind):
    with pytest.raises(DataError, match=r"the depth of a has pixels of the kind '[IF].*Choose other cameras"):
        read_picture(png(gradient(65535, kind), "TIFF"), "the depth of a")
    with pytest.raises(DataError, match=r"has pixels of the kind 'I;16'"):
        read_picture(png(gradient(65535, np.uint16)), "the depth of a")


def test_16_bits_a_colour_are_scaled():
    """A PNG of 16-bit RGB, written by hand: Pillow writes none."""
    import zlib

    levels = (np.mgrid[:4, :16][1] * 4369).astype(">u2")  # 0 … 65535
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, 1).tobytes() for row in levels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 16, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    blocks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    found = read_picture(b"\x89PNG\r\n\x1a\n" + b"".join(blocks), "it")
    np.testing.assert_array_equal(found[..., 0], np.broadcast_to(np.arange(16) * 17, (4, 16)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "RGB"])
def test_all_kinds_of_8_bits_are_read(mode):
    image = Image.fromarray(pictures(1)[0]).convert(mode)
    np.testing.assert_array_equal(read_picture(png(image), "it"), np.array(image.convert("RGB")))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_picture_of_a_camera_held_upright(orientation, turns):
    image, exif = Image.fromarray(pictures(1)[0]), Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_picture(png(image, exif=exif), "it"), np.rot90(pictures(1)[0], turns))


DAMAGE = {
    "cut": lambda data: data[:80],
    "no picture": lambda data: b"hello",
    "nothing": lambda data: b"",
    "bad checksum": lambda data: data[:60] + bytes([data[60] ^ 255]) + data[61:],
    "too large": lambda data: data[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + data[24:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_picture_is_one_error(kind):
    with pytest.raises(DataError, match="Cannot read the picture a") as caught:
        read_picture(DAMAGE[kind](png(Image.fromarray(pictures(1)[0]))), "the picture a")
    assert "\n" not in str(caught.value)


def test_a_trial_with_a_depth_picture_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(png(gradient(65535, np.uint16)))
    (tmp_path / "a.json").write_text('{"instruction": "x"}', encoding="utf-8-sig")
    with pytest.raises(DataError, match=r"a\.png has pixels of the kind"):
        registries().datasets.build("trials", {"path": str(tmp_path)}).tasks()[0]


def test_trials_that_are_left_out_are_named_with_their_fault(tmp_path, caplog):
    contents = {"a": '{"instruction": "x"}', "b": "{", "c": '{"instruction": 5}', "d": "[" * 5000, "e": None}
    contents["f"] = '{"instruction": "x", "partial_credit_criteria": ["y"]}'
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(png(Image.fromarray(pictures(1)[0])))
        (tmp_path / f"._{name}.png").write_bytes(bytes(60))
        if content is not None:
            (tmp_path / f"{name}.json").write_text(content)
    tasks = registries().datasets.build("trials", {"path": str(tmp_path)}).tasks()
    assert [task.id for task in tasks] == ["a"]
    assert "5 of 6 images" in caplog.text
    for words in ("b.json is not valid JSON", "c.json: instruction is 5", "d.json is nested", "e.png has no e.json"):
        assert words in caplog.text
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match=r"found 6 \.png.*b\.json is not valid JSON"):
        registries().datasets.build("trials", {"path": str(tmp_path)})


# Videos: (a, b, c, d) of the display matrix, x' = a x + c y, y' = b x + d y, and what it does to rows and columns.
MATRICES = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose(1, 0, 2),
}


def turned(path, matrix):
    """The file with another matrix in its track header."""
    data, one = bytearray(path.read_bytes()), 0x10000
    unit = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    a, b, c, d = (round(value * one) for value in matrix)
    at = data.find(unit, data.find(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_a_turned_video_is_shown_upright(tmp_path, matrix):
    path = encode(tmp_path / "a.mp4", pictures(4), fps=10)
    plain = decode_all(path)
    shown = read_frames(turned(path, matrix))
    for picture, found in zip(plain, shown, strict=True):
        np.testing.assert_array_equal(found, MATRICES[matrix](picture))


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (2, 0, 0, 1)])
def test_a_video_turned_by_another_angle_is_refused(tmp_path, matrix):
    path = turned(encode(tmp_path / "a.mp4", pictures(4), fps=10), matrix)
    with pytest.raises(DataError, match=r"a\.mp4 is shown turned by a matrix"):
        read_frames(path)


def test_the_rate_of_a_folders_videos_is_its_episodes(tmp_path):
    encode(tmp_path / "a.mp4", pictures(4), fps=24)
    np.savez(tmp_path / "a.npz", np.zeros((4, 10)))
    encode(tmp_path / "b.mp4", pictures(4), times=[0, 10, 50, 60])
    np.savez(tmp_path / "b.npz", np.zeros((4, 10)))
    even, uneven = episodes_of("worldgym-episodes", path=str(tmp_path), instruction="x", robot=None)
    assert even.fps == 24.0 and uneven.fps is None
