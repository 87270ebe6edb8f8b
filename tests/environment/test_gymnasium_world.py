"""Gymnasium environments as a world model."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
import torch
from omegaconf import OmegaConf
from slider_environment import ID, SIZE, Slider, make_rollout, make_task

from gymnast_core.errors import DataError
from gymnast_core.learning import Judged
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.types import ActionChunk, Needs, Observation, Offers, Reward, Step
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld


def world(**config: Any) -> GymnasiumWorld:
    return GymnasiumWorld(GymnasiumWorld.Config(**config))


def push(*steps: float) -> torch.Tensor:
    """(1, L, 1) actions."""
    return torch.tensor(steps).view(1, -1, 1)


def frames(step: Step) -> torch.Tensor:
    """(B, L, H, W, C) of the only camera."""
    return step.frames_BLVHWC[:, :, 0]


def position(frame_HWC: torch.Tensor) -> int:
    return int(frame_HWC[SIZE // 2, :, 0].argmax())


def test_frames_and_outcomes_are_those_of_the_environment() -> None:
    tasks = [make_task(0), make_task(1), make_task(2)]
    ours = world()
    actions_BLA = torch.tensor([[1.0, 2.0], [4.0, 4.0], [0.0, 0.0]])[:, :, None]
    step = ours.step(ours.reset(tasks), actions_BLA)
    assert step.frames_BLVHWC.shape == (3, 2, 1, SIZE, SIZE, 3) and step.frames_BLVHWC.dtype == torch.uint8
    assert step.proprio_BLP is None
    for task, actions_LA, frames_LVHWC in zip(tasks, actions_BLA, step.frames_BLVHWC, strict=True):
        environment = gymnasium.make(ID)
        environment.reset(seed=task.start.seed, options=dict(task.start.options))
        for action_A, frame_VHWC in zip(actions_LA, frames_LVHWC, strict=True):
            observation, *_ = environment.step(action_A.numpy())
            assert torch.equal(frame_VHWC[0], torch.from_numpy(observation["image"]))
    # The second one passes the goal (8) with its second action, and not with its first.
    assert position(tasks[1].view()[-1]) < 4
    assert step.outcome_BL.tolist() == [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_the_one_camera_is_called_what_the_task_calls_it() -> None:
    assert GymnasiumWorld.offers(GymnasiumWorld.Config()) == Offers(cameras=1, proprio=None)


def test_success_that_the_environment_does_not_report_is_unknown() -> None:
    ours = world(view=View(success_key="is_success"))
    assert ours.step(ours.reset([make_task(0)]), push(1, 1)).outcome_BL.isnan().all()


def test_states_do_not_influence_each_other() -> None:
    ours = world()
    first, second = ours.reset([make_task(0)]), ours.reset([make_task(0)])
    alone = frames(ours.step(first, push(1, 1)))
    ours.step(second, push(4))
    whole = frames(ours.step(ours.reset([make_task(0)]), push(1, 1, 1)))
    assert torch.equal(frames(ours.step(first, push(1))), whole[:, -1:])
    assert torch.equal(frames(ours.step(ours.reset([make_task(0)]), push(1, 1))), alone)


def test_an_ended_episode_holds_its_last_frame_and_outcome() -> None:
    ours = world()
    state = ours.reset([make_task(0), make_task(1)])
    to_the_wall = torch.tensor([[4.0] * 4 + [-4.0] * 2, [0.0] * 6])[:, :, None]
    frames_BLHWC = frames(ours.step(state, to_the_wall))
    assert position(frames_BLHWC[0, 3]) == SIZE - 1
    assert torch.equal(frames_BLHWC[0, 3], frames_BLHWC[0, 5])
    later = ours.step(state, torch.full((2, 1, 1), -4.0))
    assert torch.equal(frames(later)[0, 0], frames_BLHWC[0, 3])
    assert later.outcome_BL.tolist() == [[1.0], [0.0]]


def test_actions_after_the_end_are_known_and_teach_nothing() -> None:
    """At the right wall the slider terminates; what a policy does afterwards has no effect, and earns nothing."""
    ours, tasks = world(), [make_task(seed) for seed in range(2)]
    state = ours.reset(tasks)
    first = ours.step(state, torch.tensor([[[4.0]] * 4, [[0.5]] * 4]))
    second = ours.step(state, torch.zeros(2, 4, 1))
    assert first.ended_BL is not None and second.ended_BL is not None
    ended_BL = torch.cat([first.ended_BL, second.ended_BL], dim=1)
    assert not ended_BL[1].any() and ended_BL[0, -1]
    actions = int(ended_BL[0].int().argmax()) + 1
    assert ended_BL[0].tolist() == [False] * (actions - 1) + [True] * (9 - actions)
    rollouts = [
        replace(make_rollout(task, [4.0] * 8), ended_after=after)
        for task, after in zip(tasks, (actions, None), strict=True)
    ]
    rewards = (Reward(1.0), Reward(0.0))
    judged = Judged(tuple(rollouts), rewards, 2)
    assert judged.mask_BS.sum(1).tolist() == [actions, 8]
    # The whole reward belongs to the last action that counts, and a judge may still see the success before.
    assert judged.step_rewards_BS[0, actions - 1] == 1.0
    sooner = Judged(tuple(rollouts), (Reward(1.0, finish_step=1), Reward(0.0, finish_step=8)), 2)
    assert sooner.mask_BS.sum(1).tolist() == [1, 8]


def test_a_rollout_says_when_its_world_ended_it() -> None:
    def push_on(observation: Observation, **_: Any) -> ActionChunk:
        batch = len(observation.instructions)
        return ActionChunk(torch.full((batch, 2, 1), 4.0), torch.zeros(batch, 2, 1), None)

    pushing: Any = SimpleNamespace(chunk_length=2, action_dim=1, needed=Needs(), act=push_on)
    rollouts = imagine(
        pushing, world(), [make_task(0), make_task(1)], horizon=8, temperature=1.0, generator=torch.Generator(),
    )  # fmt: skip
    for rollout in rollouts:
        assert rollout.ended_after is not None and 2 <= rollout.ended_after < 8
        shown = rollout.frames_TVHWC
        assert torch.equal(shown[rollout.ended_after], shown[-1])
        assert not torch.equal(shown[rollout.ended_after - 1], shown[-1])


def test_a_time_limit_ends_episodes_too() -> None:
    gymnasium.register("gymnast-test/Short-v0", entry_point=Slider, max_episode_steps=2)
    try:
        task = make_task(0, environment="gymnast-test/Short-v0")
        frames_BLHWC = frames(world().step(world().reset([task]), push(1, 1, 1, 1)))
        start = position(task.view()[-1])
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
    assert len(frames(ours.step(held[0], torch.ones(4, 1, 1)))) == 4


def test_tasks_with_other_arguments_get_their_own_environment() -> None:
    easy, hard = (make_task(0, args={"goal": goal}) for goal in (2.0, 12.0))
    ours = world()
    step = ours.step(ours.reset([easy, hard]), torch.full((2, 1, 1), 4.0))
    assert step.outcome_BL.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("args", [{"observation": "image"}, {"observation": "position", "render_mode": "rgb_array"}])
def test_pictures_may_be_the_observation_or_rendered(args: dict[str, Any]) -> None:
    ours, task = world(), make_task(0, args=args)
    frames_BLHWC = frames(ours.step(ours.reset([task]), push(3)))
    assert position(frames_BLHWC[0, 0]) == position(task.view()[-1]) + 3


def test_an_environment_without_pictures_is_an_error() -> None:
    with pytest.raises(DataError, match="render_mode"):
        world().reset([make_task(0, args={"observation": "position"})])


def test_the_first_frame_must_be_the_tasks() -> None:
    other = make_task(0, frames_TVHWC=torch.full((1, 1, SIZE, SIZE, 3), 9, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"slide-0.*check_first_frame"):
        world().reset([other])
    free = world(check_first_frame=False)
    assert position(frames(free.step(free.reset([other]), push(0)))[0, 0]) == position(make_task(0).view()[-1])
    larger = make_task(0, frames_TVHWC=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(DataError, match="shape"):
        world().reset([larger])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": None}, "has no environment"),
        ({"id": "gymnast-test/Nowhere-v0"}, "Nowhere"),
        ({"options": {"broken": True}}, "collapsed"),
        ({"args": {"colour": "red"}}, r"start\.args"),
    ],
)
def test_tasks_that_cannot_be_simulated_are_named(changes: dict[str, Any], message: str) -> None:
    task = make_task(0)
    changed = changes if "start" in changes else {"start": replace(task.start, **changes)}
    with pytest.raises(DataError, match=message):
        world().reset([replace(task, **changed)])


def test_actions_of_another_width_are_an_error() -> None:
    ours = world()
    state = ours.reset([make_task(0)])
    with pytest.raises(DataError, match="2 dimensions"):
        ours.step(state, torch.zeros(1, 3, 2))
    with pytest.raises(DataError, match="shape"):
        ours.step(state, torch.zeros(2, 3, 1))


def test_config_survives_omegaconf() -> None:
    assert OmegaConf.to_object(OmegaConf.structured(GymnasiumWorld.Config)) == GymnasiumWorld.Config()
