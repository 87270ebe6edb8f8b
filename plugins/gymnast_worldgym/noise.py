"""Where an episode's random numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Noise = Callable[[Sequence[int]], Tensor]
"""Gives standard normal float32 numbers of a shape; each call gives new ones."""


def generator_noise(generator: torch.Generator, device: torch.device) -> Noise:
    """Numbers drawn from `generator`, on its own device, then moved to `device`."""

    def draw(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=generator, device=generator.device).to(device)

    return draw


def own_noise(generators: Sequence[torch.Generator], device: torch.device) -> Noise:
    """Numbers for a batch, each row from a generator of its own: what a row gets does not depend on the others."""

    def draw(shape: Sequence[int]) -> Tensor:
        rows = [torch.randn(tuple(shape[1:]), generator=own, device=own.device) for own in generators]
        return torch.stack(rows).to(device)

    return draw
