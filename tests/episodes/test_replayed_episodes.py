"""Recordings under imagined frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins import compose
from gymnast_core.types import Episode, Offers, Step, Task, one_camera
from gymnast_episodes.replayed import ReplayedEpisodes


class Recorded(Dataset):
    """Five episodes of one to five actions, all of them the episode's number."""

    def episodes(self) -> list[Episode]:
        return [
            Episode(
                f"e{i}", "go", one_camera(torch.full((i + 1, 2, 2, 3), i, dtype=torch.uint8)),
                torch.full((i, 1), float(i)), success=i % 2 == 0, proprio_TP=torch.zeros(i + 1, 2),
            )
            for i in range(1, 6)
        ]  # fmt: skip


@dataclass
class Counting:
    """A world whose picture grows by its action with every step."""

    chunks: list[tuple[int, int]]

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"seen": torch.stack([task.frames_TVHWC[-1] for task in tasks]).float()}

    def step(self, state: dict[str, Tensor], actions_BLA: Tensor) -> Step:
        self.chunks.append((actions_BLA.shape[0], actions_BLA.shape[1]))
        grown = state["seen"][:, None] + actions_BLA.cumsum(1)[:, :, None, None, None]
        state["seen"] = grown[:, -1]
        return Step(grown.to(torch.uint8))


class TwoCameras(Dataset):
    """One episode: the front camera shows 10, the wide one 200."""

    def episodes(self) -> list[Episode]:
        pictures = torch.tensor([10, 200], dtype=torch.uint8)[None, :, None, None, None].expand(3, 2, 2, 2, 3)
        return [Episode("e", "go", pictures.clone(), torch.ones(2, 1), cameras=("front", "wide"))]


class Reversed(Counting):
    """Shows cameras in an order of its own, each as it is at the start."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        super().__init__([])
        self.cameras = cameras

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"seen": torch.stack([torch.stack([t.view(c)[-1] for c in self.cameras]) for t in tasks]).float()}


def given(monkeypatch, world: Counting, recorded: Dataset, offers: Offers) -> None:
    parts = {"recorded": recorded, "counting": world}
    monkeypatch.setattr(type(compose.registries().datasets), "build", lambda self, name, args=None, **how: parts[name])
    monkeypatch.setattr("gymnast_episodes.replayed.offers_of", lambda part: offers)


@pytest.mark.parametrize("cameras", [("wide", "front"), ("front", "wide"), ("wide",)])
def test_each_frame_is_of_the_camera_that_it_is_called_after(cameras: tuple[str, ...], monkeypatch) -> None:
    given(monkeypatch, Reversed(cameras), TwoCameras(), Offers(cameras=cameras))
    config = ReplayedEpisodes.Config(ComponentConfig("recorded"), ComponentConfig("counting"), chunk=2)
    (episode,) = ReplayedEpisodes(config).episodes()
    assert episode.cameras == cameras
    for camera in cameras:
        start = {"front": 10, "wide": 200}[camera]
        assert episode.view(camera)[:, 0, 0, 0].tolist() == [start, start + 1, start + 2]


def test_frames_are_imagined_and_the_rest_is_as_recorded(monkeypatch) -> None:
    world = Counting([])
    given(monkeypatch, world, Recorded(), Offers())
    config = ReplayedEpisodes.Config(ComponentConfig("recorded"), ComponentConfig("counting"), chunk=2, batch_size=3)
    episodes = ReplayedEpisodes(config).episodes()
    for _ in range(2):
        assert [episode.id for episode in episodes] == ["e1", "e2", "e3", "e4", "e5"]
    for episode, recorded in zip(episodes, Recorded().episodes(), strict=True):
        i = len(recorded.actions_TA)
        assert episode.frames_TVHWC[:, 0, 0, 0, 0].tolist() == [i + i * step for step in range(i + 1)]
        assert torch.equal(episode.actions_TA, recorded.actions_TA)
        assert (episode.success, episode.proprio_TP) == (recorded.success, None)
    # Batches of three and two episodes, as long as their longest, in whole chunks.
    assert world.chunks[:5] == [(3, 2), (3, 2), (2, 2), (2, 2), (2, 2)]


def test_whoever_draws_in_any_order_is_told_to_keep_them_first(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    given(monkeypatch, Counting([]), Recorded(), Offers())
    config = ReplayedEpisodes.Config(ComponentConfig("recorded"), ComponentConfig("counting"), batch_size=2)
    episodes = ReplayedEpisodes(config).episodes()
    for _ in range(3):
        assert [episode.id for episode in episodes] == ["e1", "e2", "e3", "e4", "e5"]
    assert not caplog.records
    for index in [0, 4, 1, 3] * 5:
        assert episodes[index].id == f"e{index + 1}"
    (warning,) = caplog.records
    said = warning.getMessage()
    assert "The 5 episodes of replayed-episodes are made again and again" in said
    assert "10 batches so far, where 3 would do" in said
    assert "gymnast convert replayed-episodes FOLDER" in said
