"""Frames that are made when somebody looks: each once, the right ones, and pictures for whoever has no world."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gymnast_core.frames import EpisodeFrames, Undecoded
from gymnast_core.testing.making import make_rollouts, make_tasks
from gymnast_core.types import Rollout, Step


class Camera:
    """Makes frames of one level each, and notes which."""

    def __init__(self) -> None:
        self.made: list[list[int]] = []

    def decode(self, latents_BL: Tensor) -> Tensor:
        self.made.append(latents_BL[0].tolist())
        return latents_BL.to(torch.uint8)[..., None, None, None, None].expand(-1, -1, 2, 4, 5, 3).clone()


@pytest.fixture
def camera() -> Camera:
    return Camera()


def episode(camera: Camera, seen: dict[int, Tensor] | None = None) -> EpisodeFrames:
    """Frames of the levels 0, 10, 20, ... 60."""
    later = Undecoded(torch.arange(10, 70, 10)[None], camera.decode)
    return EpisodeFrames(torch.zeros(2, 4, 5, 3, dtype=torch.uint8), later, seen or {})


def levels(frames_TVHWC: Tensor) -> list[int]:
    assert frames_TVHWC.dtype == torch.uint8 and frames_TVHWC.shape[1:] == (2, 4, 5, 3)
    return frames_TVHWC[:, 0, 0, 0, 0].tolist()


def rollout_of(frames: EpisodeFrames) -> Rollout:
    (made,) = make_rollouts(make_tasks(1, 4, cameras=("front", "wrist")), chunks=2, chunk=3)
    return replace(made, frames_TVHWC=frames)


def test_only_what_is_looked_at_is_made_and_that_once(camera: Camera) -> None:
    frames = episode(camera, {3: torch.full((2, 4, 5, 3), 31, dtype=torch.uint8)})
    assert len(frames) == 7 and camera.made == []
    assert levels(frames.at([0, -1, 2, 3])) == [0, 60, 20, 31] and camera.made == [[20, 60]]
    assert levels(frames.at([2, 2, 4])) == [20, 20, 40] and camera.made == [[20, 60], [40]]
    assert frames.at([]).shape == (0, 2, 4, 5, 3)
    assert levels(frames.all()) == [0, 10, 20, 31, 40, 50, 60] and camera.made[2:] == [[10, 50]]
    for place in (7, -8):
        with pytest.raises(IndexError):
            frames.at([place])


def test_a_rollout_makes_them_at_the_first_look(camera: Camera) -> None:
    rollout = rollout_of(episode(camera))
    assert rollout.frame_count == 7 and camera.made == []
    assert levels(rollout.frames_at([6])) == [60] and rollout.view("wrist", [5, 6]).shape == (2, 4, 5, 3)
    assert camera.made == [[60], [50]]
    whole = rollout.frames_TVHWC
    assert levels(whole) == [0, 10, 20, 30, 40, 50, 60] and rollout.frames_TVHWC is whole
    assert levels(rollout.frames_at([1, -1])) == [10, 60] and rollout.view().shape == (7, 4, 5, 3)
    assert len(camera.made) == 3


def test_copies_and_other_processes_get_pictures(camera: Camera) -> None:
    rollout = rollout_of(episode(camera))
    there = pickle.loads(pickle.dumps(rollout))
    assert type(vars(there)["frames_TVHWC"]) is Tensor and levels(there.frames_TVHWC) == [0, 10, 20, 30, 40, 50, 60]
    assert levels(copy.deepcopy(rollout).frames_TVHWC) == levels(replace(rollout, group=5).frames_TVHWC)


def test_several_threads_may_look(camera: Camera) -> None:
    frames = episode(camera)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: levels(frames.at([i % 7, 6])), range(70)))
    assert found == [[10 * (i % 7), 60] for i in range(70)]
    assert sorted(level for made in camera.made for level in made) == [10, 20, 30, 40, 50, 60]


def test_a_step_tells_what_it_has(camera: Camera) -> None:
    step = Step.showing(Undecoded(torch.tensor([[1, 2], [3, 4]]), camera.decode), torch.zeros(2, 2, 1))
    assert step.undecoded is not None and camera.made == []
    assert step.frames_BLVHWC.shape == (2, 2, 2, 4, 5, 3) and step.frames_BLVHWC[1, 0, 0, 0, 0, 0] == 3
    assert step.undecoded is None and len(camera.made) == 1
    assert Step(torch.zeros(1, 1, 1, 2, 2, 3, dtype=torch.uint8)).undecoded is None
