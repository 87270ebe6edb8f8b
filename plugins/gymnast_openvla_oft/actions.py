"""Actions as tokens: 256 bins over normalised actions (OpenVLA, arXiv 2406.09246, §3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name

BOUNDS = {"q99": ("q01", "q99"), "minmax": ("min", "max")}
"""Statistics that become -1 and 1: quantiles (Bridge, LIBERO) or extremes (ALOHA)."""


class ActionCodec:
    """Between actions in robot units and token ids. Arithmetic is float64, as in the reference.

    `vocabulary` is the number of token ids in use; the last `bins` ids are actions, and a higher
    id is a lower action.
    """

    def __init__(self, statistics: Mapping[str, Any], *, bounds: str, vocabulary: int, bins: int) -> None:
        if bounds not in BOUNDS:
            raise ConfigError(unknown_name("action_bounds", bounds, BOUNDS))
        low, high = BOUNDS[bounds]
        missing = {low, high} - set(statistics)
        if missing:
            raise CheckpointError(
                f"The action statistics lack {', '.join(sorted(missing))}; they hold "
                f"{', '.join(statistics)}. Choose the other kind with action_bounds=q99|minmax."
            )
        self.low_A = torch.tensor(statistics[low], dtype=torch.float64)
        self.high_A = torch.tensor(statistics[high], dtype=torch.float64)
        mask = statistics.get("mask") or [True] * len(self.low_A)
        self.mask_A = torch.tensor(mask, dtype=torch.bool)
        self.vocabulary = vocabulary
        self.bins = bins
        edges = np.linspace(-1.0, 1.0, bins)
        self.edges = torch.from_numpy(edges)
        self.centers = torch.from_numpy((edges[:-1] + edges[1:]) / 2.0)

    @property
    def action_dim(self) -> int:
        return len(self.low_A)

    @property
    def first_token(self) -> int:
        """Id of the lowest action token, i.e. of class 0."""
        return self.vocabulary - self.bins

    def encode(self, normalised: Tensor) -> Tensor:
        """Token ids (int64) of normalised actions, which are clipped to [-1, 1]."""
        edges = self.edges.to(normalised.device)
        bucket = torch.bucketize(normalised.double().clamp(-1.0, 1.0), edges, right=True)
        return self.vocabulary - bucket

    def decode(self, tokens: Tensor) -> Tensor:
        """Bin centres (float64) of action token ids."""
        index = (self.vocabulary - tokens - 1).clamp(0, len(self.centers) - 1)
        return self.centers.to(tokens.device)[index]

    def class_centers(self) -> Tensor:
        """Bin centres (float64) of the classes 0..bins-1, from high actions to low ones."""
        return self.decode(torch.arange(self.first_token, self.vocabulary))

    def unnormalise(self, normalised: Tensor) -> Tensor:
        """[-1, 1] to robot units, float64 (..., A); dimensions outside the mask pass through."""
        low, high, mask = (x.to(normalised.device) for x in (self.low_A, self.high_A, self.mask_A))
        x = normalised.double()
        return torch.where(mask, 0.5 * (x + 1.0) * (high - low + 1e-8) + low, x)

    def normalise(self, actions: Tensor) -> Tensor:
        """Robot units (..., A) to [-1, 1], float64: the inverse of `unnormalise`, clipped."""
        if actions.shape[-1] != self.action_dim:
            raise DataError(
                f"The actions have {actions.shape[-1]} dimensions, the policy's statistics {self.action_dim}."
            )
        low, high, mask = (x.to(actions.device) for x in (self.low_A, self.high_A, self.mask_A))
        x = actions.double()
        scaled = 2.0 * (x - low) / (high - low + 1e-8) - 1.0
        return torch.where(mask, scaled, x).clamp(-1.0, 1.0)


def choose_statistics(norm_stats: Mapping[str, Any], key: str | None) -> tuple[str, Mapping[str, Any]]:
    """The action statistics of dataset `key`, or of the only dataset there is.

    Raises `ConfigError` that lists the datasets when `key` is unknown or missing among several.
    """
    if key is None:
        if len(norm_stats) != 1:
            raise ConfigError(
                f"The checkpoint holds action statistics of {len(norm_stats)} datasets; choose one with "
                f"unnorm_key: {', '.join(sorted(norm_stats)) or 'none'}."
            )
        key = next(iter(norm_stats))
    if key not in norm_stats:
        raise ConfigError(unknown_name("action statistics (unnorm_key)", key, norm_stats))
    if "action" not in norm_stats[key]:
        raise CheckpointError(f"The statistics of {key!r} hold no 'action' entry.")
    return key, norm_stats[key]["action"]
