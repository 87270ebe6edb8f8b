"""Bridge's conventions against SciPy's rotations; no simulator."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from gymnast_simpler.bridge import (
    DEFAULT_ROTATION,
    angles_fixed,
    angles_intrinsic,
    matrix_fixed,
    to_maniskill,
    to_state,
)
from gymnast_simpler.twins import TWINS

rotations = pytest.importorskip("scipy.spatial.transform", reason="SciPy is not installed in this interpreter")
RANDOM = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 3))


@pytest.mark.parametrize("angles", RANDOM, ids=str)
def test_rotations_are_scipy_s(angles):
    theirs = rotations.Rotation.from_euler("xyz", angles)
    np.testing.assert_allclose(matrix_fixed(angles), theirs.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(angles_fixed(theirs.as_matrix()), theirs.as_euler("xyz"), atol=1e-9)
    np.testing.assert_allclose(angles_intrinsic(theirs.as_matrix()), theirs.as_euler("XYZ"), atol=1e-9)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_straight_up_and_down_are_rotations_too(pitch):
    matrix = matrix_fixed(np.array([0.3, pitch, 0.7]))
    np.testing.assert_allclose(matrix_fixed(angles_fixed(matrix)), matrix, atol=1e-9)


def test_an_action_keeps_its_translation_and_its_rotation():
    action = np.array([0.02, -0.01, 0.03, 0.1, -0.2, 0.3, 0.9], np.float32)
    told = to_maniskill(action)
    np.testing.assert_array_equal(told[:3], action[:3])
    wanted = rotations.Rotation.from_euler("xyz", action[3:6]).as_matrix()
    np.testing.assert_allclose(rotations.Rotation.from_euler("XYZ", told[3:6]).as_matrix(), wanted, atol=1e-6)


@pytest.mark.parametrize(("said", "meant"), [(1.0, 1.0), (0.51, 1.0), (0.5, -1.0), (0.0, -1.0)])
def test_an_open_gripper_is_one_for_bridge_and_for_maniskill(said, meant):
    assert to_maniskill(np.array([0, 0, 0, 0, 0, 0, said]))[6] == meant


def test_the_state_of_a_gripper_that_points_down_has_no_rotation():
    x, y, z, w = rotations.Rotation.from_matrix(DEFAULT_ROTATION).as_quat()
    state = to_state(np.array([0.3, 0.0, 0.1]), np.array([w, x, y, z]), 0.026)
    np.testing.assert_allclose(state, [0.3, 0.0, 0.1, 0, 0, 0, 0.5], atol=1e-6)
    # The gripper's own x axis, forward, is down in base axes.
    np.testing.assert_allclose(DEFAULT_ROTATION @ [1, 0, 0], [0, 0, -1])


def test_fingers_beyond_the_controller_s_range_are_open_or_closed():
    level = np.array([1.0, 0, 0, 0])
    assert to_state(np.zeros(3), level, 0.04)[6] == 1.0 and to_state(np.zeros(3), level, 0.0)[6] == 0.0


@pytest.mark.parametrize(
    ("args", "words"),
    [({"task": "fly"}, "stack-cubes"), ({"render_backend": "crayon"}, "cpu, gpu"), ({"horizon": 0}, "at least one")],
)
def test_an_option_that_there_is_not_is_refused_before_anything_is_loaded(args, words):
    with pytest.raises(ValueError, match=words):
        gymnasium.make("gymnast_simpler:gymnast/Simpler-v0", **args)


def test_there_are_simpler_s_four_tasks_with_its_horizons():
    assert {name: twin.horizon for name, twin in TWINS.items()} == {
        "spoon-on-towel": 60, "carrot-on-plate": 60, "stack-cubes": 60, "eggplant-in-basket": 120,
    }  # fmt: skip
