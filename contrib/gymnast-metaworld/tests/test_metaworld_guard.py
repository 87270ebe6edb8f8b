"""The guard of first frames in Meta-World: starts that are not the task's own, from glaring to a single pixel."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("metaworld", reason="pip install metaworld, which needs mujoco 3.3.0")

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart, Task, one_camera
from gymnast_environment.guard import check_start
from gymnast_environment.view import View
from gymnast_environment.worker.seeing import Sensed
from gymnast_environment.world import GymnasiumWorld
from metaworld_parts import ID, make

# As far away as Meta-World's own corner cameras: a puck has two or three of 64 x 64 pixels.
FAR = {"position": (1.3, -0.2, 1.1), "target": (0.0, 0.7, 0.1), "fov": 60.0}
NEARER = {"position": (0.61, 0.30, 0.75)}
VIEW = View(proprio=["proprio"], proprio_dim=4)


@cache
def environment(task: str, camera: str, quality: str) -> Any:
    return make(task, camera={"far": FAR, "nearer": NEARER}.get(camera, camera), quality=quality)


def start(
    task: str = "push",
    seed: int = 1,
    *,
    camera: str = "front",
    quality: str = "fast",
    steps: int = 0,
    shift: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, readings and true state after a reset, some steps, and with the object moved to the right, metres."""
    live = environment(task, camera, quality)
    seen, _ = live.reset(seed=seed)
    for _ in range(steps):
        seen, *_ = live.step(np.array([0.3, 0.0, 0.0, 0.0], np.float32))
    if shift:
        simulation = live.unwrapped._simulation
        position, speed = simulation.data.qpos.copy(), simulation.data.qvel.copy()
        position[9] += shift
        simulation.set_state(position, speed)
        seen = live.unwrapped._observation()
    return seen["image"], seen["proprio"], live.unwrapped.state


def refusal(wanted: dict[str, Any], shown: dict[str, Any], *, readings: bool = False) -> str | None:
    """What the guard says of a task that begins as `wanted` where the environment shows `shown`; None if it passes."""
    image, proprio, _ = start(**wanted)
    task = Task(
        "t", "move it", one_camera(torch.from_numpy(image[None].copy())), start=EnvironmentStart(ID, 1),
        proprio_TP=torch.from_numpy(proprio[None].copy()) if readings else None,
    )  # fmt: skip
    image, proprio, _ = start(**shown)
    sensed = Sensed(image[None], proprio if readings else None)
    try:
        check_start(task, sensed, VIEW if readings else View(), GymnasiumWorld.Config().first_frame_tolerance)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("one", "other"), [(9, 12), (9, 11), (1, 7)])
def test_a_puck_16_centimetres_away_is_seen_where_the_mean_changes_by_a_tenth_of_a_level(one, other):
    (here, _, state), (there, _, moved) = start(seed=one, camera="far"), start(seed=other, camera="far")
    assert 0.15 < np.linalg.norm(state[4:7] - moved[4:7]) < 0.18
    assert 0.05 < np.abs(here.astype(int) - there).mean() < 0.11
    message = refusal({"seed": one, "camera": "far"}, {"seed": other, "camera": "far"})
    assert "of the pixels differ by more than 16 levels" in str(message)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another seed": ({}, {"seed": 2}),
    "another seed, far away": ({"camera": "far"}, {"seed": 2, "camera": "far"}),
    "the object 2 cm to the right": ({}, {"shift": 0.02}),
    "the object 1 cm to the right": ({}, {"shift": 0.01}),
    "the object 2 cm to the right, far away": ({"camera": "far"}, {"camera": "far", "shift": 0.02}),
    "one step late": ({}, {"steps": 1}),
    "a task with the same things": ({"task": "reach"}, {"task": "pick-place"}),
    "a task with almost the same things": ({}, {"task": "push-back"}),
    "lock and unlock": ({"task": "door-lock"}, {"task": "door-unlock"}),
    "a wall more": ({"task": "button-press"}, {"task": "button-press-wall"}),
    "another thing": ({"task": "door-open"}, {"task": "drawer-open"}),
    "the camera 1 cm aside": ({}, {"camera": "nearer"}),
    "another camera": ({}, {"camera": "close"}),
    "with shadows": ({}, {"quality": "full"}),
}


@pytest.mark.parametrize(("wanted", "shown"), OTHERS.values(), ids=OTHERS)
def test_another_start_is_refused(wanted, shown):
    assert "of the pixels differ by more than 16 levels" in str(refusal(wanted, shown))
    assert refusal(shown, wanted)


def test_the_same_start_passes_again_and_again():
    for _ in range(2):
        assert refusal({"seed": 1, "camera": "far"}, {"seed": 1, "camera": "far"}, readings=True) is None
        assert refusal({"task": "door-open"}, {"task": "door-open"}, readings=True) is None


def test_readings_tell_what_a_picture_from_afar_hides():
    message = refusal({"camera": "far"}, {"camera": "far", "steps": 1}, readings=True)
    assert message is not None


def test_the_world_refuses_tasks_of_another_scene_and_takes_its_own():
    image, _, _ = start(seed=9, camera="far")
    args = {"task": "push", "camera": FAR}
    task = Task(
        "t", "push it", one_camera(torch.from_numpy(image[None].copy())), start=EnvironmentStart(ID, 12, args=args)
    )
    world = GymnasiumWorld()
    try:
        with pytest.raises(DataError, match=r"does not show after reset\(seed=12\)"):
            world.reset([task])
        own = Task("t", "push it", task.frames_TVHWC, start=EnvironmentStart(ID, 9, args=args))
        step = world.step(world.reset([own]), torch.zeros(1, 1, 4))
        assert step.frames_BLVHWC.shape == (1, 1, 1, 64, 64, 3)
    finally:
        world.close()
