"""Imagining frames: a pyramid of denoising steps over a chunk, conditioned on the frames before it.

Context frames are encoded once: their temporal keys and values are kept and only the frames being denoised
are computed. That is exact, because temporal attention is causal and a context frame's features do not
depend on what follows it. A frame that reaches level 0 goes back through the network as a context frame,
together with the next step's frames.

When the window slides, the context loses its oldest frame and every feature that depended on it: the window
is encoded again, once a chunk. `streaming` skips that and keeps features that have seen frames since
dropped.

Shapes: B episodes, T frames, L frames of a chunk, H W C latent pixels, A model action dimensions.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.cache import TemporalCache
from gymnast_worldgym.model import DiT
from gymnast_worldgym.schedule import NoiseProcess, pyramid


class Sampler:
    """Extends clips of clean latents chunk by chunk; one object per batch of episodes."""

    def __init__(
        self,
        network: DiT,
        process: NoiseProcess,
        sampling: Sampling,
        window: int,
        null_action_A: Tensor,
        context_BTHWC: Tensor,
        actions_BTA: Tensor,
        recompute: bool = False,
    ) -> None:
        """Start from T context frames and their actions. `recompute` empties the cache before every step."""
        self.network, self.process, self.sampling, self.window = network, process, sampling, window
        self.recompute = recompute
        self.null_action_A = null_action_A.to(context_BTHWC.device)
        self.latents_BTHWC = context_BTHWC[:, -(window - 1) :]
        """The most recent clean frames, at most a window of them."""
        self.actions_BTA = actions_BTA[:, -(window - 1) :]
        self._cache = TemporalCache(network.config.layers, window)

    @property
    def guided(self) -> bool:
        return self.sampling.guidance != 1.0

    @torch.no_grad()
    def extend(self, actions_BLA: Tensor, noise_BLHWC: Tensor) -> Tensor:
        """Append the L < window frames whose slots hold `actions_BLA`, denoised together from the noise."""
        steps, length = self.sampling.denoising_steps, actions_BLA.shape[1]
        self._slide(length)
        context = self.latents_BTHWC.shape[1]
        latents = torch.cat([self.latents_BTHWC, noise_BLHWC], dim=1)
        actions = torch.cat([self.actions_BTA, actions_BLA], dim=1)
        schedule = pyramid(steps, length)
        for now, then in itertools.pairwise(schedule):
            moving = (now != then).nonzero().flatten()
            first, last = context + int(moving[0]), context + int(moving[-1]) + 1
            output = self._run(latents, actions, first, last, now[moving])
            active = latents[:, first:last]
            stepped = self.process.advance(active, output, now[moving], then[moving], steps)
            latents = torch.cat([latents[:, :first], stepped, latents[:, last:]], dim=1)
        self.latents_BTHWC, self.actions_BTA = latents, actions
        return latents[:, context:]

    def _slide(self, length: int) -> None:
        """Drop the frames that the window cannot hold beside the next `length` ones."""
        dropped = self.latents_BTHWC.shape[1] + length - self.window
        if dropped <= 0:
            return
        self.latents_BTHWC = self.latents_BTHWC[:, dropped:]
        self.actions_BTA = self.actions_BTA[:, dropped:]
        if self.sampling.streaming and len(self._cache) > dropped:
            self._cache.drop(dropped)
        else:
            self._cache.clear()

    def _run(self, latents: Tensor, actions: Tensor, first: int, last: int, levels: Tensor) -> Tensor:
        """Output of the frames `first` to `last` at their levels; encodes what the cache lacks."""
        if self.recompute:
            self._cache.clear()
        known = len(self._cache)
        clean, clean_t = self.process.context_input(latents[:, known:first])
        time = self.process.level_time(levels, self.sampling.denoising_steps).to(latents.device)
        noisy, noisy_t = self.process.network_input(latents[:, first:last], time.expand(latents.shape[0], -1))
        x, t = torch.cat([clean, noisy], dim=1), torch.cat([clean_t, noisy_t], dim=1)
        slots = actions[:, known:last]
        if self.guided:
            null = self.null_action_A.expand_as(slots)
            x, t, slots = torch.cat([x, x]), torch.cat([t, t]), torch.cat([slots, null])
        output = self.network(x, t, slots, self._cache, commit=first - known)[:, first - known :]
        if not self.guided:
            return output
        conditional, unconditional = output.chunk(2)
        return (1 - self.sampling.guidance) * unconditional + self.sampling.guidance * conditional
