"""Physics, rendering and determinism of the table."""

import time

import numpy as np
import pytest

from gymnast_core.errors import ConfigError
from gymnast_tabletop.geometry import image_points, wrist_points
from gymnast_tabletop.instructions import start_scene
from gymnast_tabletop.scene import BLOCK_SIZE, EFFECTOR_LIMIT, EFFECTOR_RADIUS, MAX_DELTA, VIEW_WIDTH, Scene
from gymnast_tabletop.simulation import Tabletop

HUES = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}


def masks(frame_HWC, colours):
    """Pixels of each block and of the end-effector, told apart by colour alone."""
    pixels = frame_HWC.astype(float) / 255
    saturated = pixels.max(-1) - pixels.min(-1) > 0.35
    normal = (pixels - pixels.min(-1, keepdims=True)) / np.maximum(np.ptp(pixels, axis=-1), 1e-6)[..., None]
    hues = np.array([HUES[colour] for colour in HUES])
    nearest = np.linalg.norm(normal[..., None, :] - hues, axis=-1).argmin(-1)
    blocks = [saturated & (nearest == list(HUES).index(colour)) for colour in colours]
    return [*blocks, pixels.max(-1) < 0.35]


def put(blocks, effector, colours=("red", "blue")) -> Scene:
    return Scene(colours, np.array([*effector, *np.ravel(blocks)], float))


@pytest.mark.parametrize("size", [32, 64])
def test_blocks_and_effector_appear_where_their_image_coordinates_say(size):
    table = Tabletop(n_blocks=3, image_size=size)
    for seed in range(8):
        scene = start_scene(seed, 3)
        table.reset(scene)
        expected_J2 = image_points(table.state) * size - 0.5
        for mask, expected in zip(masks(table.render(), scene.colours), expected_J2, strict=True):
            rows, columns = np.nonzero(mask)
            found = np.array([columns.mean(), rows.mean()])
            assert np.abs(found - expected).max() < 0.6 * size / 32, (seed, found, expected)


def test_the_wrist_camera_moves_with_the_effector():
    table, seen = Tabletop(n_blocks=2, image_size=64), 0
    for seed in range(12):
        scene = start_scene(seed, 2)
        table.reset(scene)
        *blocks, effector = masks(table.render("wrist"), scene.colours)
        *block_points, effector_point = wrist_points(table.state) * 64 - 0.5
        rows, columns = np.nonzero(effector)  # and the dark sides of blocks
        assert np.abs([np.median(columns) - 31.5, np.median(rows) - 31.5]).max() < 1 and (effector_point == 31.5).all()
        for mask, expected in zip(blocks, block_points, strict=True):
            if ((expected > 8) & (expected < 55)).all():  # the whole block is in view
                rows, columns = np.nonzero(mask)
                assert np.abs([columns.mean(), rows.mean()] - expected).max() < 1.5, (seed, expected)
                seen += 1
    assert seen >= 4


def test_a_block_is_six_pixels_wide_and_the_picture_points_up():
    table = Tabletop(image_size=32)
    table.reset(put([[0.1, 0.1, 0], [-0.1, -0.1, 0]], [0.1, -0.1]))
    red, blue, effector = masks(table.render(), ("red", "blue"))
    assert 30 <= red.sum() <= 42 and red[:16, 16:].sum() == red.sum()
    assert blue[16:, :16].sum() == blue.sum() > 0
    assert effector[16:, 16:].sum() == effector.sum() >= 4


def test_the_effector_stays_visible_while_it_pushes():
    table = Tabletop(image_size=32)
    table.reset(put([[0, 0, 0.2], [0.1, 0.1, 0]], [-0.08, 0]))
    for _ in range(8):
        table.step(np.array([MAX_DELTA, 0]))
        assert masks(table.render(), ("red", "blue"))[-1].sum() >= 4
    assert table.state[2] > 0.04


def test_free_motion_is_what_was_commanded_up_to_the_limit():
    table = Tabletop()
    table.reset(put([[0.1, 0.1, 0], [0.1, -0.1, 0]], [-0.05, 0]))
    rng = np.random.default_rng(0)
    for action in rng.uniform(-0.02, 0.02, (4, 2)):
        before = table.state[:2]
        table.step(action)
        # 1 mm is what inertia and the joint's damping leave after 0.1 s.
        np.testing.assert_allclose(table.state[:2] - before, action, atol=1e-3)
    before = table.state[:2]
    table.step(np.array([-1.0, 0.0]))
    np.testing.assert_allclose(table.state[:2] - before, [-MAX_DELTA, 0], atol=1e-3)
    assert pytest.approx(2.0) == MAX_DELTA / VIEW_WIDTH * 32


def test_the_effector_stays_in_view():
    table = Tabletop()
    table.reset(put([[0, 0, 0], [0.1, 0, 0]], [-0.1, 0.1]))
    for _ in range(8):
        table.step(np.array([-MAX_DELTA, MAX_DELTA]))
    assert np.abs(table.state[:2]).max() < EFFECTOR_LIMIT + 1e-3


def test_pushed_blocks_move_with_the_effector_and_stop_with_it():
    table = Tabletop()
    table.reset(put([[0, 0, 0], [0, 0.1, 0]], [-0.06, 0]))
    for _ in range(5):
        table.step(np.array([MAX_DELTA, 0]))
    pushed = table.state
    touching = pushed[2] - pushed[0]
    assert touching == pytest.approx(BLOCK_SIZE / 2 + EFFECTOR_RADIUS, abs=3e-3)
    for _ in range(5):
        table.step(np.zeros(2))
    np.testing.assert_allclose(table.state, pushed, atol=3e-3)
    np.testing.assert_allclose(pushed[5:7], [0, 0.1], atol=1e-6)


def test_same_seed_same_pixels_whatever_happened_before():
    fresh, used = Tabletop(), Tabletop()
    used.reset(start_scene(1, 2))
    for _ in range(10):
        used.step(np.array([0.02, -0.01]))
    rng = np.random.default_rng(3)
    actions = rng.uniform(-0.02, 0.02, (10, 2))
    for table in (fresh, used):
        table.reset(start_scene(5, 2))
        for action in actions:
            table.step(action)
    np.testing.assert_array_equal(fresh.state, used.state)
    np.testing.assert_array_equal(fresh.render(), used.render())


def test_scenes_differ_between_seeds_and_have_distinct_colours():
    scenes = [start_scene(seed, 3) for seed in range(20)]
    assert len({scene.state.tobytes() for scene in scenes}) == 20
    assert all(len(set(scene.colours)) == 3 for scene in scenes)


def test_four_blocks_are_refused():
    with pytest.raises(ConfigError, match="2 or 3 blocks"):
        start_scene(0, 4)


def test_rendering_is_fast_enough_to_record():
    table = Tabletop(image_size=32)
    table.reset(start_scene(0, 2))
    times = []
    for _ in range(50):
        started = time.perf_counter()
        table.render()
        times.append(time.perf_counter() - started)
    assert min(times) < 2e-3
