"""ManiSkill's own tasks, where ManiSkill is installed; boxes stand in for its assets (`stand_ins.py`)."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

STARTS = {"spoon-on-towel": 24, "carrot-on-plate": 24, "stack-cubes": 24, "eggplant-in-basket": 64}
"""As in SIMPLER's evaluations; the eggplant has 8 places of 8 turns each."""
WORDS = {
    "spoon-on-towel": "put the spoon on the towel",
    "carrot-on-plate": "put carrot on plate",
    "stack-cubes": "stack the green block on the yellow block",
    "eggplant-in-basket": "put eggplant into yellow basket",
}
STILL = np.array([0, 0, 0, 0, 0, 0, 1.0], np.float32)


def objects(environment):
    twin = environment.unwrapped._twin
    return twin.objs[twin.source_obj_name], twin.objs[twin.target_obj_name]


def put(thing, position, turn=(1.0, 0.0, 0.0, 0.0)):
    import sapien

    thing.set_pose(sapien.Pose(p=position, q=turn))
    thing.set_linear_velocity(np.zeros(3))
    thing.set_angular_velocity(np.zeros(3))


@pytest.mark.parametrize("task", STARTS)
def test_every_task_is_a_gymnasium_environment_with_its_starts(make, task):
    environment = make(task)
    observation, info = environment.reset(seed=3)
    assert environment.unwrapped.starts == STARTS[task] and info["initial_state"] == 3
    assert observation["instruction"] == WORDS[task] == environment.unwrapped.instruction
    assert environment.observation_space.contains(observation) and environment.action_space.contains(STILL)
    assert info["success"] is False and info["partial_credit"] == 0.0
    np.testing.assert_array_equal(environment.render(), observation["image"])
    assert environment.reset(seed=3 + STARTS[task])[1]["initial_state"] == 3
    with pytest.raises(ValueError, match=f"0 to {STARTS[task] - 1}"):
        environment.reset(options={"state": STARTS[task]})


def test_a_start_is_the_same_whatever_the_arm_did_before(make):
    """ManiSkill lets objects come to rest while the arm's motors still go for the last episode's target."""
    environment = make("carrot-on-plate")
    first, _ = environment.reset(seed=5)
    path = [environment.step(STILL)[0]["state"] for _ in range(2)]
    robot, (source, _) = environment.unwrapped._twin.agent.robot, objects(environment)
    state = path[-1]
    for _ in range(15):  # reach for the object
        ahead = (robot.pose.inv() * source.pose).p[0].numpy() - state[:3]
        state = environment.step(np.array([*np.clip(ahead, -0.04, 0.04), 0, 0, 0, 1.0], np.float32))[0]["state"]
    assert np.linalg.norm(ahead) < 0.06
    again, _ = environment.reset(seed=5)
    np.testing.assert_array_equal(again["image"], first["image"])
    for state in path:
        np.testing.assert_allclose(environment.step(STILL)[0]["state"], state, atol=1e-6)
    assert not np.array_equal(environment.reset(seed=6)[0]["image"], first["image"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_actions_move_the_gripper_in_base_axes_by_metres(make, axis):
    environment = make("carrot-on-plate")
    before = environment.reset(seed=0)[0]["state"]
    action = np.array(STILL)
    action[axis] = -0.01
    for _ in range(5):
        after = environment.step(action)[0]["state"]
    moved = after[:3] - before[:3]
    assert moved[axis] == pytest.approx(-0.05, abs=0.015) and np.abs(np.delete(moved, axis)).max() < 0.01


@pytest.mark.parametrize("axis", [3, 4, 5])
def test_actions_turn_the_gripper_about_base_axes_by_radians(make, axis):
    from gymnast_simpler.bridge import DEFAULT_ROTATION, matrix_fixed

    environment = make("carrot-on-plate")
    before = environment.reset(seed=0)[0]["state"]
    action = np.array(STILL)
    action[axis] = 0.05
    for _ in range(5):
        after = environment.step(action)[0]["state"]
    start, end = (matrix_fixed(state[3:6]) @ DEFAULT_ROTATION for state in (before, after))
    turned = end @ start.T
    about = np.array([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0], turned[1, 0] - turned[0, 1]]) / 2
    assert about[axis - 3] == pytest.approx(0.25, abs=0.08) and np.abs(np.delete(about, axis - 3)).max() < 0.06


def test_the_gripper_closes_at_zero_and_opens_at_one(make):
    environment = make("carrot-on-plate")
    assert environment.reset(seed=0)[0]["state"][6] == 1.0
    shut = np.zeros(7, np.float32)
    closed = [environment.step(shut)[0]["state"][6] for _ in range(4)][-1]
    opened = [environment.step(STILL)[0]["state"][6] for _ in range(4)][-1]
    assert closed < 0.1 and opened > 0.9


@pytest.mark.parametrize("task", ["carrot-on-plate", "spoon-on-towel", "stack-cubes"])
def test_the_source_on_the_target_is_success_and_ends_the_episode(make, task):
    environment = make(task)
    environment.reset(seed=1)
    source, target = objects(environment)
    put(source, target.pose.p[0].numpy() + np.array([0, 0, 0.03]))
    for _ in range(8):
        _, reward, terminated, truncated, info = environment.step(STILL)
        if terminated:
            break
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"] and info["source_on_target"] and info["partial_credit"] == 1.0
    assert environment.reset(seed=1)[1]["success"] is False


def test_holding_the_object_is_half_of_the_credit(make):
    import sapien

    environment = make("carrot-on-plate")
    environment.reset(seed=1)
    source, _ = objects(environment)
    hand = environment.unwrapped._twin.agent.robot.links_map["gripper_link"]
    shut = np.zeros(7, np.float32)
    seen = []
    for i in range(10):
        if i < 4:  # between the fingers until they have closed on it
            between = sapien.Pose(hand.pose.p[0].numpy(), hand.pose.q[0].numpy()) * sapien.Pose([0.1, 0, 0])
            put(source, between.p, between.q)
        seen.append(environment.step(shut)[4])
    assert seen[0]["partial_credit"] == 0.0 and not seen[0]["ever_grasped"]
    assert seen[4]["grasped"] and not seen[4]["held"] and seen[4]["partial_credit"] == 0.0
    assert seen[-1]["grasped"] and seen[-1]["ever_grasped"] and seen[-1]["held"]
    assert seen[-1]["partial_credit"] == 0.5 and not seen[-1]["success"]


def test_an_episode_is_cut_off_at_its_horizon(make):
    environment = make("carrot-on-plate")
    environment.reset(seed=2)
    assert [environment.step(STILL)[3] for _ in range(12)] == [False] * 11 + [True]


def test_missing_assets_are_named_with_the_commands_that_fetch_them(maniskill, tmp_path):
    code = 'import gymnasium; gymnasium.make("gymnast_simpler:gymnast/Simpler-v0")'
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MS_ASSET_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1 and "FileNotFoundError" in done.stderr
    for name in ("bridge_v2_real2sim", "widowx250s"):
        assert f"mani_skill.utils.download_asset {name}" in done.stderr
