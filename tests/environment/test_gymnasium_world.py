"""Gymnasium environments as a world model."""

from __future__ import annotations

import gc
from typing import Any

import gymnasium
import pytest
import torch
from omegaconf import OmegaConf
from slider_environment import ID, SIZE, Slider, make_task

from gymnast_core.errors import DataError
from gymnast_environment.world import GymnasiumWorld


def world(**config: Any) -> GymnasiumWorld:
    return GymnasiumWorld(GymnasiumWorld.Config(**config))


def push(*steps: float) -> torch.Tensor:
    """(1, L, 1) actions."""
    return torch.tensor(steps).view(1, -1, 1)


def position(frame_HWC: torch.Tensor) -> int:
    return int(frame_HWC[SIZE // 2, :, 0].argmax())


def test_frames_and_outcomes_are_those_of_the_environment() -> None:
    tasks = [make_task(0), make_task(1), make_task(2)]
    ours = world()
    state = ours.reset(tasks)
    assert len(state) == 3 and ours.outcomes(state) == [None, None, None]
    actions_BLA = torch.tensor([[1.0, 2.0], [4.0, 4.0], [0.0, 0.0]])[:, :, None]
    frames_BLHWC = ours.step(state, actions_BLA)
    assert frames_BLHWC.shape == (3, 2, SIZE, SIZE, 3) and frames_BLHWC.dtype == torch.uint8
    for task, actions_LA, frames_LHWC in zip(tasks, actions_BLA, frames_BLHWC, strict=True):
        environment = gymnasium.make(ID)
        environment.reset(seed=task.seed, options=dict(task.environment_options))
        for action_A, frame_HWC in zip(actions_LA, frames_LHWC, strict=True):
            observation, *_ = environment.step(action_A.numpy())
            assert torch.equal(frame_HWC, torch.from_numpy(observation["image"]))
    starts = [position(task.frames_THWC[-1]) for task in tasks]
    assert ours.outcomes(state) == [0.0, float(starts[1] + 8 >= 8), 0.0]


def test_states_do_not_influence_each_other() -> None:
    ours = world()
    first, second = ours.reset([make_task(0)]), ours.reset([make_task(0)])
    alone = ours.step(first, push(1, 1))
    ours.step(second, push(4))
    assert torch.equal(ours.step(first, push(1)), ours.step(ours.reset([make_task(0)]), push(1, 1, 1))[:, -1:])
    assert torch.equal(ours.step(ours.reset([make_task(0)]), push(1, 1)), alone)


def test_an_ended_episode_holds_its_last_frame_and_outcome() -> None:
    ours = world()
    state = ours.reset([make_task(0), make_task(1)])
    to_the_wall = torch.tensor([[4.0] * 4 + [-4.0] * 2, [0.0] * 6])[:, :, None]
    frames_BLHWC = ours.step(state, to_the_wall)
    assert position(frames_BLHWC[0, 3]) == SIZE - 1
    assert torch.equal(frames_BLHWC[0, 3], frames_BLHWC[0, 5])
    later = ours.step(state, torch.full((2, 1, 1), -4.0))
    assert torch.equal(later[0, 0], frames_BLHWC[0, 3])
    assert ours.outcomes(state) == [1.0, 0.0]


def test_a_time_limit_ends_episodes_too() -> None:
    gymnasium.register("gymnast-test/Short-v0", entry_point=Slider, max_episode_steps=2)
    try:
        task = make_task(0, environment="gymnast-test/Short-v0")
        frames_BLHWC = world().step(world().reset([task]), push(1, 1, 1, 1))
        start = position(task.frames_THWC[-1])
        assert [position(frame) - start for frame in frames_BLHWC[0]] == [1, 2, 2, 2]
    finally:
        gymnasium.registry.pop("gymnast-test/Short-v0")


def test_environments_are_reused_once_their_state_is_gone() -> None:
    ours, tasks = world(), [make_task(seed) for seed in range(4)]
    Slider.made = 0
    for _ in range(3):
        state = ours.reset(tasks)
        ours.step(state, torch.ones(4, 1, 1))
        del state
        gc.collect()
    assert Slider.made == 4
    held = [ours.reset(tasks) for _ in range(2)]
    assert Slider.made == 8
    ours.close()
    assert ours.step(held[0], torch.ones(4, 1, 1)).shape[0] == 4


def test_tasks_with_other_arguments_get_their_own_environment() -> None:
    easy, hard = (make_task(0, environment_args={"goal": goal}) for goal in (2.0, 12.0))
    ours = world()
    state = ours.reset([easy, hard])
    ours.step(state, torch.full((2, 1, 1), 4.0))
    assert ours.outcomes(state) == [1.0, 0.0]


@pytest.mark.parametrize("args", [{"observation": "image"}, {"observation": "position", "render_mode": "rgb_array"}])
def test_pictures_may_be_the_observation_or_rendered(args: dict[str, Any]) -> None:
    ours, task = world(), make_task(0, environment_args=args)
    frames_BLHWC = ours.step(ours.reset([task]), push(3))
    assert position(frames_BLHWC[0, 0]) == position(task.frames_THWC[-1]) + 3


def test_an_environment_without_pictures_is_an_error() -> None:
    with pytest.raises(DataError, match="render_mode"):
        world().reset([make_task(0, environment_args={"observation": "position"})])


def test_the_first_frame_must_be_the_tasks() -> None:
    other = make_task(0, frames_THWC=torch.full((1, SIZE, SIZE, 3), 9, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"slide-0.*check_first_frame"):
        world().reset([other])
    assert len(world(check_first_frame=False).reset([other])) == 1
    larger = make_task(0, frames_THWC=torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(DataError, match="shape"):
        world().reset([larger])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": None}, "has no environment"),
        ({"seed": None}, "has no seed"),
        ({"environment": "gymnast-test/Nowhere-v0"}, "Nowhere"),
        ({"environment_options": {"broken": True}}, "collapsed"),
    ],
)
def test_tasks_that_cannot_be_simulated_are_named(changes: dict[str, Any], message: str) -> None:
    task = make_task(0, environment_options=changes.pop("environment_options", {}))
    task = type(task)(**{**vars(task), **changes})
    with pytest.raises(DataError, match=message):
        world().reset([task])


def test_arguments_that_the_environment_refuses_are_named() -> None:
    task = make_task(0)
    task = type(task)(**{**vars(task), "environment_args": {"colour": "red"}})
    with pytest.raises(DataError, match="environment_args"):
        world().reset([task])


def test_actions_of_another_width_are_an_error() -> None:
    ours = world()
    state = ours.reset([make_task(0)])
    with pytest.raises(DataError, match="2 dimensions"):
        ours.step(state, torch.zeros(1, 3, 2))
    with pytest.raises(DataError, match="shape"):
        ours.step(state, torch.zeros(2, 3, 1))


def test_config_survives_omegaconf() -> None:
    assert OmegaConf.to_object(OmegaConf.structured(GymnasiumWorld.Config)) == GymnasiumWorld.Config()
