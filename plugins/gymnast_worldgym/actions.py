"""From robot actions to the conditioning vectors of the frames.

Slot i conditions frame i. It holds the action that led to the frame (alignment `previous`) or, as the
published training data pairs them, the action chosen at the frame (`same`). Units are those of `robots`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_episodes.robots import Robot, robot
from gymnast_worldgym.architecture import Architecture


class ActionSpace:
    """From robot units to model units, padded with zeros to the model's width."""

    def __init__(self, architecture: Architecture, unit_range: bool = False) -> None:
        """With `unit_range`, actions span -1..1 of the robot's range; raises `ConfigError` if that is not known."""
        self.width = architecture.action_dim
        self.alignment = architecture.action_alignment
        self.robot = _custom(architecture) if architecture.robot is None else robot(architecture.robot)
        if unit_range:
            self.robot = self.robot.unit_range()
        self.robot_width = architecture.robot_action_dim if architecture.robot is None else self.robot.width
        """Width of the robot's actions; None takes any up to the model's."""
        self.null = torch.zeros(self.width)
        """The unconditional action: zeros with a last component of 1. (All zeros means "do not move".)"""
        self.null[-1] = 1.0

    def to_model(self, actions: Tensor) -> Tensor:
        """(..., robot width) in robot units to float32 (..., A) in model units."""
        width = actions.shape[-1]
        if self.robot_width is not None and width != self.robot_width:
            raise DataError(
                f"The world model takes actions of width {self.robot_width}, got {width}. "
                "Choose a policy (or episodes) and a world model of the same robot."
            )
        if width > self.width:
            raise DataError(f"The world model takes actions of width {self.width} at most, got {width}.")
        if not torch.isfinite(actions).all():
            raise DataError("Actions contain NaN or infinite values.")
        return torch.nn.functional.pad(self.robot.to_model(actions), (0, self.width - width))

    def slots(self, actions_TA: Tensor, start: int, frames: int, alignment: str | None = None) -> Tensor:
        """Slots (frames, A) of the frames from `start` on; zeros where the episode has no action."""
        first = start - 1 if (alignment or self.alignment) == "previous" else start
        chosen = self.to_model(actions_TA[max(first, 0) : first + frames])
        before = max(-first, 0)
        return torch.nn.functional.pad(chosen, (0, 0, before, frames - before - chosen.shape[0]))


def _custom(architecture: Architecture) -> Robot:
    """The robot that `action_scale` and `action_offset` describe; one number stands for all dimensions."""
    scale, offset = (
        tuple(row) * (architecture.action_dim if len(row) == 1 else 1)
        for row in (architecture.action_scale, architecture.action_offset)
    )
    return Robot("custom", architecture.robot_action_dim or architecture.action_dim, scale, offset)
