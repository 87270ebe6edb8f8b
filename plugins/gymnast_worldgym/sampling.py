"""Imagining frames: a pyramid of denoising steps over a chunk, conditioned on the frames before it.

Context frames are encoded once: their temporal keys and values are kept and only the frames being denoised
are computed. That is exact, because temporal attention is causal and a context frame's features do not
depend on what follows it. A frame that reaches level 0 goes back through the network as a context frame,
together with the next step's frames; a frame that still waits at pure noise is not computed at all.

When the window slides, the context loses its oldest frame and every feature that depended on it: the window
is encoded again, once a chunk, but for what the first layer knows of each frame alone. `streaming` skips that
and keeps features that have seen frames since dropped.

With a memory of poses, frames of long ago stand in front of the context, chosen anew for each chunk: everything is
then encoded again once a chunk.

Shapes: B episodes, U distinct ones at the start, T frames, L frames of a chunk, H W C latent pixels, A model
action dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.cache import TemporalCache
from gymnast_worldgym.model import DiT
from gymnast_worldgym.pose_memory import History, PoseMemory
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
        origins: Sequence[int] | None = None,
        memory: PoseMemory | None = None,
    ) -> None:
        """Start from T context frames and their actions.

        `recompute` feeds the whole window in every step and keeps nothing, as the reference does. `origins` says
        which episodes start alike, B numbers: those with equal ones, whose context is then encoded once. With
        `memory`, give the whole context: all of it can be remembered.
        """
        self.network, self.process, self.sampling, self.window = network, process, sampling, window
        self.recompute = recompute
        self.null_action_A = null_action_A.to(context_BTHWC.device)
        self.memory = memory
        self._remembered = 0 if memory is None else memory.frames
        self._history = None if memory is None else History(memory, context_BTHWC, actions_BTA)
        most = window - self._remembered - 1
        self.latents_BTHWC = context_BTHWC[:, -most:]
        """The most recent clean frames, at most a window of them."""
        self.actions_BTA = actions_BTA[:, -most:]
        earlier = context_BTHWC.shape[1] - self.latents_BTHWC.shape[1]
        self._before_B1HWC = context_BTHWC[:, max(earlier - 1, 0) : max(earlier, 1)]
        """The frame before the oldest of them; the oldest itself where an episode begins with it."""
        self._origins = origins
        self._cache = TemporalCache(network.config.layers, window, remember=not sampling.streaming and memory is None)

    @property
    def guided(self) -> bool:
        return self.sampling.guidance != 1.0

    @property
    def cache_bytes(self) -> int:
        """Bytes that the features of finished frames take at present; bounded by a window of frames."""
        return self._cache.nbytes

    @torch.no_grad()
    def extend(self, actions_BLA: Tensor, noise_BLHWC: Tensor) -> Tensor:
        """Append the L < window frames whose slots hold `actions_BLA`, denoised together from the noise."""
        steps, length = self.sampling.denoising_steps, actions_BLA.shape[1]
        self._slide(length)
        self._encode_origins()
        latents = torch.cat([self.latents_BTHWC, noise_BLHWC], dim=1)
        actions = torch.cat([self.actions_BTA, actions_BLA], dim=1)
        conditions = actions
        if self._history is not None:
            remembered, conditions = self._history.recalled(actions, length)
            latents = torch.cat([remembered, latents], dim=1)
        context = latents.shape[1] - length
        for now, then in itertools.pairwise(pyramid(steps, length)):
            moving = (now != then).nonzero().flatten()
            first, last = context + int(moving[0]), context + int(moving[-1]) + 1
            output = self._run(latents[:, :last], conditions[:, :last], first, now[moving])
            active = latents[:, first:last]
            active.copy_(self.process.advance(active, output, now[moving], then[moving], steps))
        self.latents_BTHWC, self.actions_BTA = latents[:, self._remembered :], actions
        if self._history is not None:
            self._history.add(latents[:, context:], actions_BLA)
        return latents[:, context:]

    def _slide(self, length: int) -> None:
        """Drop the frames that the window cannot hold beside the next `length` ones."""
        dropped = max(self.latents_BTHWC.shape[1] + length + self._remembered - self.window, 0)
        if dropped > 0:
            self._before_B1HWC = self.latents_BTHWC[:, dropped - 1 : dropped]
            self.latents_BTHWC = self.latents_BTHWC[:, dropped:]
            self.actions_BTA = self.actions_BTA[:, dropped:]
        if dropped > 0 or self.memory is not None:
            self._cache.slide(dropped, self.sampling.streaming)

    def _encode_origins(self) -> None:
        """Encode the first context, once for all episodes that share it."""
        origins, self._origins = self._origins, None
        if origins is None or self.recompute or len(set(origins)) == len(origins) or self.memory is not None:
            return
        device, distinct = self.latents_BTHWC.device, sorted(set(origins))
        rows_U = torch.tensor([origins.index(one) for one in distinct]).to(device)
        place_B = torch.tensor([distinct.index(one) for one in origins]).to(device)
        clean, t = self.process.context_input(self.latents_BTHWC[rows_U])
        clean = self._beside_previous(clean, self.latents_BTHWC[rows_U], 0, self._before_B1HWC[rows_U])
        inputs = self._both_branches(clean, t, self.actions_BTA[rows_U])
        self.network.extend(*inputs, self._cache, commit=clean.shape[1])
        rows_B = torch.cat([place_B, place_B + len(distinct)]) if self.guided else place_B
        self._cache.select(rows_B)

    def _run(self, latents: Tensor, conditions: Tensor, first: int, levels: Tensor) -> Tensor:
        """Output of the frames from `first` on at their levels; encodes what the cache lacks of those before."""
        known = 0 if self.recompute else len(self._cache)
        clean, clean_t = self.process.context_input(latents[:, known:first])
        time = self.process.level_time(levels, self.sampling.denoising_steps).to(latents.device)
        noisy, noisy_t = self.process.network_input(latents[:, first:], time.expand(latents.shape[0], -1))
        x, t = torch.cat([clean, noisy], dim=1), torch.cat([clean_t, noisy_t], dim=1)
        x = self._beside_previous(x, latents, known, self._before_B1HWC)
        x, t, slots = self._both_branches(x, t, conditions[:, known:])
        if self.recompute:
            output = self.network(x, t, slots)[:, first:]
        else:
            output = self.network.extend(x, t, slots, self._cache, commit=first - known)
        if not self.guided:
            return output
        conditional, unconditional = output.chunk(2)
        return (1 - self.sampling.guidance) * unconditional + self.sampling.guidance * conditional

    def _beside_previous(self, x: Tensor, latents: Tensor, known: int, before_B1HWC: Tensor) -> Tensor:
        """The inputs of the frames from `known` on; with the frames before, for a network that predicts changes.

        One step denoises one frame after another, so the frame before is finished (`check_effects` sees to it).
        """
        if not self.network.config.change:
            return x
        remembered, kept = latents[:, : self._remembered], latents[:, self._remembered : -1]
        previous = torch.cat([remembered, before_B1HWC, kept], dim=1)[:, known : known + x.shape[1]]
        return torch.cat([x, previous], dim=-1)

    def _both_branches(self, x: Tensor, t: Tensor, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With guidance, the batch once more with the null action; what is remembered has no action, but a pose."""
        if not self.guided:
            return x, t, slots
        if self.memory is None:
            null = self.null_action_A.expand_as(slots)
        else:
            null = F.pad(self.null_action_A, (0, slots.shape[-1] - len(self.null_action_A)))
            null = torch.where(slots[..., -1:] > 0, slots, null)
        return torch.cat([x, x]), torch.cat([t, t]), torch.cat([slots, null])
