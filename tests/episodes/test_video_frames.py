"""Frames of a video by index: exact, and never more of the file than needed."""

from __future__ import annotations

import itertools
import os

import av
import numpy as np
import pytest
from clips import decode_all, encode, pictures

from gymnast_core.errors import DataError
from gymnast_episodes.video import read_frames, video_index

VIDEOS = {
    "b-frames, several key frames": {"g": "8", "bf": "3", "preset": "medium"},
    "open groups of pictures": {"g": "6", "bf": "2", "x264-params": "open-gop=1:scenecut=0"},
    "one key frame": {"g": "250", "bf": "3"},
    "only key frames": {"g": "1"},
}


@pytest.fixture(scope="module", params=VIDEOS, ids=lambda name: name.replace(" ", "-"))
def video(request, tmp_path_factory):
    path = encode(tmp_path_factory.mktemp("video") / "video.mp4", pictures(30), **VIDEOS[request.param])
    return path, decode_all(path)


def test_any_range_equals_a_full_decode(video):
    path, full_THWC = video
    assert len(video_index(path)) == len(full_THWC) == 30
    for start, stop in itertools.combinations((0, 1, 5, 6, 7, 8, 11, 12, 13, 18, 24, 29, 30), 2):
        np.testing.assert_array_equal(read_frames(path, start, stop), full_THWC[start:stop])
    np.testing.assert_array_equal(read_frames(path), full_THWC)


@pytest.mark.parametrize("codec", ["mpeg4", "libx265", "libsvtav1"])
def test_other_codecs(tmp_path, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"mpeg4": {"g": "5", "bf": "2"}, "libx265": {"x265-params": "keyint=5:log-level=none"}}
    scheduling = getattr(os, "sched_getscheduler", lambda _: None)(0)
    path = encode(tmp_path / "video.mp4", pictures(16, height=64, width=64), codec, **options.get(codec, {"g": "5"}))
    assert getattr(os, "sched_getscheduler", lambda _: None)(0) == scheduling
    full_THWC = decode_all(path)
    for start, stop in ((0, 16), (4, 6), (5, 6), (7, 12), (15, 16)):
        np.testing.assert_array_equal(read_frames(path, start, stop), full_THWC[start:stop])


def test_irregular_times(tmp_path):
    times = [0, 3, 4, 11, 30, 31, 50, 90, 91, 92, 150, 151]
    path = encode(tmp_path / "video.mp4", pictures(12), times=times, g="4", bf="2")
    index = video_index(path)
    assert [round(100 * index.seconds(i)) for i in range(12)] == times
    assert [index.frame_at(t) for t in (0.0, 0.034, 0.31, 0.7001, 9.0)] == [0, 1, 5, 7, 11]
    np.testing.assert_array_equal(read_frames(path, 3, 9), decode_all(path)[3:9])


def test_only_the_packets_from_the_key_frame_on_are_decoded(tmp_path):
    path = encode(tmp_path / "video.mp4", pictures(32), g="8", bf="2", **{"x264-params": "scenecut=0"})
    full_THWC = decode_all(path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    damaged = bytearray(path.read_bytes())
    for position, size in packets[:8]:
        damaged[position + 5 : position + size] = bytes(size - 5)
    path.write_bytes(damaged)
    np.testing.assert_array_equal(read_frames(path, 9, 32), full_THWC[9:32])
    with pytest.raises(DataError, match=r"video\.mp4"):
        read_frames(path, 0, 3)


def test_a_damaged_frame_spoils_those_built_on_it(tmp_path):
    path = encode(tmp_path / "video.mp4", pictures(20), g="20", bf="0", sc_threshold="0")
    with av.open(str(path)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][4]
    damaged = bytearray(path.read_bytes())
    for offset in range(12, size):
        damaged[position + offset] ^= 0x55
    path.write_bytes(damaged)
    assert read_frames(path, 0, 4).shape[0] == 4
    with pytest.raises(DataError, match="Copy or download it again"):
        read_frames(path, 8, 12)


def _faststart_cut(path):
    encode(path, pictures(20))
    with av.open(str(path)) as source, av.open(str(path) + ".2", "w", "mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = path.with_name(path.name + ".2").read_bytes()
    path.write_bytes(content[: len(content) - len(content) // 3])


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(encode(path, pictures(20)).read_bytes()[:-400]),
    "truncated with its index first": _faststart_cut,
    "text": lambda path: path.write_text("no video " * 100),
    "missing": lambda path: None,
    "sound only": lambda path: _sound(path),
}


def _sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, kind):
    path = tmp_path / "some video.mp4"
    BROKEN[kind](path)
    with pytest.raises(DataError, match=r"some video\.mp4"):
        read_frames(path, 0, 1)


def test_more_frames_than_there_are(tmp_path):
    path = encode(tmp_path / "video.mp4", pictures(5))
    with pytest.raises(DataError, match="has 5 frames; frames 3 to 7 were asked for"):
        read_frames(path, 3, 8)


def test_a_replaced_file_is_read_anew(tmp_path):
    path = encode(tmp_path / "video.mp4", pictures(5))
    assert len(video_index(path)) == 5
    encode(path, pictures(9))
    assert len(video_index(path)) == 9
