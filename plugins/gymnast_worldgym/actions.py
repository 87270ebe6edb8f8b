"""From robot actions to the conditioning vectors of the frames.

Slot i conditions frame i. It holds the action that led to the frame (alignment `previous`) or, as the
published training data pairs them, the action chosen at the frame (`same`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_worldgym.architecture import Architecture


class ActionSpace:
    """Model units = robot units · scale + offset, padded with zeros to the model's width."""

    def __init__(self, architecture: Architecture) -> None:
        self.width = architecture.action_dim
        self.robot_width = architecture.robot_action_dim
        self.alignment = architecture.action_alignment
        self.scale = torch.tensor(list(architecture.action_scale), dtype=torch.float32)
        self.offset = torch.tensor(list(architecture.action_offset), dtype=torch.float32)
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
        scaled = actions.float() * self.scale.to(actions.device) + self.offset.to(actions.device)
        return torch.nn.functional.pad(scaled, (0, self.width - width))

    def slots(self, actions_TA: Tensor, start: int, frames: int, alignment: str | None = None) -> Tensor:
        """Slots (frames, A) of the frames from `start` on; zeros where the episode has no action."""
        first = start - 1 if (alignment or self.alignment) == "previous" else start
        chosen = self.to_model(actions_TA[max(first, 0) : first + frames])
        before = max(-first, 0)
        return torch.nn.functional.pad(chosen, (0, 0, before, frames - before - chosen.shape[0]))
