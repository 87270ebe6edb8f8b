"""Conventions, against values from elsewhere; no simulator."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from gymnast_libero.conventions import axis_angle, gripper_bounds, oriented, to_libero
from gymnast_libero.suites import HORIZONS, TASKS, horizon_of


@pytest.mark.parametrize(
    ("said", "meant"),
    [(1.0, -1.0), (0.996, -1.0), (0.6, -1.0), (0.5, 0.0), (0.4, 1.0), (0.0, 1.0), (-0.2, 1.0)],
)
def test_open_is_one_for_openvla_and_minus_one_for_libero(said, meant):
    action = to_libero(np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6, said], np.float32), "openvla")
    np.testing.assert_allclose(action, [0.1, -0.2, 0.3, 0.4, -0.5, 0.6, meant], atol=1e-6)


def test_libero_s_own_actions_are_passed_on():
    action = np.linspace(-1, 1, 7, dtype=np.float32)
    np.testing.assert_array_equal(to_libero(action, "libero"), action)
    assert gripper_bounds("libero") == (-1.0, 1.0) and gripper_bounds("openvla") == (0.0, 1.0)


def test_rotation_vectors_are_those_of_the_long_way_round_too():
    np.testing.assert_allclose(axis_angle(np.array([1.0, 0.0, 0.0, 0.0])), [np.pi, 0, 0])
    np.testing.assert_allclose(axis_angle(np.array([0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)])), [0, 0, np.pi / 2])
    # The same rotation as by -90 degrees, said as 270: LIBERO's statistics keep it so.
    np.testing.assert_allclose(axis_angle(np.array([0.0, 0.0, np.sqrt(0.5), -np.sqrt(0.5)])), [0, 0, 3 * np.pi / 2])
    np.testing.assert_array_equal(axis_angle(np.array([0.0, 0.0, 0.0, 1.0])), np.zeros(3))
    np.testing.assert_array_equal(axis_angle(np.array([0.0, 0.0, 0.0, 1.0000001])), np.zeros(3))


def test_published_pictures_are_raw_ones_rotated_by_half_a_turn():
    rendered = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    raw = oriented(rendered, "raw")
    np.testing.assert_array_equal(raw, rendered[::-1])
    np.testing.assert_array_equal(oriented(rendered, "published"), np.rot90(raw, 2))
    np.testing.assert_array_equal(oriented(rendered, "upright"), rendered)
    assert oriented(rendered, "published").flags["C_CONTIGUOUS"]


def test_five_suites_have_130_tasks_and_published_horizons():
    assert sum(TASKS.values()) == 130 and TASKS.keys() == HORIZONS.keys()
    assert horizon_of("libero_10", None) == 520 and horizon_of("libero_10", 7) == 7
    with pytest.raises(ValueError, match="libero_spatial_swap"):
        horizon_of("libero_spatial_swap", None)
    with pytest.raises(ValueError, match="at least one"):
        horizon_of("libero_10", 0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"rendering": "pretty"}, "published, fast"),
        ({"orientation": "left"}, "published, upright, raw"),
        ({"gripper": "hand"}, "openvla, libero"),
        ({"image_size": 2}, "at least 8 pixels"),
        ({"settle": -1}, "settle -1"),
    ],
)
def test_an_option_that_there_is_not_is_refused_before_anything_is_loaded(args, words):
    with pytest.raises(ValueError, match=words):
        gymnasium.make("gymnast_libero:gymnast/Libero-v0", **args)
