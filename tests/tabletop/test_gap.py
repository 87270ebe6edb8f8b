"""A simulator that is not quite the robot: each part of the gap does what it says, and none is the standard table."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
import torch

from gymnast_core.errors import ConfigError
from gymnast_core.plugins.compose import registries
from gymnast_environment.world import GymnasiumWorld
from gymnast_tabletop.gap import Gap, read_gap
from gymnast_tabletop.instructions import start_scene
from gymnast_tabletop.scene import VIEW_WIDTH, Scene
from gymnast_tabletop.simulation import Tabletop

SIZE = 64


def red(frame_HWC: np.ndarray) -> np.ndarray:
    """Mean place (column, row) of red pixels, and their number."""
    pixels = frame_HWC.astype(int)
    rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1:].max(-1) > 60)
    return np.array([columns.mean(), rows.mean(), len(rows)])


def shown(gap: Gap) -> np.ndarray:
    table = Tabletop(image_size=SIZE, gap=gap)
    table.reset(Scene(("red", "blue"), np.array([0.1, 0.1, -0.05, -0.05, 0, 0.1, -0.1, 0])))
    return table.render()


def test_no_gap_is_the_standard_table_bit_for_bit() -> None:
    plain, same = Tabletop(n_blocks=3, image_size=32), Tabletop(n_blocks=3, image_size=32, gap=Gap())
    rng = np.random.default_rng(0)
    for seed in range(3):
        for table in (plain, same):
            table.reset(start_scene(seed, 3))
        for action in rng.uniform(-0.02, 0.02, (8, 2)):
            for table in (plain, same):
                table.step(action)
            assert (plain.render() == same.render()).all() and (plain.state == same.state).all()
    tasks = registries().datasets.build("tabletop", {"count": 1, "image_size": 32}).tasks()
    assert tasks[0].start.args == {"image_size": 32, "n_blocks": 2, "horizon": 16}


def test_the_camera_shifts_and_zooms_by_what_was_said() -> None:
    standard = red(shown(Gap()))
    shifted = red(shown(Gap(camera_shift=[0.02, -0.01])))
    pixels = SIZE / VIEW_WIDTH
    # The camera goes to the right and down, so the table goes to the left and up.
    assert shifted[:2] - standard[:2] == pytest.approx([-0.02 * pixels, -0.01 * pixels], abs=0.4)
    zoomed = red(shown(Gap(camera_zoom=1.5)))
    assert zoomed[2] / standard[2] == pytest.approx(1.5**2, rel=0.08)
    centre = (SIZE - 1) / 2
    assert zoomed[:2] - centre == pytest.approx(1.5 * (standard[:2] - centre), abs=0.5)


def test_colours_turn_and_dim() -> None:
    standard, green = shown(Gap()), shown(Gap(hue=120.0))
    place = tuple(np.round(red(standard)[[1, 0]]).astype(int))
    assert standard[place].argmax() == 0 and green[place].argmax() == 1
    assert np.sort(green[place]) == pytest.approx(np.sort(standard[place]), abs=1)
    dim = shown(Gap(brightness=0.5))
    assert dim.astype(float) == pytest.approx(standard / 2, abs=1)


def test_low_friction_lets_a_block_slide_on() -> None:
    def pushed(friction: float) -> float:
        table = Tabletop(image_size=32, gap=Gap(friction=friction))
        table.reset(Scene(("red", "blue"), np.array([-0.08, 0, 0, 0, 0, 0.1, 0.1, 0])))
        for step in range(12):
            table.step(np.array([0.02 if step < 4 else 0.0, 0.0]))
        return float(table.state[2])

    assert pushed(0.01) > pushed(1.0) + 0.005
    assert pushed(1.0) == pytest.approx(pushed(3.0), abs=0.004)


def test_tasks_start_from_what_their_environment_shows() -> None:
    args = {"count": 2, "image_size": 32, "gap": {"brightness": 0.7, "camera_zoom": 1.2}}
    tasks = registries().datasets.build("tabletop", args).tasks()
    assert json.loads(json.dumps(tasks[0].start.args))["gap"] == {"camera_zoom": 1.2, "brightness": 0.7}
    world = GymnasiumWorld(GymnasiumWorld.Config(first_frame_tolerance=0.0))
    step = world.step(world.reset([tasks[0], tasks[1]]), torch.zeros(2, 1, 2))
    assert step.frames_BLVHWC.shape == (2, 1, 1, 32, 32, 3)
    plain = registries().datasets.build("tabletop", {"count": 1, "image_size": 32}).tasks()[0]
    assert plain.id == tasks[0].id and (plain.frames_TVHWC != tasks[0].frames_TVHWC).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"camera_shift": [0.5, 0.0]}, "camera_shift"),
        ({"camera_shift": [0.0]}, "camera_shift"),
        ({"camera_zoom": 0.0}, r"gap.camera_zoom is 0; it must be at least 0.5 and at most 2."),
        ({"friction": -1.0}, "friction"),
        ({"frction": 1.0}, "Did you mean 'friction'"),
    ],
)
def test_a_gap_that_makes_no_sense_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_gap(values)
    with pytest.raises(ConfigError, match=message):
        gymnasium.make("gymnast/Tabletop-v0", gap=values)
