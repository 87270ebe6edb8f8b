"""The stochastic head: a Gaussian around the flow's result, on a grid so fine that its bins are actions.

A flow's own density costs a trace of its Jacobian, and a chain of noisy denoising steps (Flow-GRPO, arXiv 2505.05470;
Flow-SDE of πRL, arXiv 2510.25889) must be stored to be scored, for which a chunk has no place. Here noise enters at the
last denoising step alone, as in ReinFlow (arXiv 2505.22094) with none before it: given its initial noise z, an action
is Gaussian around the flow's result, with a learned standard deviation. z comes from a seed, which does not depend on
the weights, so p(z) cancels from every importance ratio, and log p(action | z) is all that policy gradients need.

A token holds both: z's seed and the action's bin, so that `evaluate` scores exactly what `act` drew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from gymnast_core.errors import DataError
from torch import Tensor

BIN = 2.0**-12
"""Width of a bin, in normalised action units."""
BIN_BITS = 20
HALF = 1 << (BIN_BITS - 1)
"""Bins run from -HALF to HALF - 1: normalised actions from -128 to 128."""
SEED_LIMIT = 1 << 31
GREEDY_SEED = 0
"""Seed of the initial noise at temperature 0; drawn seeds are greater."""
STD_RANGE = (0.01, 1.0)
"""Of the standard deviation, normalised action units: some 40 bins at least. What is learned beyond it bends off."""
BEYOND = math.log(1.1)
"""How far the logarithm of the standard deviation gets beyond `STD_RANGE` at most: a tenth."""


@dataclass(frozen=True)
class Decoded:
    """What a chunk's tokens say."""

    seeds: list[int]
    """Of the initial noise, one an episode."""
    bins_BLA: Tensor
    """int64."""


def encode(seeds: list[int], bins_BLA: Tensor) -> Tensor:
    """int64 tokens (B, L, A), all >= 0."""
    seeds_B = torch.tensor(seeds, dtype=torch.int64, device=bins_BLA.device)
    return (seeds_B[:, None, None] << BIN_BITS) + bins_BLA + HALF


def decode(tokens_BLA: Tensor) -> Decoded:
    """The inverse of `encode`. Raises `DataError` for tokens that it did not make."""
    seeds_BLA = tokens_BLA >> BIN_BITS
    seeds_B = seeds_BLA[:, 0, 0]
    if bool((seeds_BLA != seeds_B[:, None, None]).any()) or bool((tokens_BLA < 0).any()):
        raise DataError("These are no tokens of a pi0 policy: the seeds that they hold differ within an episode.")
    return Decoded(seeds_B.tolist(), (tokens_BLA & ((1 << BIN_BITS) - 1)) - HALF)


def nearest(values_BLA: Tensor) -> Tensor:
    """The bin of each normalised action, int64."""
    return (values_BLA.double() / BIN).round().clamp(-HALF, HALF - 1).long()


def centres(bins_BLA: Tensor) -> Tensor:
    """The normalised action of each bin, float64."""
    return bins_BLA.double() * BIN


def log_probability(bins_BLA: Tensor, mean_BLA: Tensor, std_A: Tensor) -> Tensor:
    """Log of the Gaussian's mass on each bin (nats), float32 (B, L, A); the first and last bin have the tails, too.

    Exact: the masses of all bins add up to 1. It is the log-density plus log BIN up to (BIN / std)^2 / 24.
    """
    mean, std = mean_BLA.double(), std_A.double()
    distance = centres(bins_BLA) - mean
    # Differences of the distribution function lose their digits in the upper tail; the lower one mirrors it.
    mirrored = distance > 0
    low = torch.where(mirrored, -distance - BIN / 2, distance - BIN / 2) / std
    high = torch.where(mirrored, -distance + BIN / 2, distance + BIN / 2) / std
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    inside = log_high + torch.log(-torch.expm1(log_low - log_high))
    first, last = -HALF, HALF - 1
    lower = torch.special.log_ndtr((distance + BIN / 2) / std)
    upper = torch.special.log_ndtr(-(distance - BIN / 2) / std)
    mass = torch.where(bins_BLA == first, lower, torch.where(bins_BLA == last, upper, inside))
    return mass.float()


def limited(log_std_A: Tensor) -> Tensor:
    """A learned logarithm of the standard deviation: as it is within `STD_RANGE`, and growing ever less beyond it. The
    slope is 1 at both ends and nowhere 0, so that a gradient leads back from wherever a step ended."""
    low, high = map(math.log, STD_RANGE)
    below_A, above_A = (low - log_std_A).abs(), (log_std_A - high).abs()
    lower_A = low - below_A / (1 + below_A / BEYOND)
    upper_A = high + above_A / (1 + above_A / BEYOND)
    return torch.where(log_std_A < low, lower_A, torch.where(log_std_A > high, upper_A, log_std_A))


def entropy(like_BLA: Tensor, std_A: Tensor) -> Tensor:
    """Entropy of each factor (nats), float32 (B, L, A): the Gaussian's differential entropy minus log BIN."""
    value_A = std_A.double().log() + 0.5 * math.log(2 * math.pi * math.e) - math.log(BIN)
    return value_A.float().expand(like_BLA.shape).clone()
