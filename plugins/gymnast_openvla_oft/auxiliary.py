"""Auxiliary heads that teach a small model where the named object is. Trained with it and never saved.

Cloning from scratch otherwise stalls: action labels alone hardly say which object an instruction names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_openvla_oft.model import Hidden


@dataclass(frozen=True)
class PointLosses:
    """What the heads say of J points of interest in the first view."""

    regression: Tensor
    """Mean absolute error of the points, as a fraction of the image's side."""
    classification: Tensor
    """Cross-entropy (nats) of the patch that holds each point."""
    accuracy: float
    """Share of samples where the most likely patch is the one that holds the named object."""


class PointHeads(nn.Module):
    """J points from the language model's outputs: coordinates and a classification of patches."""

    def __init__(self, width: int, points: int, patches: int, generator: torch.Generator) -> None:
        super().__init__()
        self.patches = patches
        with torch.device("meta"):
            self.regression = nn.Linear(width, 2 * points)
            self.classification = nn.Linear(width, points)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for head in (self.regression, self.classification):
                head.weight.normal_(0.0, 0.02, generator=generator)
                head.bias.zero_()

    def forward(self, hidden: Hidden, points_BJ2: Tensor) -> PointLosses:
        """Losses against points in [0, 1]; points out of view (NaN, or outside) are ignored."""
        visible_BJ = ((points_BJ2 >= 0.0) & (points_BJ2 < 1.0)).all(-1)
        pooled_BE = hidden.actions_BKE.mean(1)
        predicted_BJ2 = self.regression(pooled_BE).float().sigmoid().view_as(points_BJ2)
        target_BJ2 = points_BJ2.masked_fill(~visible_BJ[..., None], 0.0)
        count = visible_BJ.sum().clamp(min=1)
        error_BJ = (predicted_BJ2 - target_BJ2).abs().mean(-1)
        logits_BJP = self.classification(hidden.patches_BPE[:, : self.patches]).float().transpose(1, 2)
        side = round(self.patches**0.5)
        cell_BJ2 = (target_BJ2 * side).long().clamp(0, side - 1)
        label_BJ = cell_BJ2[..., 1] * side + cell_BJ2[..., 0]
        entropy_BJ = F.cross_entropy(logits_BJP.flatten(0, 1), label_BJ.flatten(), reduction="none")
        entropy_BJ = entropy_BJ.view_as(label_BJ)
        named = visible_BJ[:, 0]
        hits = (logits_BJP[:, 0].argmax(-1) == label_BJ[:, 0]) & named
        return PointLosses(
            regression=(error_BJ * visible_BJ).sum() / count,
            classification=(entropy_BJ * visible_BJ).sum() / count,
            accuracy=(hits.sum() / named.sum().clamp(min=1)).item(),
        )
