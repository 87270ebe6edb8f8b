"""The network: what changed between two frames, one logit for each instruction of a closed set."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Cells a side that the head still tells apart; pooling further would average the displacement away.
HEAD_CELLS = 4


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; group norm, because a rollout's score must not depend on its neighbours."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        return x_BCHW + self.conv2(F.silu(self.norm2(hidden_BCHW)))


class ChangeClassifier(nn.Module):
    """(first, last, last - first, x, y) -> one logit per instruction; 0.5M parameters at width 32."""

    def __init__(self, *, instructions: int, width: int, hidden: int):
        super().__init__()
        widths = [width, 2 * width, 3 * width]
        self.stem = nn.Conv2d(11, width, 4, stride=2, padding=1)
        stages: list[nn.Module] = [ResidualBlock(width)]
        for before, after in pairwise(widths):
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), ResidualBlock(after)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(8, widths[-1])
        self.head = nn.Sequential(
            nn.Linear(widths[-1] * HEAD_CELLS**2, hidden),
            nn.SiLU(),
            nn.Linear(hidden, instructions),
        )

    def forward(self, pairs_B2CHW: Tensor) -> Tensor:
        """Float RGB in [0, 1], first and last frame -> logits (B, instructions)."""
        first_BCHW, last_BCHW = pairs_B2CHW.unbind(1)
        batch, _, height, width = first_BCHW.shape
        y_H1 = torch.linspace(-1, 1, height, device=first_BCHW.device)[:, None]
        x_1W = torch.linspace(-1, 1, width, device=first_BCHW.device)[None]
        position_B2HW = torch.stack(torch.broadcast_tensors(x_1W, y_H1)).expand(batch, -1, -1, -1)
        frames = [2 * first_BCHW - 1, 2 * last_BCHW - 1, 2 * (last_BCHW - first_BCHW), position_B2HW]
        features_BCHW = F.silu(self.norm(self.stages(self.stem(torch.cat(frames, 1)))))
        return self.head(F.adaptive_avg_pool2d(features_BCHW, HEAD_CELLS).flatten(1))


def frame_pair(frames_THWC: Tensor, image_size: int) -> Tensor:
    """First and last frame as float RGB in [0, 1], (2, C, image_size, image_size)."""
    pair_2CHW = frames_THWC[[0, -1]].permute(0, 3, 1, 2).float() / 255.0
    if pair_2CHW.shape[-2:] != (image_size, image_size):
        size = (image_size, image_size)
        pair_2CHW = F.interpolate(pair_2CHW, size=size, mode="bilinear", antialias=True, align_corners=False)
    return pair_2CHW
