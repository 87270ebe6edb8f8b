"""Clips of recorded episodes, as a rollout would show them, and their loss.

Shapes: B clips, T frames (context and chunk), H W c pixels and colours, A action dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from torch import Tensor

from gymnast_wan.facts import FRAMES_A_LATENT
from gymnast_wan.flow import add_noise, flow_error
from gymnast_wan.window import open_window

log = logging.getLogger(__name__)


class Trained(Protocol):
    """What training needs of the world model."""

    config: Any
    conduct: Any
    codec: Any
    network: torch.nn.Module
    rest_A: Tensor

    @property
    def device(self) -> torch.device: ...

    def seen(self, shown: Episode) -> Tensor:
        """uint8 frames (T, H, W, 3)."""

    def to_model(self, actions_TA: Tensor) -> Tensor:
        """float32 (T, A) in model units."""


@dataclass(frozen=True)
class Clips:
    """Clips of one length, each with the generator that the rest of its randomness comes from."""

    frames_BTHWc: Tensor
    """uint8 RGB: the context as a rollout would have it, then the recorded frames."""
    actions_BTA: Tensor
    """float32, model units."""
    generators: tuple[torch.Generator, ...]


def draw_clips(world: Trained, episodes: Sequence[Episode], generators: Sequence[torch.Generator]) -> list[Clips]:
    """One clip of each episode, its context ending at a uniform random frame; one `Clips` a length."""
    if not episodes:
        raise DataError("No episodes to train on.")
    by_length: dict[int, list[tuple[Tensor, Tensor, torch.Generator]]] = {}
    for episode, generator in zip(episodes, generators, strict=True):
        frames_THWc, moves_TA = world.seen(episode), world.to_model(episode.actions_TA)
        count = min(world.conduct.chunk, len(moves_TA) // FRAMES_A_LATENT * FRAMES_A_LATENT)
        if count == 0:
            log.warning("Episode %r has %d actions: left out, since training needs 4.", episode.id, len(moves_TA))
            continue
        frames, actions = _clip(world, frames_THWc, moves_TA, count, generator)
        by_length.setdefault(count, []).append((frames, actions, generator))
    return [
        Clips(torch.stack([f for f, _, _ in same]), torch.stack([a for _, a, _ in same]), tuple(g for _, _, g in same))
        for same in by_length.values()
    ]


def _clip(
    world: Trained, frames_THWc: Tensor, moves_TA: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    uniform = torch.rand(2, generator=generator, device=generator.device).tolist()
    start = int(uniform[0] * (len(moves_TA) - count + 1))
    window = open_window(frames_THWc[: start + 1], moves_TA[:start], world.rest_A, world.conduct.context)
    frames = torch.cat([window.frames_CHWc, frames_THWc[start + 1 : start + 1 + count]])
    actions = torch.cat([window.actions_CA, moves_TA[start : start + count]])
    if uniform[1] < world.config.static_share:
        return frames[:1].expand_as(frames), world.rest_A.expand_as(actions)
    return frames, actions


def chunk_losses(world: Trained, clips: Clips) -> Tensor:
    """The flow-matching loss of each clip, float32 (B,)."""
    known = 1 + (world.conduct.context - 1) // FRAMES_A_LATENT
    clean = world.codec.encode(clips.frames_BTHWc)
    noised = add_noise(clean, known, world.conduct.shift, world.config.context_noise, clips.generators)
    return flow_error(world.network, noised, clips.actions_BTA.to(world.device), known)
