"""Several datasets as one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins import compose
from gymnast_core.types import Episode, one_camera
from gymnast_episodes.crops import Lazy
from gymnast_episodes.several import SeveralEpisodes


class Numbered(Dataset):
    """Episodes called after themselves."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        name: str = "a"
        count: int = 2
        frames: int | None = 3

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Lazy[Episode]:
        frames = one_camera(torch.zeros(self.config.frames or 3, 4, 4, 3, dtype=torch.uint8))
        made = Lazy(
            self.config.count, lambda i: Episode(f"{self.config.name}{i}", "", frames, torch.zeros(len(frames) - 1, 2))
        )
        made.frames = self.config.frames
        return made


@pytest.fixture(autouse=True)
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = compose.registries().datasets
    build = type(datasets).build
    own = lambda self, name, args=None, **how: (  # noqa: E731
        Numbered(Numbered.Config(**(args or {}))) if name == "numbered" else build(self, name, args, **how)
    )
    monkeypatch.setattr(type(datasets), "build", own)


def several(*args: dict, times: list[int] | None = None) -> SeveralEpisodes:
    return SeveralEpisodes(SeveralEpisodes.Config([ComponentConfig("numbered", a) for a in args], times or []))


def test_their_tasks_one_after_another_once() -> None:
    parts = [ComponentConfig("tabletop", {"count": 2, "image_size": 8, "n_blocks": blocks}) for blocks in (2, 3)]
    tasks = SeveralEpisodes(SeveralEpisodes.Config(parts)).tasks()
    assert len(tasks) == len({task.id for task in tasks}) == 4
    assert [task.id.split("/")[1] for task in tasks] == ["2", "2", "3", "3"] and tasks[-1].id == tasks[3].id
    with pytest.raises(ConfigError, match="not tasks"):
        SeveralEpisodes(SeveralEpisodes.Config(parts, [1, 2])).tasks()


def test_one_after_another_as_often_as_asked() -> None:
    episodes = several({"name": "a"}, {"name": "b", "count": 1, "frames": 5}, times=[1, 2]).episodes()
    assert [episode.id for episode in episodes] == ["a0", "a1", "b0", "b0"]
    assert episodes[-1].id == "b0" and episodes[1].id == "a1"
    assert list(episodes.frames) == [3, 3, 5, 5]


def test_lengths_are_known_only_where_all_are() -> None:
    assert several({"frames": None}, {}).episodes().frames is None


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="`of` is empty"):
        several()
    with pytest.raises(ConfigError, match="`times` has 1 numbers and `of` 2"):
        several({}, {}, times=[3])
