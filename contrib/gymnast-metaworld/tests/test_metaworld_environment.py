"""The environment in itself: seeds, pictures, success, experts, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="pip install metaworld, which needs mujoco 3.3.0")

from gymnasium.utils.env_checker import check_env
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld_parts import digest, episode, make

from gymnast_metaworld.camera import Camera, read_camera
from gymnast_metaworld.instructions import INSTRUCTIONS, TASKS


def test_it_keeps_gymnasiums_contract():
    environment = make(image_size=16, wrist=True, render_mode="rgb_array", horizon=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(Box observation space|different from the unwrapped version).*")
        check_env(environment.unwrapped, skip_render_check=True)
    assert environment.unwrapped.render().shape == (16, 16, 3)
    environment.close()


def test_another_process_with_another_past_sees_the_same_pixels_and_outcomes():
    wanted, steps = {"door-open": [3, 11], "push": [11, 3]}, 16
    command = [sys.executable, str(Path(__file__).with_name("metaworld_parts.py")), json.dumps(wanted), str(steps)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for task, seeds in reversed(wanted.items()):
        environment = make(task, wrist=True)
        episode(environment, 99, 5)
        here = {seed: episode(environment, seed, steps) for seed in reversed(seeds)}
        wanted[task] = [here[seed] for seed in seeds]
        environment.close()
    told, _ = other.communicate(timeout=900)
    assert json.loads(told) == wanted
    assert wanted["door-open"][0][:2] != wanted["door-open"][1][:2]


def test_without_a_seed_resets_follow_from_the_last_one_given():
    environment = make(image_size=16)

    def some() -> list[str]:
        environment.reset(seed=5)
        return [digest(environment.reset()[0]["image"]) for _ in range(3)]

    first = some()
    assert some() == first and len(set(first)) == 3
    environment.close()


def test_environments_of_one_process_do_not_draw_each_others_textures():
    tasks = ("door-open", "drawer-open", "coffee-push")
    alone = {}
    for task in tasks:
        environment = make(task, wrist=True)
        seen, _ = environment.reset(seed=1)
        alone[task] = (seen["image"], seen["wrist_image"])
        environment.close()
    together = {task: make(task, wrist=True) for task in tasks}
    for environment in together.values():
        environment.reset(seed=1)
    for task in (*tasks, *tasks):
        seen, _ = together[task].reset(seed=1)
        np.testing.assert_array_equal(seen["image"], alone[task][0])
        np.testing.assert_array_equal(seen["wrist_image"], alone[task][1])
    together["drawer-open"].close()  # must not take the others' textures along
    for task in ("door-open", "coffee-push"):
        np.testing.assert_array_equal(together[task].reset(seed=1)[0]["image"], alone[task][0])
        together[task].close()


def test_all_of_meta_worlds_tasks_have_words_of_their_own():
    assert sorted(f"{task}-v3" for task in TASKS) == sorted(ALL_V3_ENVIRONMENTS) and len(TASKS) == 50
    every = [words for wordings in INSTRUCTIONS.values() for words in wordings]
    assert len(set(every)) == len(every)
    assert all(words == words.lower().strip() and "-" not in words and len(words) < 60 for words in every)


@pytest.mark.parametrize("task", ["door-open", "drawer-close", "button-press-topdown", "reach", "push"])
def test_experts_succeed_and_say_so(task):
    environment = make(task, image_size=8)
    environment.reset(seed=0)
    successes = []
    for _ in range(24):
        action = environment.unwrapped.expert_action()
        assert environment.action_space.contains(action)
        _, _, terminated, truncated, info = environment.step(action)
        successes.append((info["success"], info["success_any"]))
    assert truncated and not terminated
    assert successes[-1][1] and not successes[0][1]
    ever = False
    for now, any_so_far in successes:
        ever = ever or now
        assert any_so_far or not ever
    environment.close()


def test_the_camera_stands_still_and_points_are_where_things_are_seen():
    environment = make("reach", image_size=96)
    before, info = environment.reset(seed=2)
    for _ in range(3):
        after, *_ = environment.step(np.array([1, 0, 0, 0], np.float32))
    assert (before["image"] == after["image"]).all(-1).mean() > 0.75  # all but the arm, before and after
    # Reach marks its goal with a red ball on the brown table.
    image = before["image"].astype(int)
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1:] < 40).all(-1))
    x, y = info["points"][2] * 96 - 0.5
    ball = np.hypot(rows - y, columns - x) < 5
    assert ball.sum() >= 8
    assert abs(rows[ball].mean() - y) < 0.7 and abs(columns[ball].mean() - x) < 0.7
    environment.close()


@pytest.mark.parametrize("task", ["window-close", "drawer-open", "push"])
def test_the_first_state_is_where_things_are(task):
    environment = make(task, image_size=8, action_repeat=1).unwrapped
    environment.reset(seed=3)
    before = environment.state
    environment.advance(np.zeros(4))  # a step in which nothing is touched
    np.testing.assert_allclose(environment.state[4:7], before[4:7], atol=2e-3)
    np.testing.assert_allclose(environment.state[18:36], before[:18], atol=0)
    environment.close()


def test_projection_is_that_of_a_pinhole():
    camera = Camera(position=(0.0, -1.0, 0.0), target=(0.0, 0.0, 0.0), fov=90.0)
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1], [0, -2, 0]], float)
    np.testing.assert_allclose(
        camera.project(points), [[0.5, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 0.25], [np.nan, np.nan]], atol=1e-6
    )


def test_quality_camera_and_wording_change_what_they_say():
    def first(**args):
        environment = make(image_size=32, **args)
        seen, _ = environment.reset(seed=3, options=args.pop("options", None))
        environment.close()
        return seen

    plain = first()
    assert plain["instruction"] == "open the door"
    assert first(wording=1)["instruction"] == INSTRUCTIONS["door-open"][1]
    assert {first(wording=None)["instruction"], plain["instruction"]} <= set(INSTRUCTIONS["door-open"])
    assert (first(quality="full")["image"] != plain["image"]).any()
    assert (first(camera="left")["image"] != plain["image"]).any()
    moved = {"position": [0.60, 0.30, 0.75], "target": [0.0, 0.69, 0.12]}
    np.testing.assert_array_equal(first(camera=moved)["image"], plain["image"])


def test_an_instruction_can_be_given_and_must_be_text_of_its_space():
    environment = make(image_size=16)
    seen, _ = environment.reset(seed=0, options={"instruction": "please open it"})
    assert seen["instruction"] == "please open it"
    with pytest.raises(ValueError, match="letters, digits"):
        environment.unwrapped.reset(seed=0, options={"instruction": "open\nit"})
    environment.close()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"task": "door-opne"}, "Nearest: door-open"),
        ({"image_size": 4}, "image_size is 4; it must be from 8"),
        ({"action_repeat": 5, "horizon": 101}, "product at most 500"),
        ({"quality": "best"}, "choose from fast, full"),
        ({"wording": 2}, "door-open has 2 wordings"),
        ({"camera": "front2"}, "choose from front"),
        ({"camera": {"fovy": 3}}, "has no fovy"),
        ({"camera": {"fov": 0}}, "above 0 and below 180"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(args, message):
    with pytest.raises(ValueError, match=message):
        make(**args)


def test_a_straight_view_down_has_no_top():
    with pytest.raises(ValueError, match="straight down"):
        read_camera({"position": (0, 0.6, 1), "target": (0, 0.6, 0)})


def test_actions_are_four_finite_numbers_and_clipped():
    environment = make(image_size=8)
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="four finite numbers"):
        environment.unwrapped.step(np.array([0, np.nan, 0, 0]))
    environment.unwrapped.advance(np.array([9.0, 0, 0, 0]))
    far = environment.unwrapped.state[0]
    environment.reset(seed=0)
    environment.unwrapped.advance(np.array([1.0, 0, 0, 0]))
    assert environment.unwrapped.state[0] == far
    environment.close()


def test_it_runs_without_torch_and_gymnast_and_after_mujoco_was_imported():
    code = (
        "import mujoco, sys, gymnasium\n"
        "seen, _ = gymnasium.make('gymnast_metaworld:MetaWorld-v0', image_size=8).reset(seed=0)\n"
        "assert seen['image'].std() > 0\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'gymnast_core', 'transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.stdout.strip() == "[]" and not done.stderr, done.stderr
