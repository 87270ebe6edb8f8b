"""The Gymnasium environment and the scripted expert in it."""

import itertools
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import gymnast_tabletop
from gymnast_core.errors import ConfigError
from gymnast_tabletop.datasets import TabletopTasks
from gymnast_tabletop.experts import Expert
from gymnast_tabletop.instructions import INSTRUCTIONS, parse
from gymnast_tabletop.splits import SPLITS, split_seed


def make(**args):
    return gymnasium.make("gymnast/Tabletop-v0", **args)


@pytest.mark.parametrize("n_blocks", [2, 3])
def test_gymnasiums_own_check_passes(n_blocks):
    check_env(make(image_size=32, n_blocks=n_blocks, render_mode="rgb_array").unwrapped)


def test_registering_twice_is_harmless_and_importing_is_light():
    gymnast_tabletop.register_environments()
    code = (
        "import gymnasium, sys; import gymnast_tabletop; assert not {'torch', 'mujoco'} & set(sys.modules);"
        "assert 'gymnast/Tabletop-v0' in gymnasium.registry"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gymnasium_finds_it_without_an_import_of_ours():
    code = (
        "import gymnasium; environment = gymnasium.make('gymnast_tabletop:gymnast/Tabletop-v0');"
        "print(environment.observation_space.contains(environment.reset(seed=0)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"]


def test_same_seed_same_episode():
    observations = []
    for _ in range(2):
        env = make(image_size=32)
        observation, _ = env.reset(seed=11)
        moved = env.step(np.array([0.02, 0.01], np.float32))[0]
        observations.append((observation["instruction"], observation["image"], moved["image"]))
    assert observations[0][0] == observations[1][0]
    for one, other in zip(observations[0][1:], observations[1][1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_cameras_of_one_scene():
    one, both = make(image_size=32), make(image_size=32, wrist=True)
    check_env(make(image_size=32, wrist=True).unwrapped)
    plain, _ = one.reset(seed=4)
    seen, _ = both.reset(seed=4)
    np.testing.assert_array_equal(seen["image"], plain["image"])
    task = TabletopTasks(TabletopTasks.Config(image_size=32, wrist=True, count=3)).tasks()[2]
    assert task.cameras == ("front", "wrist")
    shown, _ = make(**task.start.args).reset(seed=task.start.seed, options=dict(task.start.options))
    for view, name in enumerate(("image", "wrist_image")):
        np.testing.assert_array_equal(task.frames_TVHWC[0, view].numpy(), shown[name])


def test_the_instruction_does_not_change_the_scene():
    env = make(image_size=32)
    drawn, _ = env.reset(seed=2)
    colour = env.unwrapped.scene.colours[0]
    asked = f"slide the {colour} cube to the left"
    given, _ = env.reset(seed=2, options={"instruction": asked})
    np.testing.assert_array_equal(drawn["image"], given["image"])
    assert given["instruction"] == asked


def test_bad_instructions_are_refused():
    env = make()
    with pytest.raises(ConfigError, match="No tabletop instruction"):
        env.reset(seed=0, options={"instruction": "fold the towel"})
    env.reset(seed=0)
    missing = ({"red", "green", "blue", "yellow"} - set(env.unwrapped.scene.colours)).pop()
    with pytest.raises(ConfigError, match=f"No {missing} block"):
        env.reset(seed=0, options={"instruction": f"push the {missing} block to the left"})


def run_expert(env, seed):
    """Rewards, success flags and truncations of an expert's episode."""
    observation, _ = env.reset(seed=seed)
    inner = env.unwrapped
    expert = Expert(parse(observation["instruction"]), inner.scene)
    steps = []
    while not steps or not steps[-1][2]:
        _, reward, _, truncated, info = env.step(expert(inner.state).astype(np.float32))
        steps.append((reward, info["success"], truncated))
    return steps


@pytest.mark.parametrize("n_blocks", [2, 3])
def test_the_expert_succeeds(n_blocks):
    env = make(image_size=8, n_blocks=n_blocks)
    done = [run_expert(env, split_seed("reporting", i))[-1][1] for i in range(50)]
    assert np.mean(done) >= 0.75


def test_the_reward_comes_once_at_the_horizon():
    env = make(image_size=8, horizon=20)
    episodes = [run_expert(env, split_seed("choosing", i)) for i in range(5)]
    assert any(steps[-1][1] for steps in episodes)
    for steps in episodes:
        assert len(steps) == 20
        assert [reward for reward, _, _ in steps] == [0.0] * 19 + [float(steps[-1][1])]


def test_doing_nothing_is_no_success():
    env = make(image_size=8)
    env.reset(seed=0)
    assert not any(env.step(np.zeros(2, np.float32))[4]["success"] for _ in range(16))


def test_splits_are_disjoint_and_bounded():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(ranges))
    assert split_seed("reporting", 3) == SPLITS["reporting"].start + 3
    with pytest.raises(ConfigError, match="Did you mean 'reporting'"):
        split_seed("report", 0)
    with pytest.raises(ConfigError, match="smaller index"):
        split_seed("training", 1 << 30)


def test_its_expert_fulfils_the_instruction_and_the_other_one_another():
    own, other, hindsight = 0, 0, 0
    for seed in range(20):
        env = make(image_size=8, horizon=40)
        for act in ("expert_action", "other_expert_action"):
            env.reset(seed=seed)
            for _ in range(40):
                *_, info = env.step(getattr(env.unwrapped, act)())
            done = [instruction for instruction, value in info["outcomes"].items() if value]
            if act == "expert_action":
                own += info["success"]
            else:
                other += info["success"]
                hindsight += len(done) == 1
    assert (own, other) == (20, 0)
    assert hindsight >= 18


def test_info_tells_every_instruction_about_a_block_on_the_table():
    env = make(image_size=8)
    _, info = env.reset(seed=3)
    colours = env.unwrapped.scene.colours
    assert set(info["outcomes"]) == {instruction for instruction in INSTRUCTIONS if instruction.split()[2] in colours}
    assert not any(info["outcomes"].values())
