"""Conventions of LIBERO and of the policies that are trained on it, each in one place."""

from __future__ import annotations

import math

import numpy as np

GRIPPERS = ("openvla", "libero")
"""What the last number of an action means; see `to_libero`."""
ORIENTATIONS = ("published", "upright", "raw")
"""How pictures are turned; see `oriented`."""
WAIT = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
"""The action of published evaluations while objects come to rest, LIBERO's convention: stay, gripper open."""


def to_libero(action_7: np.ndarray, gripper: str) -> np.ndarray:
    """An action in the convention of LIBERO's controller, float64: motion in [-1, 1], gripper -1 open, +1 closed.

    "openvla" (OpenVLA, OpenVLA-OFT and the data sets made for them): gripper 1 open, 0 closed. As in their evaluations
    it becomes a sign: above 0.5 the gripper opens, below it closes, and at 0.5 it holds. "libero" (LIBERO's own
    demonstrations, LeRobot's copies of them): passed on.
    """
    action_7 = np.asarray(action_7, np.float64)
    if gripper == "libero":
        return action_7
    return np.append(action_7[:6], -np.sign(2.0 * action_7[6] - 1.0))


def gripper_bounds(gripper: str) -> tuple[float, float]:
    return (0.0, 1.0) if gripper == "openvla" else (-1.0, 1.0)


def oriented(image_HWC: np.ndarray, orientation: str) -> np.ndarray:
    """A picture as the renderer makes it, its first row at the top, turned.

    "raw": as LIBERO gives it, and its demonstrations keep it: upside down. "published": that rotated by 180 degrees, as
    the published policies, data sets and evaluations have it: the right way up, and mirrored. "upright": not mirrored,
    as a camera in that place would see it, and so as it came from the renderer.
    """
    turned = {"raw": image_HWC[::-1], "published": image_HWC[:, ::-1], "upright": image_HWC}[orientation]
    return np.ascontiguousarray(turned)


def axis_angle(quaternion_xyzw: np.ndarray) -> np.ndarray:
    """Rotation vector (radians) of a unit quaternion, of an angle in [0, 2π]: not shortened to the other way round,
    since the statistics of published policies are not."""
    w = min(max(float(quaternion_xyzw[3]), -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion_xyzw[:3]) * (2.0 * math.acos(w) / sine)
