"""What the guard of the first frame refuses, and what it lets pass."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_scenes import BLUE, FAR, RED, TABLE, Block, Scene
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart, Task, one_camera
from gymnast_environment.guard import check_start
from gymnast_environment.view import View
from gymnast_environment.worker.pictures import differing_share
from gymnast_environment.worker.seeing import Sensed
from gymnast_environment.world import GymnasiumWorld

TOLERANCE = GymnasiumWorld.Config().first_frame_tolerance
EFFECTOR = Block(10.0, 20.0, 5.0, (20, 20, 20))


def refused(expected: np.ndarray, shown: np.ndarray, **changes: Any) -> str | None:
    """What the guard says of a task with that frame whose environment shows the other; None if it lets it pass."""
    task = Task("t", "move it", one_camera(torch.from_numpy(expected[None].copy())), start=EnvironmentStart("X-v0", 3))
    try:
        check_start(replace(task, **changes), Sensed(shown[None]), View(), TOLERANCE)
    except DataError as error:
        return str(error)
    return None


OTHER = {
    "a block, one pixel to the right": (TABLE, TABLE.with_block(0, x=21.0)),
    "the small block, one pixel down": (TABLE, TABLE.with_block(2, y=53.0)),
    "the small block is gone": (TABLE, Scene(TABLE.blocks[:2])),
    "one more small block": (TABLE, Scene((*TABLE.blocks, Block(12.0, 55.0, 3.0, RED)))),
    "a block of another colour": (TABLE, TABLE.with_block(0, colour=BLUE)),
    "the small block of another colour": (TABLE, TABLE.with_block(2, colour=RED)),
    "two blocks swapped": (
        TABLE,
        TABLE.with_block(0, colour=TABLE.blocks[1].colour).with_block(1, colour=TABLE.blocks[0].colour),
    ),
    "dimmer light": (TABLE, replace(TABLE, light=0.8)),
    "another camera": (TABLE, replace(TABLE, camera=2.0)),
    "far things in other places": (FAR, FAR.with_block(0, x=26.0).with_block(1, x=47.0)),
    "one step later": (
        Scene((*TABLE.blocks, EFFECTOR)),
        Scene((*TABLE.blocks, replace(EFFECTOR, x=EFFECTOR.x + 1.0))),
    ),
    "a larger block": (TABLE, TABLE.with_block(1, side=11.0)),
}


@pytest.mark.parametrize(("before", "after"), OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("samples", [1, 4])
def test_another_scene_is_refused(before: Scene, after: Scene, samples: int) -> None:
    assert "of the pixels differ by more than 16 levels" in str(refused(before.draw(samples), after.draw(samples)))


def test_a_scene_of_small_far_things_hardly_changes_the_mean() -> None:
    """The case that a mean over the frame does not see."""
    before, after = OTHER["far things in other places"]
    levels = np.abs(before.draw().astype(int) - after.draw()).mean()
    assert levels < 0.5  # of 255, less than a renderer's rounding may be


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.rot90], ids=["mirrored", "upside down", "rotated"])
def test_a_picture_turned_round_is_refused(turn: Any) -> None:
    assert refused(TABLE.draw(), np.ascontiguousarray(turn(TABLE.draw())))


def test_red_and_blue_exchanged_is_refused() -> None:
    assert refused(TABLE.draw(), TABLE.draw()[..., ::-1])


def test_another_size_is_refused() -> None:
    assert "shape (48, 48, 3) instead of (64, 64, 3)" in str(refused(TABLE.draw(), TABLE.draw(size=48)))


def noise(levels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-levels, levels, TABLE.draw().shape, endpoint=True)


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(memory))


SAME = {
    "itself": TABLE.draw(),
    "rounding by 2 levels": np.clip(TABLE.draw() + noise(2), 0, 255).astype(np.uint8),
    "noise of 15 levels": np.clip(TABLE.draw() + noise(15), 0, 255).astype(np.uint8),
    "compression": compressed(TABLE.draw(), 90),
    "twice as many samples a pixel": TABLE.draw(8),
    "half as many samples": TABLE.draw(2),
    "a third of a pixel to the right": replace(TABLE, camera=0.33).draw(),
    "slightly brighter": replace(TABLE, light=1.05).draw(),
}


@pytest.mark.parametrize("scene", SAME.values(), ids=SAME)
def test_the_same_scene_by_another_renderer_passes(scene: np.ndarray) -> None:
    assert refused(TABLE.draw(), scene) is None
    assert refused(scene, TABLE.draw()) is None


def test_the_share_is_that_of_the_pixels_that_differ() -> None:
    black, white = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)
    white[2:4, 5:8, 1] = 17
    assert differing_share(black, white) == pytest.approx(0.06)
    white[2:4, 5:8, 1] = 16
    assert differing_share(black, white) == 0.0


def test_each_camera_is_compared() -> None:
    view = View({"front": "a", "wrist": "b"})
    frames_VHWC = torch.from_numpy(np.stack([TABLE.draw(), FAR.draw()]))
    task = Task("t", "i", frames_VHWC[None], ("front", "wrist"), start=EnvironmentStart("X-v0", 0))
    check_start(task, Sensed(frames_VHWC.numpy()), view, TOLERANCE)
    moved = np.stack([TABLE.draw(), FAR.with_block(1, x=44.0).draw()])
    with pytest.raises(DataError, match="of the camera wrist differ"):
        check_start(task, Sensed(moved), view, TOLERANCE)


def test_readings_are_compared() -> None:
    """What no picture shows: an arm that starts elsewhere behind the same picture."""
    task = Task(
        "t", "i", one_camera(torch.from_numpy(TABLE.draw()[None])), start=EnvironmentStart("X-v0", 0),
        proprio_TP=torch.tensor([[0.5, -1.2]]),
    )  # fmt: skip
    check_start(task, Sensed(TABLE.draw()[None], np.array([0.5001, -1.2], np.float32)), View(), TOLERANCE)
    with pytest.raises(DataError, match=r"reading 1 is -1\.21 instead of -1\.2\b"):
        check_start(task, Sensed(TABLE.draw()[None], np.array([0.5, -1.21], np.float32)), View(), TOLERANCE)
    with pytest.raises(DataError, match="3 readings instead of 2"):
        check_start(task, Sensed(TABLE.draw()[None], np.zeros(3, np.float32)), View(), TOLERANCE)
