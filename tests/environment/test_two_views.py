"""What a policy is shown of a world with two cameras and a state, decision by decision, to the pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from two_view_environment import CAMERAS, SIZE, Watcher, make_task, pictures, where

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.rollouts.batch import decisions
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_world_model
from gymnast_core.types import Offers, Rollout, Task
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld

ACTIONS_SA = torch.tensor([[1.0, 0.0], [0.0, 2.0], [2.0, 1.0], [1.0, 0.0], [0.0, -1.0], [2.0, 0.0]])
SEEDS = (0, 1)


def view(**changes: Any) -> View:
    given: dict[str, Any] = {"cameras": {name: name for name in CAMERAS}, "proprio": ["state"], "proprio_dim": 3}
    return View(**{**given, **changes})


def world(**config: Any) -> GymnasiumWorld:
    return GymnasiumWorld(GymnasiumWorld.Config(**{"view": view(), **config}))


def course(seed: int) -> list[tuple[int, int]]:
    """Where the dot is at the start and after each of `ACTIONS_SA`."""
    x, y = where(seed)
    places = [(x, y)]
    for right, down in ACTIONS_SA.int().tolist():
        x, y = x + right, y + down
        places.append((x, y))
    return places


def watch(tasks: list[Task], chunk_length: int = 2, **needs: Any) -> tuple[Watcher, list[Rollout]]:
    policy = Watcher(Watcher.Config(**needs), ACTIONS_SA, chunk_length)
    generator = torch.Generator().manual_seed(0)
    rollouts = imagine(policy, world(), tasks, horizon=len(ACTIONS_SA), temperature=1.0, generator=generator)
    return policy, rollouts


def readings(seed: int, step: int) -> list[float]:
    x, y = course(seed)[step]
    return [x, y, step]


def test_the_courses_can_be_told_apart() -> None:
    places = [course(seed) for seed in SEEDS]
    assert places[0] != places[1]
    assert all(len(set(course)) == len(course) and max(map(max, course)) < SIZE for course in places)


@pytest.mark.parametrize("chunk_length", [1, 2, 3])
def test_both_cameras_and_the_state_at_each_decision(chunk_length: int) -> None:
    policy, _ = watch([make_task(seed) for seed in SEEDS], chunk_length)
    assert len(policy.shown) == 6 // chunk_length
    for number, seen in enumerate(policy.shown):
        step = number * chunk_length
        assert seen.cameras == CAMERAS and seen.images_BTVHWC.shape == (2, 1, 2, SIZE, SIZE, 3)
        for row, seed in enumerate(SEEDS):
            assert torch.equal(seen.latest_BVHWC[row], pictures(*course(seed)[step]))
            assert seen.proprio_BTP is not None and seen.proprio_BTP.dtype == torch.float32
            assert seen.proprio_BTP[row].tolist() == [readings(seed, step)]


def test_a_history_of_two_begins_with_the_first_frame_twice() -> None:
    policy, _ = watch([make_task(seed) for seed in SEEDS], history=2)
    for seen, (before, now) in zip(policy.shown, [(0, 0), (1, 2), (3, 4)], strict=True):
        for row, seed in enumerate(SEEDS):
            expected_TVHWC = torch.stack([pictures(*course(seed)[step]) for step in (before, now)])
            assert torch.equal(seen.images_BTVHWC[row], expected_TVHWC)
            assert seen.proprio_BTP is not None
            assert seen.proprio_BTP[row].tolist() == [readings(seed, before), readings(seed, now)]


def test_a_history_of_two_begins_with_the_tasks_own_past() -> None:
    x, y = where(0)
    past = {
        "frames_TVHWC": torch.stack([pictures(9, 9), pictures(x, y)]),
        "proprio_TP": torch.tensor([[9.0, 9.0, -1.0], [x, y, 0.0]]),
        "actions_TA": torch.zeros(1, 2),
    }
    policy, _ = watch([make_task(0, **past)], chunk_length=1, history=2)
    first, second = policy.shown[:2]
    assert torch.equal(first.images_BTVHWC[0], past["frames_TVHWC"])
    assert first.proprio_BTP is not None and torch.equal(first.proprio_BTP[0], past["proprio_TP"])
    assert torch.equal(second.images_BTVHWC[0], torch.stack([pictures(x, y), pictures(*course(0)[1])]))


@pytest.mark.parametrize("cameras", [("wrist", "front"), ("wrist",), ("front",)])
def test_a_policy_gets_the_cameras_that_it_names_in_its_order(cameras: tuple[str, ...]) -> None:
    policy, rollouts = watch([make_task(0)], cameras=cameras, proprio=None)
    places = [CAMERAS.index(camera) for camera in cameras]
    for number, seen in enumerate(policy.shown):
        assert seen.cameras == cameras and seen.proprio_BTP is None
        assert torch.equal(seen.latest_BVHWC[0], pictures(*course(0)[2 * number])[places])
    assert rollouts[0].cameras == CAMERAS


def test_rollouts_hold_all_that_was_shown() -> None:
    _, rollouts = watch([make_task(seed) for seed in SEEDS], cameras=("wrist",), proprio=None)
    for seed, rollout in zip(SEEDS, rollouts, strict=True):
        places = course(seed)
        assert rollout.cameras == CAMERAS
        assert torch.equal(rollout.frames_TVHWC, torch.stack([pictures(*place) for place in places]))
        assert torch.equal(rollout.view("wrist"), rollout.frames_TVHWC[:, 1])
        assert rollout.proprio_TP is not None and rollout.outcome_S is not None
        assert rollout.proprio_TP.tolist() == [readings(seed, step) for step in range(len(places))]
        assert rollout.outcome_S.tolist() == [float(x > 5) for x, _ in places[1:]]
    assert 0.0 < torch.stack([rollout.outcome_S for rollout in rollouts]).mean() < 1.0


@pytest.mark.parametrize("history", [1, 2, 4])
def test_the_update_sees_what_the_policy_saw(history: int) -> None:
    policy, rollouts = watch([make_task(seed) for seed in SEEDS], history=history)
    seen, chunk = decisions(rollouts, policy.needed, torch.device("cpu"))
    by_episode = [torch.stack([one.images_BTVHWC[row] for one in policy.shown]) for row in range(2)]
    assert torch.equal(seen.images_BTVHWC, torch.cat(by_episode))
    numbers = [one.proprio_BTP for one in policy.shown]
    assert seen.proprio_BTP is not None
    assert torch.equal(seen.proprio_BTP, torch.cat([torch.stack([n[row] for n in numbers]) for row in range(2)]))
    assert torch.equal(chunk.actions_BLA, ACTIONS_SA.reshape(3, 2, 2).repeat(2, 1, 1))


def test_it_keeps_the_contract_of_world_models() -> None:
    verified = check_world_model(world(), tasks=[make_task(seed) for seed in range(3)], action_dim=2)
    assert "step shows what offers says: front, wrist; 3 readings" in verified


def test_it_says_what_it_offers_before_it_makes_an_environment() -> None:
    assert GymnasiumWorld.offers(world().config) == Offers(CAMERAS, 3)
    assert GymnasiumWorld.offers(GymnasiumWorld.Config(View({"wrist": "wrist"}))) == Offers(("wrist",))


def test_a_policy_that_needs_more_is_refused() -> None:
    for needs, message in (
        ({"cameras": ("front", "back")}, "back is lacking"),
        ({"cameras": 3}, "needs 3 cameras"),
        ({"proprio": 7}, "needs 7 proprioceptive readings"),
    ):
        with pytest.raises(ConfigError, match=message):
            watch([make_task(0)], **needs)


def test_the_first_frame_is_compared_in_all_cameras() -> None:
    for camera in range(2):
        frames_TVHWC = make_task(0).frames_TVHWC.clone()
        frames_TVHWC[:, camera] = 200
        with pytest.raises(
            DataError, match=rf"dot-0.*[91]\d+.\d\d% of the pixels of the camera {CAMERAS[camera]} differ"
        ):
            world().reset([make_task(0, frames_TVHWC=frames_TVHWC)])
    swapped = make_task(0).frames_TVHWC.flip(1)
    world().reset([make_task(0, frames_TVHWC=swapped, cameras=CAMERAS[::-1])])
    with pytest.raises(DataError, match="No camera 'wrist'"):
        world().reset([make_task(0, frames_TVHWC=swapped, cameras=("front", "side"))])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"proprio_dim": None}, "give both"),
        ({"proprio": []}, "give both"),
        ({"rotate": 45}, "must be 0, 90, 180 or 270"),
    ],
)
def test_settings_that_say_too_little_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GymnasiumWorld.offers(GymnasiumWorld.Config(view(**config)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"cameras": {"front": "front", "wrist": "back"}},
            r"under the key 'back'; its .* has front .*cameras",
        ),
        ({"proprio_dim": 2}, "gave 3 numbers under state; expected 2"),
        ({"proprio": ["stat"]}, "gave no readings under the key 'stat'"),
    ],
)
def test_what_the_environment_does_not_show_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        world(view=view(**config), check_first_frame=False).reset([make_task(0)])


def test_cameras_of_different_sizes_are_an_error() -> None:
    task = make_task(0)
    assert task.start is not None
    small = replace(task, start=replace(task.start, args={"wrist_size": 8}))
    with pytest.raises(DataError, match="different sizes"):
        world(check_first_frame=False).reset([small])


def test_the_oracle_replays_in_both_views() -> None:
    _, (rollout,) = watch([make_task(1)])
    oracle = EnvironmentReward(EnvironmentReward.Config(view=view(), always_replay=True))
    assert oracle.score([rollout])[0].value == rollout.outcome
    elsewhere = replace(rollout, task=replace(rollout.task, frames_TVHWC=255 - rollout.task.frames_TVHWC))
    assert "check_first_frame" in str(oracle.score([elsewhere])[0].error)
