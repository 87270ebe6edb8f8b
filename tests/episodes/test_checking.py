"""`skip_bad`: what is read, how often, and what is told meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import encode, episodes_of, pictures

from gymnast_episodes import checking, crops, worldgym
from gymnast_episodes.checking import checks_put_off


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        encode(tmp_path / f"e{i}.mp4", pictures(5, 9 * i), fps=10)
        np.savez(tmp_path / f"e{i}.npz", np.zeros((5, 10)))
    (tmp_path / "e2.mp4").write_bytes(b"no video")
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """Names of the videos that are decoded."""
    names: list[str] = []
    honest = worldgym.read_frames

    def counted(path, *range_):
        names.append(path.stem)
        return honest(path, *range_)

    monkeypatch.setattr(worldgym, "read_frames", counted)
    monkeypatch.setattr(checking, "_remembered", {})
    return names


def read(folder, **args):
    return episodes_of("worldgym-episodes", path=str(folder), instruction="x", **{"skip_bad": True, **args})


def names_of(episodes):
    return [episode.id.rpartition("/")[2] for episode in episodes]


def test_a_check_reads_every_episode_once_whoever_asks_again(folder, reads):
    read(folder)
    assert reads == ["e0", "e1", "e3"]
    for args in ({}, {"window": 3}, {"part": "train"}, {"crops": "one", "seed": 5}):
        read(folder, **args)
    assert reads == ["e0", "e1", "e3"]
    read(folder, image_size=[16, 16])  # read otherwise: another question
    assert len(reads) == 6


def test_a_file_that_has_changed_is_checked_again(folder, reads):
    assert len(read(folder)) == 3
    encode(folder / "e2.mp4", pictures(5), fps=10)
    assert len(read(folder)) == 4
    assert reads == ["e0", "e1", "e3", "e2"]
    (folder / "e0.npz").write_bytes(b"")
    assert names_of(read(folder)) == ["e1", "e2", "e3"]


def test_who_reads_every_episode_anyway_puts_the_check_off(folder, reads):
    with checks_put_off():
        episodes = read(folder)
    assert reads == [] and len(episodes) == 4 and episodes.unchecked
    assert not read(folder).unchecked


def test_progress_is_told_with_the_time_left(folder, reads, caplog, monkeypatch):
    monkeypatch.setattr(checking, "SECONDS_BETWEEN_LINES", 0.0)
    read(folder)
    assert f"{folder.name}: 3 of 4 episodes checked (skip_bad reads each one once), " in caplog.text
    assert " a second, 0 s left." in caplog.text
    assert "4 episodes checked (skip_bad reads each one once) in 0 s" in caplog.text
    caplog.clear()
    read(folder, skip_bad=False)
    assert caplog.text == ""


def test_metadata_that_promises_more_frames_than_memory_can_number():
    lengths = np.array([2**40, 5, 2**40])
    selection = crops.Selection(window=3)
    many = crops.Crops(_Nothing(), np.arange(3), lengths, selection, np.zeros(3))
    assert len(many) == 2 * (2**40 - 2) + 3
    assert [many[i] for i in (0, 2**40 - 3, 2**40 - 2, 2**40, 2**40 + 1, -1)] == [
        (0, 0, 3), (0, 2**40 - 3, 2**40), (1, 0, 3), (1, 2, 5), (2, 0, 3), (2, 2**40 - 3, 2**40),
    ]  # fmt: skip


class _Nothing:
    name, root = "nothing", Path("nothing")

    def label(self, episode):
        return str(episode)

    def read(self, episode, start, stop, id):
        return episode, start, stop
