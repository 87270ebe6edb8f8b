"""From a robot's actions to what Cosmos 3 was trained on: changes of pose in the gripper's own frame, normalised.

Frames and offsets are those of NVIDIA's cosmos-framework for its domain `bridge_orig_lerobot`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.reading import read_object
from torch import Tensor

BRIDGE_WIDTH = 7
"""x, y, z (metres), roll, pitch, yaw (radians), gripper (1 open, 0 closed)."""
TOOL = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Bridge's recorded rotations are those of the kinematic chain times the transpose of this."""
OPENCV = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Kinematic axes of a WidowX gripper to the axes that Cosmos uses (x right, y down, z forward)."""
FLANGE = torch.tensor([-0.093575, 0.0, 0.0])
"""Metres from the WidowX's tool point to the body that Cosmos follows, in the gripper's kinematic axes."""


@dataclass(frozen=True)
class Quantiles:
    """q01 and q99 of the training data, one number a dimension: they become -1 and 1."""

    low_A: Tensor
    high_A: Tensor

    def normalise(self, actions: Tensor) -> Tensor:
        centre, half = (self.high_A + self.low_A) / 2, (self.high_A - self.low_A).clamp(min=1e-8) / 2
        return (actions - centre) / half


def read_quantiles(path: Path, width: int) -> Quantiles:
    """A JSON file {"q01": [...], "q99": [...]}, perhaps under "global". Raises `CheckpointError` for anything else."""
    try:
        held = read_object(path.expanduser(), CheckpointError)
        held = held.object("global") if "global" in held else held
        low, high = (torch.tensor(held.numbers(name), dtype=torch.float32) for name in ("q01", "q99"))
    except CheckpointError as error:
        raise CheckpointError(
            f"The action statistics {path} cannot be read ({error}): a JSON object with the "
            "lists q01 and q99 is needed, as in NVIDIA's cosmos-framework (…_stats.json)."
        ) from error
    if low.shape != (width,) or high.shape != (width,):
        sizes = f"{tuple(low.shape)} and {tuple(high.shape)}"
        raise ConfigError(
            f"The action statistics {path} have sizes {sizes}; the domain's actions have {width} dimensions."
        )
    return Quantiles(low, high)


def rotation(euler: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of roll, pitch, yaw (..., 3) in radians, about fixed x, then y, then z."""
    (sr, sp, sy), (cr, cp, cy) = euler.sin().unbind(-1), euler.cos().unbind(-1)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def bridge_to_cosmos(actions_LA: Tensor, euler: Tensor) -> Tensor:
    """Changes of pose (L, 10): metres and the first two columns of a rotation, both in the gripper's axes; gripper.

    `actions_LA` (L, 7) are differences of Bridge's recorded states, base axes; `euler` (3,) is the recorded
    rotation (radians) before the first of them. Cosmos' `backward_framewise`: inverse(T_i) T_i+1.
    """
    actions = actions_LA.double()
    eulers = torch.cat([euler.double()[None], euler.double() + actions[:, 3:6].cumsum(0)])
    positions = torch.cat([torch.zeros(1, 3).double(), actions[:, :3].cumsum(0)])
    kinematic = rotation(eulers) @ TOOL.double()
    positions = positions + kinematic @ FLANGE.double()
    frames = kinematic @ OPENCV.double()
    back = frames[:-1].transpose(-1, -2)
    moved = (back @ (positions[1:] - positions[:-1])[..., None])[..., 0]
    turned = back @ frames[1:]
    return torch.cat([moved, turned[..., 0], turned[..., 1], actions[:, 6:7]], dim=-1).float()


class ActionSpace:
    """Converts the actions of one episode after another; the caller keeps each one's rotation.

    `layout` "bridge": 7 dimensions of a WidowX in base axes. "native": the domain's own `width`, normalised only.
    """

    def __init__(self, layout: str, width: int, quantiles: Quantiles | None) -> None:
        self.layout, self.model_width, self.quantiles = layout, width, quantiles
        self.width = BRIDGE_WIDTH if layout == "bridge" else width

    def check(self, actions: Tensor) -> None:
        """Raise `DataError` for actions of another width."""
        if actions.shape[-1] != self.width:
            raise DataError(f"The actions have {actions.shape[-1]} dimensions, the world model's have {self.width}.")

    def to_model(self, actions_LA: Tensor, euler: Tensor) -> Tensor:
        """Robot units (L, width) to the model's (L, model_width)."""
        values = bridge_to_cosmos(actions_LA, euler) if self.layout == "bridge" else actions_LA.float()
        return values if self.quantiles is None else self.quantiles.normalise(values)

    def turn(self, euler: Tensor, actions_LA: Tensor) -> Tensor:
        """The rotation after those actions, radians (3,)."""
        return euler + actions_LA[:, 3:6].double().sum(0) if self.layout == "bridge" else euler
