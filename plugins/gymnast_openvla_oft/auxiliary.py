"""Auxiliary heads that teach a small model where the named object is. Trained with it and never saved.

Cloning from scratch otherwise stalls: action labels alone hardly say which object an instruction names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gymnast_core.types import Metric
from gymnast_openvla_oft.model import Hidden


@dataclass(frozen=True)
class PointLosses:
    """What the heads say of J points of interest in the first view, by decision: sums over its visible points, divided
    by J, so that each visible point counts the same whatever else the batch holds."""

    regression_B: Tensor
    """Absolute error of the points, as a fraction of the image's side."""
    classification_B: Tensor
    """Cross-entropy (nats) of the patch that holds each point."""
    metrics: dict[str, Metric]
    """Means over visible points, and the share of decisions where the most likely patch holds the named object."""


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
        error_BJ = (predicted_BJ2 - target_BJ2).abs().mean(-1)
        logits_BJP = self.classification(hidden.patches_BPE[:, : self.patches]).float().transpose(1, 2)
        side = round(self.patches**0.5)
        cell_BJ2 = (target_BJ2 * side).long().clamp(0, side - 1)
        label_BJ = cell_BJ2[..., 1] * side + cell_BJ2[..., 0]
        entropy_BJ = F.cross_entropy(logits_BJP.flatten(0, 1), label_BJ.flatten(), reduction="none")
        entropy_BJ = entropy_BJ.view_as(label_BJ)
        count = visible_BJ.shape[1]
        losses = ((error_BJ * visible_BJ).sum(1) / count, (entropy_BJ * visible_BJ).sum(1) / count)
        return PointLosses(*losses, _metrics(error_BJ, entropy_BJ, logits_BJP, label_BJ, visible_BJ))


@torch.no_grad()
def _metrics(
    error_BJ: Tensor, entropy_BJ: Tensor, logits_BJP: Tensor, label_BJ: Tensor, visible_BJ: Tensor
) -> dict[str, Metric]:
    named_B, visible = visible_BJ[:, 0], visible_BJ.sum()
    hits_B = (logits_BJP[:, 0].argmax(-1) == label_BJ[:, 0]) & named_B
    return {
        "points_l1": Metric((error_BJ * visible_BJ).sum() / visible.clamp(min=1), visible),
        "patch_loss": Metric((entropy_BJ * visible_BJ).sum() / visible.clamp(min=1), visible),
        "patch_accuracy": Metric(hits_B.sum() / named_B.sum().clamp(min=1), named_B.sum()),
    }
