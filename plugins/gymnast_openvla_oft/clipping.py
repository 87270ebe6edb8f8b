"""Whether recordings fit the range that a policy knows: what lies outside is clipped, and something else is learned."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_openvla_oft.normalisation import Normaliser

log = logging.getLogger(__name__)

LEAST = 100
"""Rows (actions, or readings) that are looked at before anything is said of them."""
TOLD = 0.05
"""Share of a dimension outside above which it is told. Quantiles of 1 and 99 % leave 0.02 outside."""
ADVICE = {
    "action": "policy.args.architecture.action_low and action_high",
    "proprioception": "policy.args.architecture.proprio_low and proprio_high",
}


class Clipping:
    """Counts what of the recordings lies outside the range of `units`, and says so once, after `LEAST` rows.

    `most` is the share of a dimension, in [0, 1], above which it is an error instead.
    """

    def __init__(self, units: Normaliser, most: float) -> None:
        self._units, self._most = units, most
        self._rows = 0
        self._outside_D = torch.zeros(units.width, dtype=torch.int64)
        self._least_D = torch.full((units.width,), torch.inf, dtype=torch.float64)
        self._greatest_D = -self._least_D

    def look(self, values_TD: Tensor) -> None:
        """Recorded values (T, D), robot units. Raises `DataError` for another width, and where more than `most` of a
        dimension lies outside."""
        outside_TD = self._units.outside(values_TD)
        if self._rows >= LEAST:  # said already
            return
        values_TD = values_TD.to("cpu", torch.float64)
        self._rows += len(values_TD)
        self._outside_D += outside_TD.sum(0).cpu()
        self._least_D = torch.minimum(self._least_D, values_TD.amin(0))
        self._greatest_D = torch.maximum(self._greatest_D, values_TD.amax(0))
        if self._rows >= LEAST:
            self._say()

    def _say(self) -> None:
        share_D = self._outside_D / self._rows
        if bool((share_D > self._most).any()):
            raise DataError(
                f"{self._found(share_D, self._most)} It would be clipped, and something else learned than was "
                "recorded. Compare units and kind (metres or millimetres, steps or absolute positions, a gripper of "
                f"0 to 1 or -1 to 1) with {ADVICE[self._units.what]}, or with the checkpoint's statistics (unnorm_key, "
                "action_bounds). policy.args.imitation.most_clipped=1 trains on it as it is, clipped."
            )
        if bool((share_D > TOLD).any()):
            log.warning(
                "%s It is clipped. The range is %s, or the checkpoint's statistics (unnorm_key, action_bounds).",
                self._found(share_D, TOLD), ADVICE[self._units.what],
            )  # fmt: skip

    def _found(self, share_D: Tensor, above: float) -> str:
        """Each dimension of which more lies outside than `above`, with its range and what was recorded."""
        low_D, high_D = self._units.limits()
        told = [
            f"dimension {i}: {share_D[i]:.0%} outside {low_D[i]:.4g} to {high_D[i]:.4g} (recorded: "
            f"{self._least_D[i]:.4g} to {self._greatest_D[i]:.4g})"
            for i in (share_D > above).nonzero().flatten().tolist()
        ]
        return f"Of {self._rows} recorded rows, the {self._units.what} leaves the policy's range; {'; '.join(told)}."
