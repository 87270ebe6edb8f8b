"""Frames of long ago, shown before the window because the robot was then near where it is going now.

A window forgets what left it: a drawer that was opened, what lay behind the arm. Ctrl-World (arXiv 2510.10125) shows
its model past frames, retrieved by pose. Here the pose is the sum of the actions so far in some of their dimensions,
so that it is known while imagining, too. Of the frames before the window, those with the nearest poses to that of the
newest frame are shown in front of it, finished. Every frame comes with its pose against the newest one's, so that it
can be told which of the remembered ones was seen from its own place.

Shapes: B episodes, T frames, K remembered frames, A model action dimensions, P pose dimensions, R = A + P + 1 numbers
of a frame's condition: its action, its pose, and whether it is remembered (1, and no action) or of the window (0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PoseMemory:
    """How many frames are remembered, and by what."""

    frames: int
    """K."""
    dims: Sequence[int]
    """The P action dimensions whose sums are the pose."""
    every: int
    """Every n-th frame of an episode can be remembered."""

    def poses(self, slots_BTA: Tensor) -> Tensor:
        """(B, T, P): where the robot is at each frame, model units from the first one. Slots hold the actions that led
        to the frames."""
        return slots_BTA[..., list(self.dims)].cumsum(dim=-2)

    def chosen(self, poses_BTP: Tensor, first: int, target_BP: Tensor) -> Tensor:
        """Indices (B, K), in order of time, of the frames before frame `first` whose poses are nearest to the target.

        Where there are fewer, the episode's first frame stands for those that are missing.
        """
        candidates = torch.arange(0, first, self.every, device=poses_BTP.device)
        missing = max(self.frames - len(candidates), 0)
        distance_BN = (poses_BTP[:, candidates] - target_BP[:, None]).square().sum(-1)
        nearest = distance_BN.argsort(dim=1, stable=True)[:, : self.frames - missing]
        found = candidates[nearest.sort(dim=1).values]
        return F.pad(found, (missing, 0))

    def conditions(self, remembered_BKP: Tensor, poses_BTP: Tensor, slots_BTA: Tensor) -> Tensor:
        """(B, K + T, R) of remembered frames and those of the window, the last of which is the newest."""
        newest_B1P = poses_BTP[:, -1:]
        remembered = F.pad(remembered_BKP - newest_B1P, (slots_BTA.shape[-1], 0))
        window = torch.cat([slots_BTA, poses_BTP - newest_B1P], dim=-1)
        return torch.cat([F.pad(remembered, (0, 1), value=1.0), F.pad(window, (0, 1))], dim=1)


class History:
    """The finished frames of B episodes that can be remembered, and their poses."""

    def __init__(self, memory: PoseMemory, frames_BTHWC: Tensor, slots_BTA: Tensor) -> None:
        self.memory = memory
        self._frames: list[Tensor] = []
        self._poses_BTP = memory.poses(slots_BTA)
        self._length = 0
        self._keep(frames_BTHWC)

    def recalled(self, slots_BTA: Tensor, new: int) -> tuple[Tensor, Tensor]:
        """Frames (B, K, H, W, C) from before a window, and the conditions (B, K + T, R) of them and the window.

        `slots_BTA` are the actions that lead to the window's frames, of which the last `new` are to be imagined.
        """
        poses = self._with(slots_BTA[:, -new:])
        first = poses.shape[1] - slots_BTA.shape[1]
        index_BK = self.memory.chosen(poses, first, poses[:, -1])
        row_B1 = torch.arange(len(index_BK), device=index_BK.device)[:, None]
        frames = torch.stack(self._frames, dim=1)[row_B1, index_BK // self.memory.every]
        return frames, self.memory.conditions(poses[row_B1, index_BK], poses[:, first:], slots_BTA)

    def add(self, frames_BLHWC: Tensor, slots_BLA: Tensor) -> None:
        """The frames that the actions led to."""
        self._poses_BTP = self._with(slots_BLA)
        self._keep(frames_BLHWC)

    def _with(self, slots_BLA: Tensor) -> Tensor:
        """All poses so far, and those that the actions lead to."""
        return torch.cat([self._poses_BTP, self._poses_BTP[:, -1:] + self.memory.poses(slots_BLA)], dim=1)

    def _keep(self, frames_BTHWC: Tensor) -> None:
        count = frames_BTHWC.shape[1]
        kept = range(-self._length % self.memory.every, count, self.memory.every)
        # A frame of its own, not a view that would keep the whole chunk.
        self._frames += [frames_BTHWC[:, index].clone() for index in kept]
        self._length += count
