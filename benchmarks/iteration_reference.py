"""One iteration as the reference makes it, from our parts: what `iteration.py` compares with.

World-Gymnast imagines one group after the other and one frame after the other; every frame is decoded at once. Its
judge is asked about a group when that is imagined, a thread a rollout, and is waited for. Prepared pixels are kept as
float32; before the update, log-probabilities are computed once more; gradients are those of one trajectory at a time.

The world model's window is computed again in every denoising step, or kept as WorldGym's own cache does: the first step
computes the whole window without a causal mask, the others the new frame alone. So what its cache holds of the context
has seen noise, and its frames are others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from iteration_parts import verdict
from torch import Tensor, nn

from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Observation, Task
from gymnast_openvla_oft.decoding import choose, score
from gymnast_openvla_oft.model import Inputs
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_worldgym.cache import Span
from gymnast_worldgym.kernels import attend_over_time
from gymnast_worldgym.model import DiT
from gymnast_worldgym.rope import temporal_table
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import pyramid
from gymnast_worldgym.world_model import WorldGym


class ShippedCache(Sampler):
    """Frame by frame with the cache that WorldGym ships."""

    @torch.no_grad()
    def extend(self, actions_BLA: Tensor, noise_BLHWC: Tensor) -> Tensor:
        steps = self.sampling.denoising_steps
        self._slide(1)
        first = self.latents_BTHWC.shape[1]
        latents = torch.cat([self.latents_BTHWC, noise_BLHWC], dim=1)
        actions = torch.cat([self.actions_BTA, actions_BLA], dim=1)
        kept: list[tuple[Tensor, Tensor]] = []
        for now, then in itertools.pairwise(pyramid(steps, 1)):
            clean, clean_t = self.process.context_input(latents[:, :first])
            level = self.process.level_time(now, steps)
            noisy, noisy_t = self.process.network_input(latents[:, first:], level.expand(len(latents), -1))
            if kept:
                output = _pass(self.network, noisy, noisy_t, actions[:, first:], first, kept, [])
            else:
                x, t = torch.cat([clean, noisy], dim=1), torch.cat([clean_t, noisy_t], dim=1)
                output = _pass(self.network, x, t, actions, 0, [], kept)[:, first:]
            latents[:, first:] = self.process.advance(latents[:, first:], output, now, then, steps)
        self.latents_BTHWC, self.actions_BTA = latents, actions
        return latents[:, first:]


def _pass(
    network: DiT, x: Tensor, t: Tensor, a: Tensor, start: int, known: Sequence[tuple[Tensor, Tensor]], keep: list[Any]
) -> Tensor:
    """The frames from position `start` on, each of which sees all others and the known keys and values."""
    frames = x.shape[1]
    spatial, _ = network._tables(x, Span(0, frames, 0, frames))
    table = temporal_table(torch.arange(start, start + frames), network.config.dim // network.config.heads)
    tokens, condition = network._embedded(x), network._condition(t, a)
    for index, layer in enumerate(network.blocks):
        tokens = layer.s_block(tokens, condition, spatial)
        block: Any = layer.t_block
        m = block.modulation(condition)
        projected = block.attn.project(block.enter(tokens, m), table[:, None, None])
        q, k, v = (y.permute(0, 2, 3, 1, 4) for y in projected)
        keep.append((k[..., :-1, :].clone(), v[..., :-1, :].clone()))
        if known:
            k, v = (torch.cat([old, new], dim=3) for old, new in zip(known[index], (k, v), strict=True))
        tokens = block.leave(tokens, block.attn.merge(attend_over_time(q, k, v, None)), m)
    return network._painted(network.final_layer(tokens, condition), x)


@dataclass
class Played:
    """One group."""

    frames_BTVHWC: Tensor
    inputs: list[Inputs]
    """At each decision."""
    classes: list[Tensor]
    log_probs: list[Tensor]
    rewards: list[float]


@dataclass(frozen=True)
class Setting:
    """What both loops share."""

    horizon: int
    temperature: float
    group_size: int
    judge_seconds: float
    learning_rate: float
    max_grad_norm: float


def play(policy: OpenVLAOFT, world: WorldGym, task: Task, number: int, cached: bool, s: Setting, clock: Any) -> Played:
    """Imagine one group, then have it judged."""
    generator = seeded_generator(0, "imagine", number)
    tasks, count = [task] * s.group_size, policy.chunk_length * policy.action_dim
    with clock("imagine"), torch.no_grad():
        state = world.reset(tasks, generator=generator)
        state.sampler.recompute = True
        if cached:
            old = state.sampler
            state.sampler = ShippedCache(
                old.network, old.process, old.sampling, old.window, old.null_action_A, old.latents_BTHWC,
                old.actions_BTA, recompute=True,
            )  # fmt: skip
    frames = [task.frames_TVHWC[None, -1:].expand(s.group_size, -1, -1, -1, -1, -1)]
    found = Played(frames[0], [], [], [], [])
    for _ in range(s.horizon // policy.chunk_length):
        with clock("act"), torch.no_grad():
            seen = Observation(frames[-1], (task.instruction,) * s.group_size, task.cameras)
            inputs = policy.processor(seen, count)
            logits = policy.model.action_logits(policy.model(inputs, count).actions_BKE)
            classes, log_prob = choose(logits, s.temperature, generator)
            tokens = (classes + policy.codec.first_token).unflatten(1, (policy.chunk_length, policy.action_dim))
            actions_BLA = policy.units.unnormalise(policy.codec.decode(tokens)).float()
        found.inputs.append(inputs)
        found.classes.append(classes)
        found.log_probs.append(log_prob)
        for index in range(policy.chunk_length):
            with clock("imagine"):
                frames.append(world.step(state, actions_BLA[:, index : index + 1]).frames_BLVHWC)
    found.frames_BTVHWC = torch.cat(frames, dim=1)
    with clock("judge"), ThreadPoolExecutor(s.group_size) as pool:
        drawn = torch.stack(found.classes, dim=1) + policy.codec.first_token
        found.rewards = list(pool.map(lambda row: verdict(row, s.judge_seconds), drawn))
    return found


def learn(policy: OpenVLAOFT, optimizer: torch.optim.Optimizer, played: Sequence[Played], s: Setting) -> None:
    """One clipped step on all trajectories, one after the other."""
    with torch.no_grad():
        old = [[_log_prob(policy, group, row, s)[0] for row in range(s.group_size)] for group in played]
    optimizer.zero_grad()
    count = sum(len(group.rewards) for group in played)
    for group, before in zip(played, old, strict=True):
        rewards = torch.tensor(group.rewards)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for row in range(s.group_size):
            log_prob, _ = _log_prob(policy, group, row, s)
            ratio = (log_prob - before[row]).exp()
            gain = torch.min(ratio * advantages[row], ratio.clamp(0.8, 1.28) * advantages[row])
            (-gain.mean() / count).backward()
    nn.utils.clip_grad_norm_([p for p in policy.parameters() if p.requires_grad], s.max_grad_norm)
    for part in optimizer.param_groups:
        part["lr"] = s.learning_rate * part.get("lr_scale", 1.0)
    optimizer.step()


def _log_prob(policy: OpenVLAOFT, group: Played, row: int, s: Setting) -> tuple[Tensor, Tensor]:
    """Of all decisions of one trajectory."""
    pixels = torch.cat([one.pixels_BVCHW[row, None] for one in group.inputs if one.pixels_BVCHW is not None])
    first = group.inputs[0].prompts
    count = len(pixels)
    ids_BS, lengths_B = first.ids_BS[row, None].expand(count, -1), first.lengths_B[row, None].expand(count)
    prompts = replace(first, ids_BS=ids_BS, lengths_B=lengths_B)  # of one task: all are of one length
    classes = torch.stack([one[row] for one in group.classes])
    hidden = policy.model(Inputs(pixels, prompts), classes.shape[1])
    return score(policy.model.action_logits(hidden.actions_BKE), classes, s.temperature)
