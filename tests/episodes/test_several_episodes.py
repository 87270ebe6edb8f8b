"""Several datasets as one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import v21

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
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


def recordings(folder: Path) -> list[dict[str, Any]]:
    """Two runs' recordings, as `gymnast collect` names them: RUN/episodes."""
    found = [v21(folder / run / "episodes") for run in ("morning", "evening")]
    return [{"name": "lerobot", "args": {"path": str(path), "window": None}} for path in found]


def of(*parts: dict[str, Any], **args: Any) -> dict[str, Any]:
    return {"name": "several-episodes", "args": {"of": list(parts), **args}}


def starts(episodes: dict[str, Any], **args: Any) -> ComponentConfig:
    return ComponentConfig("episode-starts", {"episodes": episodes, **args})


def test_recordings_in_folders_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    morning, evening = recordings(tmp_path)
    names = [f"episodes/{i:06d}" for i in range(3)]
    both = of(morning, evening)
    episodes = compose.registries().datasets.build("several-episodes", both["args"]).episodes()
    assert [episode.id for episode in episodes] == list(episodes.ids) == names + [f"{name}#2" for name in names]
    assert list(episodes.frames) == [7, 12, 5] * 2
    for args in ({}, {"keyframe": 0.5}, {"keyframe": 2}, {"branches": 2}):
        tasks = compose.load_tasks(starts(both, **args))
        assert [task.id for task in tasks] == list(tasks.ids) and len(set(tasks.ids)) == len(tasks)
    # By starts, the same; and within others, for whom "#2" is taken.
    tasks = compose.load_tasks(ComponentConfig(**of(*(asdict(starts(part)) for part in (morning, evening)))))
    assert [task.id for task in tasks][2:4] == ["episodes/000002", "episodes/000000#2"]
    noon = {"name": "lerobot", "args": {"path": str(v21(tmp_path / "noon" / "episodes"))}}
    three = compose.load_tasks(starts(of(morning, evening, noon)))
    assert list(three.ids)[5:7] == ["episodes/000002#2", "episodes/000000#3"]
    nested = compose.load_tasks(starts(of(both, noon)))
    assert list(nested.ids)[3:7] == [f"{name}#2" for name in names] + ["episodes/000000#3"]


def test_crops_of_recordings_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    parts = [{**part, "args": {**part["args"], "window": 5, "crops": crops}} for part, crops in
             zip(recordings(tmp_path), ("all", "first"), strict=True)]  # fmt: skip
    episodes = compose.registries().datasets.build("several-episodes", of(*parts)["args"]).episodes()
    assert [episode.id for episode in episodes] == list(episodes.ids) and len(set(episodes.ids)) == 3 + 8 + 1 + 3
    assert list(episodes.ids)[-3:] == [f"episodes/{i:06d}/0#2" for i in range(3)]


def test_ids_of_distinct_recordings_stay_as_they_are(tmp_path: Path) -> None:
    morning, _ = recordings(tmp_path)
    other = {"name": "lerobot", "args": {"path": str(v21(tmp_path / "play"))}}
    parts = [{**morning, "args": {**morning["args"], "part": part, "validation_fraction": 0.34}}
             for part in ("train", "validation")]  # fmt: skip
    tasks = compose.load_tasks(starts(of(*parts, other)))
    assert sorted(tasks.ids) == [f"{name}/{i:06d}" for name in ("episodes", "play") for i in range(3)]


def test_what_is_listed_twice_is_one_start_and_refused_as_tasks(tmp_path: Path) -> None:
    morning, _ = recordings(tmp_path)
    train = {**morning, "args": {**morning["args"], "part": "train", "validation_fraction": 0.34}}
    for episodes in (of(morning, morning), of(morning, train), of(morning, times=[2])):
        with pytest.raises(DataError, match=r"Two tasks of the dataset 'episode-starts' \(tasks\) have the id"):
            compose.load_tasks(starts(episodes))


def test_lengths_are_known_only_where_all_are() -> None:
    assert several({"frames": None}, {}).episodes().frames is None


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="`of` is empty"):
        several()
    with pytest.raises(ConfigError, match="`times` has 1 numbers and `of` 2"):
        several({}, {}, times=[3])
