"""The critic: what is still to be earned, from what the policy knows of an observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """(…, F) features of a policy -> (…) values. It begins with the value 0 everywhere.

    Always in float32: values are compared with returns to a few thousandths.
    """

    def __init__(self, features: int, hidden: int, seed: int, *, normalises: bool = True) -> None:
        super().__init__()
        self.features = features
        # Layers draw their first weights from the global generator; forking leaves it as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(hidden, 1)
            norm = nn.LayerNorm(features) if normalises else nn.Identity()
            self.layers = nn.Sequential(norm, nn.Linear(features, hidden), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.layers(features.float())[..., 0]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
