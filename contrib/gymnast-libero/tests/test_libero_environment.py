"""LIBERO itself, where it is installed: its own robosuite environment is what ours is compared with."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from gymnast_libero.suites import STATES, TASKS, find_task

MOVE = np.array([0.5, 0.2, -0.3, 0.1, 0.1, 0.1, 1.0], np.float32)


def shows_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_all_130_tasks_are_there_with_50_initial_states_each(libero):
    found = [find_task(suite, i) for suite, count in TASKS.items() for i in range(count)]
    assert len({(task.suite, task.name) for task in found}) == 130
    assert {len(task.states_KN) for task in found} == {STATES}
    assert find_task("libero_goal", "turn_on_the_stove").index == 7
    assert find_task("libero_spatial", 0).instruction == (
        "pick up the black bowl between the plate and the ramekin and place it on the plate"
    )


@pytest.mark.parametrize(
    ("suite", "task", "words"),
    [
        ("libero_moon", 0, "libero_90"),
        ("libero_goal", 10, "0 to 9"),
        ("libero_goal", -1, "0 to 9"),
        ("libero_goal", "fly", "turn_on_the_stove"),
        ("libero_goal", True, "0 to 9"),
    ],
)
def test_a_task_that_there_is_not_is_refused(libero, suite, task, words):
    with pytest.raises(ValueError, match=words):
        find_task(suite, task)


def test_it_is_a_gymnasium_environment(stove):
    observation, info = stove.reset(seed=3)
    assert stove.observation_space.contains(observation)
    assert observation["instruction"] == stove.unwrapped.instruction == "turn on the stove"
    assert info == {"success": False, "suite": "libero_goal", "task": "turn_on_the_stove", "initial_state": 3}
    assert stove.action_space.contains(MOVE)
    np.testing.assert_array_equal(stove.render(), observation["image"])


def test_a_seed_names_an_initial_state_and_shows_it_again_after_any_episode(stove):
    first, _ = stove.reset(seed=7)
    path = [stove.step(MOVE)[0] for _ in range(3)]
    for action in (MOVE, -MOVE, MOVE * 0):
        stove.step(action)
    again, info = stove.reset(seed=57)
    assert info["initial_state"] == 7 and shows_the_same(first, again)
    assert all(shows_the_same(before, stove.step(MOVE)[0]) for before in path)
    named, info = stove.reset(seed=1, options={"state": 7})
    assert info["initial_state"] == 7 and shows_the_same(first, named)
    other, _ = stove.reset(seed=8)
    assert not np.array_equal(first["image"], other["image"])


def test_without_a_seed_a_state_is_drawn_from_the_environment_s_own_generator(stove):
    stove.reset(seed=5)
    drawn = [stove.reset()[1]["initial_state"] for _ in range(3)]
    stove.reset(seed=5)
    assert drawn == [stove.reset()[1]["initial_state"] for _ in range(3)] and len(set(drawn)) > 1


@pytest.mark.parametrize("state", [50, -1, 2.5, True, "first"])
def test_a_state_that_there_is_not_is_refused(stove, state):
    with pytest.raises(ValueError, match="0 to 49"):
        stove.reset(options={"state": state})


def test_actions_move_the_hand_in_base_axes_and_the_fingers(stove):
    """OSC_POSE: 1 is 5 cm a step of 50 ms, of which the arm makes a part; x is away from the robot, z up."""
    for axis in range(3):
        before = stove.reset(seed=0)[0]["state"]
        action = np.zeros(7, np.float32)
        action[[axis, 6]] = 1.0
        for _ in range(4):
            after = stove.step(action)[0]["state"]
        moved = after[:3] - before[:3]
        assert moved[axis] > 0.02 and np.abs(np.delete(moved, axis)).max() < 0.02
    opened = stove.reset(seed=0)[0]["state"]
    shut = np.zeros(7, np.float32)
    for _ in range(5):
        closing = stove.step(shut)[0]["state"]
    assert np.ptp(closing[6:]) < np.ptp(opened[6:]) - 0.01


def test_success_is_the_goal_of_the_scene_and_ends_the_episode(stove):
    stove.reset(seed=0)
    still = np.array([0, 0, 0, 0, 0, 0, 1.0], np.float32)
    _, reward, terminated, _, info = stove.step(still)
    assert (reward, terminated, info["success"]) == (0.0, False, False)
    scene = stove.unwrapped._simulation._environment
    scene.env.object_states_dict["flat_stove_1"].set_joint(1.0)  # the knob
    observation, reward, terminated, truncated, info = stove.step(still)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    again, info = stove.reset(seed=0)
    assert info["success"] is False and not np.array_equal(observation["image"], again["image"])


def test_an_episode_is_cut_off_at_its_horizon(stove):
    stove.reset(seed=0)
    assert [stove.step(MOVE)[3] for _ in range(6)] == [False] * 5 + [True]


def test_it_shows_what_published_evaluations_show(libero):
    """Against robosuite's own renderer and readings, after the settling steps and two actions: not a pixel differs."""
    from libero.libero.envs import OffScreenRenderEnv
    from robosuite.utils.transform_utils import quat2axisangle

    task = find_task("libero_spatial", 2)
    reference = OffScreenRenderEnv(bddl_file_name=task.bddl_file, camera_heights=128, camera_widths=128)
    reference.seed(4)
    reference.reset()
    reference.set_init_state(task.states_KN[4])
    for _ in range(10):
        shown, *_ = reference.step([0, 0, 0, 0, 0, 0, -1])
    ours = gymnasium.make("gymnast/Libero-v0", suite="libero_spatial", task=2, image_size=128, disable_env_checker=True)
    observations = [ours.reset(seed=4)[0]]
    references = [shown]
    for _ in range(2):
        observations.append(ours.step(MOVE)[0])
        references.append(reference.step([*MOVE[:6], -1.0])[0])
    for observation, shown in zip(observations, references, strict=True):
        np.testing.assert_array_equal(observation["image"], np.rot90(shown["agentview_image"], 2))
        np.testing.assert_array_equal(observation["wrist_image"], np.rot90(shown["robot0_eye_in_hand_image"], 2))
        rotation = quat2axisangle(shown["robot0_eef_quat"].copy())
        readings = np.concatenate([shown["robot0_eef_pos"], rotation, shown["robot0_gripper_qpos"]])
        np.testing.assert_array_equal(observation["state"], readings.astype(np.float32))
    ours.close()
    reference.close()


def test_fast_rendering_is_another_picture_of_the_same_scene(stove):
    fast = gymnasium.make(
        "gymnast/Libero-v0", suite="libero_goal", task=7, image_size=64, rendering="fast", disable_env_checker=True
    )
    one, other = stove.reset(seed=0)[0], fast.reset(seed=0)[0]
    np.testing.assert_array_equal(one["state"], other["state"])
    difference = np.abs(one["image"].astype(int) - other["image"])
    assert 0 < difference.mean() < 8
    fast.close()
