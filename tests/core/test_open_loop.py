"""Recorded actions replayed in the chunks that a world says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from gymnast_core.interfaces import WorldModel
from gymnast_core.rollouts.open_loop import Chunks, common_steps, open_loop_quality, replay_recorded
from gymnast_core.types import Episode, Step, Task


class InEights(WorldModel):
    """Imagines eight actions at once, as it was trained: a shorter chunk is filled up, and its frames are wrong.

    A frame is as bright as the action that led to it."""

    def __init__(self) -> None:
        self.device, self.given = torch.device("cpu"), list[int]()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([task.frames_TVHWC[-1] for task in tasks])

    def step(self, state: Tensor, actions_BLA: Tensor) -> Step:
        length = actions_BLA.shape[1]
        self.given.append(length)
        grey_BL = actions_BLA[..., 0] if length == 8 else torch.full(actions_BLA.shape[:2], 255.0)
        like = state[:, None].expand(-1, length, *state.shape[1:])
        return Step(grey_BL[..., None, None, None, None].to(torch.uint8).expand_as(like).clone())


def recorded(actions: int, name: str = "e") -> Episode:
    """Frame t + 1 is as bright as action t."""
    grey_T = torch.arange(actions) * 4
    frames = torch.cat([torch.zeros(1), grey_T]).to(torch.uint8)[:, None, None, None, None].expand(-1, 1, 16, 16, 3)
    return Episode(name, "go", frames.clone(), grey_T[:, None].float())


def quality(world: WorldModel, episodes: Sequence[Episode], chunks: Chunks) -> dict[str, float]:
    return open_loop_quality(world, episodes, chunks, torch.Generator().manual_seed(0))


def test_a_world_is_measured_in_the_chunks_that_it_was_trained_on() -> None:
    world, episodes = InEights(), [recorded(24, "a"), recorded(24, "b")]
    found = quality(world, episodes, Chunks(8, whole=True))
    assert set(world.given) == {8} and found["mse"] == 0 and "mse_16" in found and "mse_20" not in found
    assert quality(InEights(), episodes, Chunks(4))["psnr"] < 10


@pytest.mark.parametrize(
    ("chunks", "recorded_frames", "steps"),
    [
        (Chunks(4), 30, 20),
        (Chunks(4), 8, 7),
        (Chunks(8, whole=True), 30, 16),
        (Chunks(8, whole=True), 16, 8),
        (Chunks(8, whole=True), 6, 5),
        (Chunks(4, whole=True), 21, 20),
        (Chunks(32, whole=True), 40, 32),
        (Chunks(32, whole=True), 30, 29),
    ],
)
def test_frames_that_are_imagined(chunks: Chunks, recorded_frames: int, steps: int) -> None:
    """Whole chunks alone where an episode is long enough for one."""
    assert common_steps([recorded(recorded_frames - 1), recorded(60)], chunks) == steps


def test_the_last_chunk_may_be_shorter() -> None:
    world = InEights()
    replayed = replay_recorded(world, [recorded(24)], 20, Chunks(8), torch.Generator())
    assert world.given == [8, 8, 4] and replayed.imagined_BLHWC.shape == (1, 20, 16, 16, 3)
    assert replayed.recorded_BTHWC.shape == (1, 21, 16, 16, 3)
