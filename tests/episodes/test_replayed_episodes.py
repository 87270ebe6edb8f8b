"""Recordings under imagined frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins import compose
from gymnast_core.types import Episode, Step, Task, one_camera
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


def test_frames_are_imagined_and_the_rest_is_as_recorded(monkeypatch) -> None:
    world = Counting([])
    parts = {"recorded": Recorded(), "counting": world}
    monkeypatch.setattr(type(compose.registries().datasets), "build", lambda self, name, args=None, **how: parts[name])
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
