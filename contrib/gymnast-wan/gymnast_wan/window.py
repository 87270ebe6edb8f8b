"""What the transformer is shown of an episode: its first frame, the last ones, and the actions that led to them.

Shapes: C context frames, H W c pixels and colours, L new frames and actions, A action dimensions, model units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Window:
    """The first frame keeps its place for the whole episode, as in WoVR; with a context of 1 there is only the last."""

    frames_CHWc: Tensor
    """uint8 RGB."""
    actions_CA: Tensor
    """float32; the first frame's is the resting action, since none led to it."""

    def advance(self, frames_LHWc: Tensor, actions_LA: Tensor) -> None:
        """Go on by frames that were imagined."""
        context = len(self.frames_CHWc)
        if context == 1:
            self.frames_CHWc = frames_LHWc[-1:].clone()
            return
        self.frames_CHWc = _kept(self.frames_CHWc, frames_LHWc, context - 1)
        self.actions_CA = _kept(self.actions_CA, actions_LA, context - 1)


def open_window(frames_THWc: Tensor, actions_TA: Tensor, rest_A: Tensor, context: int) -> Window:
    """The window at the last of T recorded frames; `actions_TA` (T - 1, A) led from each to the next.

    Where there are too few, the first frame is shown again: the robot has been resting.
    """
    if context == 1:
        return Window(frames_THWc[-1:].clone(), rest_A[None].clone())
    still = Window(frames_THWc[:1].expand(context, -1, -1, -1), rest_A[None].expand(context, -1))
    still.advance(frames_THWc[1:], actions_TA)
    return still


def _kept(held: Tensor, new: Tensor, count: int) -> Tensor:
    """The first of what is held, then the last `count` of all others."""
    return torch.cat([held[:1], torch.cat([held[1:], new])[-count:]])
