"""Flow matching: sampling a chunk, and the loss that trains it.

A latent at noise level s is (1 - s) · clean + s · noise; the network predicts noise - clean. Latent frames of the
context stay clean. Shapes as in `network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from gymnast_wan.network import Network

TIMESTEPS = 1000
"""Timestep of pure noise."""


def make_schedule(steps: int, shift: float) -> Any:
    """A `FlowMatchEulerDiscreteScheduler` at evenly spaced noise levels, shifted, as RLinf samples; for one chunk."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=shift)
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
    return scheduler


@torch.no_grad()
def sample_chunk(
    network: Network, context_BCfhw: Tensor, actions_BTA: Tensor, noise_BCFhw: Tensor, steps: int, shift: float
) -> Tensor:
    """Latents (B, C, F, h, w) that begin with those of the context, denoised from `noise_BCFhw`."""
    known = context_BCfhw.shape[2]
    latents = torch.cat([context_BCfhw, noise_BCFhw[:, :, known:]], dim=2)
    schedule = make_schedule(steps, shift)
    for time in schedule.timesteps:
        velocity = network(latents, time.expand(len(latents)), actions_BTA, known)
        moved = schedule.step(velocity, time, latents, return_dict=False)[0]
        latents = torch.cat([context_BCfhw, moved[:, :, known:]], dim=2)
    return latents


@dataclass(frozen=True)
class Noised:
    """What the network is shown in training, and what it should say."""

    latents_BCFhw: Tensor
    times_B: Tensor
    target_BCFhw: Tensor


def add_noise(
    clean_BCFhw: Tensor, known: int, shift: float, context_noise: float, generators: Sequence[torch.Generator]
) -> Noised:
    """Each clip at a noise level of its own, uniform before the shift, drawn from its generator.

    The first latent frame is shown clean; the context's others at the noise level `context_noise`, as though clean: the
    frames that a rollout is shown are imagined ones, with faults of their own.
    """
    device = clean_BCFhw.device
    uniform = torch.cat([torch.rand(1, generator=own, device=own.device).to(device) for own in generators])
    shape = clean_BCFhw.shape[1:]
    noise = torch.stack([torch.randn(shape, generator=own, device=own.device).to(device) for own in generators])
    levels_B = shift * uniform / (1 + (shift - 1) * uniform)
    levels_BF = levels_B[:, None].repeat(1, shape[1])
    levels_BF[:, 1:known] = context_noise
    levels_BF[:, 0] = 0
    levels = levels_BF[:, None, :, None, None]
    latents = (1 - levels) * clean_BCFhw + levels * noise
    return Noised(latents, levels_B * TIMESTEPS, noise - clean_BCFhw)


def flow_error(network: Network, noised: Noised, actions_BTA: Tensor, known: int) -> Tensor:
    """Squared error of the velocity of the new latent frames, the mean of each clip, float32 (B,)."""
    velocity = network(noised.latents_BCFhw, noised.times_B, actions_BTA, known)
    return (velocity - noised.target_BCFhw)[:, :, known:].square().flatten(1).mean(1)
