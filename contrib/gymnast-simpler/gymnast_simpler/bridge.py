"""Bridge's action and state (BridgeData V2, arXiv 2308.12952) and those of ManiSkill's WidowX, each in one place."""

from __future__ import annotations

import math

import numpy as np

DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""How the gripper is turned, in base axes, where Bridge's recorded roll, pitch and yaw are zero: it points down."""
FINGERS_M = (0.015, 0.037)
"""Position of a finger where the gripper is closed and open, metres: the controller's range."""
LARGEST_M = 1.0
"""Largest translation an action may ask for, metres; ManiSkill clips there, far beyond any arm."""


def to_maniskill(action_7: np.ndarray) -> np.ndarray:
    """Bridge's action as ManiSkill's controller takes it, float32.

    In: translation in base axes (metres), roll, pitch and yaw (radians, about the fixed base axes in this order), and
    the gripper, 1 open and 0 closed. Out: the same translation, angles about turning axes (x, then y, then z) of the
    same rotation, and the gripper as published evaluations say it: +1 (open) above 0.5, else -1 (closed).
    """
    action_7 = np.asarray(action_7, np.float64)
    rotation = angles_intrinsic(matrix_fixed(action_7[3:6]))
    return np.concatenate([action_7[:3], rotation, [1.0 if action_7[6] > 0.5 else -1.0]]).astype(np.float32)


def to_state(position_3: np.ndarray, quaternion_wxyz: np.ndarray, finger: float) -> np.ndarray:
    """Bridge's state, float32 (7,): position of the gripper in base axes (metres), its roll, pitch and yaw from
    pointing down (radians), and how open it is (0 closed, 1 open)."""
    rotation = angles_fixed(matrix_of(quaternion_wxyz) @ DEFAULT_ROTATION.T)
    closed, opened = FINGERS_M
    openness = min(max((finger - closed) / (opened - closed), 0.0), 1.0)
    return np.concatenate([position_3, rotation, [openness]]).astype(np.float32)


def matrix_fixed(angles_3: np.ndarray) -> np.ndarray:
    """The rotation by roll, pitch and yaw about fixed axes x, y and z, one after the other."""
    about_x, about_y, about_z = (_about(axis, float(angle)) for axis, angle in enumerate(angles_3))
    return about_z @ about_y @ about_x


def angles_fixed(matrix_33: np.ndarray) -> np.ndarray:
    """The inverse of `matrix_fixed`, pitch in [-π/2, π/2]."""
    m = matrix_33
    pitch = math.atan2(-m[2, 0], math.hypot(m[0, 0], m[1, 0]))
    if math.hypot(m[0, 0], m[1, 0]) < 1e-9:  # straight up or down: roll and yaw are one
        return np.array([math.atan2(-m[1, 2], m[1, 1]), pitch, 0.0])
    return np.array([math.atan2(m[2, 1], m[2, 2]), pitch, math.atan2(m[1, 0], m[0, 0])])


def angles_intrinsic(matrix_33: np.ndarray) -> np.ndarray:
    """Angles about x, the turned y, and the twice turned z, which make this rotation."""
    # Turning axes in this order are fixed axes in the opposite one: the inverse rotation by negated angles.
    return -angles_fixed(matrix_33.T)


def matrix_of(quaternion_wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = (float(value) for value in quaternion_wxyz / np.linalg.norm(quaternion_wxyz))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _about(axis: int, angle: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[one, one] = matrix[other, other] = cosine
    matrix[other, one], matrix[one, other] = sine, -sine
    return matrix
