"""Noise processes: how clean frames become noisy, what the network predicts, and how sampling walks back.

A sampler counts levels: level S (the number of denoising steps) is pure noise, level 0 is clean. Three
predictions share the sampler: `v` and `x0` over a 1000-step sigmoid schedule (arXiv 2212.11972) sampled by
DDIM (arXiv 2010.02502), and `flow` (rectified flow, arXiv 2209.03003) sampled by Euler steps.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import torch
from torch import Tensor

TIMESTEPS = 1000


def sigmoid_betas(timesteps: int = TIMESTEPS) -> Tensor:
    """float64 (timesteps,) betas of the sigmoid schedule from -3 to 3, clipped to [0, .999].

    The two endpoint sigmoids are taken in float32, the rest in float64, as published checkpoints were
    trained.
    """
    start, end = torch.tensor(-3.0).sigmoid(), torch.tensor(3.0).sigmoid()
    t = torch.linspace(0, timesteps, timesteps + 1, dtype=torch.float64) / timesteps
    alpha_bar = (end - (t * 6.0 - 3.0).sigmoid()) / (end - start)
    alpha_bar = alpha_bar / alpha_bar[0]
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(0, 0.999)


def alphas_cumprod(timesteps: int = TIMESTEPS) -> Tensor:
    """float32 (timesteps,): share of the signal's variance left after each step."""
    return (1 - sigmoid_betas(timesteps).float()).cumprod(0)


@functools.lru_cache(maxsize=64)
def sampling_timesteps(steps: int, timesteps: int = TIMESTEPS) -> Tensor:
    """int64 (steps + 1,): diffusion timestep of each level; -1 is clean."""
    # As the original has it: an integer linspace, which PyTorch computes in float64 and truncates. Truncating a float32
    # linspace gives another timestep at 156 of the 1000 numbers of steps (30, 60, 120, ...; not at 10, 20 or 50). So
    # does an integer linspace on a GPU, which PyTorch computes in float32: frames are always those of the CPU's.
    return torch.linspace(-1, timesteps - 1, steps + 1, dtype=torch.long)


def pyramid(steps: int, horizon: int) -> Tensor:
    """int64 (steps + horizon, horizon): level of each frame of a chunk before each step."""
    row, column = torch.arange(steps + horizon)[:, None], torch.arange(horizon)
    return (steps + column - row).clamp(0, steps)


class NoiseProcess(ABC):
    """Times are per frame (B, T), frames and outputs (B, T, H, W, C). Levels (T,) are int64 on the CPU."""

    @abstractmethod
    def draw_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        """Training times (B, T), independent per frame, on the generator's device."""

    @abstractmethod
    def clean_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        """Training times of nearly clean frames, around the time at which context frames are shown."""

    @abstractmethod
    def last_time(self) -> float:
        """The time of pure noise, where sampling starts."""

    @abstractmethod
    def noised(self, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        """Frames at the given times."""

    @abstractmethod
    def network_input(self, noisy: Tensor, time_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees: frames and conditioning timesteps (0 to 1000)."""

    @abstractmethod
    def squared_error(self, output: Tensor, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        """The training loss of every pixel."""

    @abstractmethod
    def context_input(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """`network_input` of finished frames."""

    @abstractmethod
    def level_time(self, level_T: Tensor, steps: int) -> Tensor:
        """The time of each sampler level >= 1 out of `steps`."""

    @abstractmethod
    def advance(self, noisy: Tensor, output: Tensor, level_T: Tensor, next_T: Tensor, steps: int) -> Tensor:
        """One sampler step of each frame from its level (>= 1) to the next lower one."""


class Diffusion(NoiseProcess):
    """Variance-preserving diffusion with v- or x0-prediction.

    With x0-prediction the network sees √ᾱ·x, the linear estimate of a clean frame of unit variance: towards
    t = T, where the input says nothing about the frame, it fades out instead of asking the network to look
    through noise.
    """

    def __init__(self, prediction: str, stabilization_level: int, clip: float | None = None) -> None:
        self.predicts_x0 = prediction in {"x0", "change"}
        # A frame that is shown nearly clean is weighed four times, lest it be lost as context. Predicted changes have
        # the frame before to go by: there it would only teach to copy what is shown, which imagining never asks for.
        self.least_share = 0.25 if prediction == "x0" else 1.0
        self.stabilization_level = stabilization_level
        self.clip = clip
        self._alpha_bar = alphas_cumprod()

    def draw_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        return torch.randint(TIMESTEPS, (batch, frames), generator=generator, device=generator.device)

    def clean_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        end = min(2 * self.stabilization_level + 1, TIMESTEPS)
        return torch.randint(end, (batch, frames), generator=generator, device=generator.device)

    def last_time(self) -> float:
        return TIMESTEPS - 1

    def noised(self, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        a = self._at(time_BT, clean)
        return a.sqrt() * clean + (1 - a).sqrt() * noise

    def network_input(self, noisy: Tensor, time_BT: Tensor) -> tuple[Tensor, Tensor]:
        return (noisy * self._at(time_BT, noisy).sqrt() if self.predicts_x0 else noisy), time_BT

    def squared_error(self, output: Tensor, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        a = self._at(time_BT, clean)
        if self.predicts_x0:
            return (output - clean).square() / (1 - a).clamp(min=self.least_share)
        return (output - (a.sqrt() * noise - (1 - a).sqrt() * clean)).square()

    def context_input(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        t_BT = torch.full(clean.shape[:2], self.stabilization_level, device=clean.device)
        return self.network_input(clean * self._at(t_BT, clean).sqrt(), t_BT)

    def level_time(self, level_T: Tensor, steps: int) -> Tensor:
        return sampling_timesteps(steps)[level_T]

    def advance(self, noisy: Tensor, output: Tensor, level_T: Tensor, next_T: Tensor, steps: int) -> Tensor:
        times = sampling_timesteps(steps)
        now, then = times[level_T][None], times[next_T][None]
        a = self._at(now, noisy)
        x0 = output if self.predicts_x0 else a.sqrt() * noisy - (1 - a).sqrt() * output
        if self.clip is not None:
            x0 = x0.clamp(-self.clip, self.clip)
        noise = (noisy / a.sqrt() - x0) / (1 / a - 1).sqrt()
        b = self._at(then.clamp(min=0), noisy).masked_fill(_expand(then < 0, noisy), 1.0)
        return b.sqrt() * x0 + (1 - b).sqrt() * noise

    def _at(self, time_BT: Tensor, like: Tensor) -> Tensor:
        if self._alpha_bar.device != like.device:
            self._alpha_bar = self._alpha_bar.to(like.device)
        return self._alpha_bar[time_BT.to(like.device)][..., None, None, None]


class Flow(NoiseProcess):
    """Rectified flow: time runs from 0 (clean) to 1 (noise), the network predicts noise - clean."""

    CONTEXT_TIME = 0.01

    def draw_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        return torch.randn(batch, frames, generator=generator, device=generator.device).sigmoid()

    def clean_times(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(batch, frames, generator=generator, device=generator.device)
        return 2 * self.CONTEXT_TIME * u

    def last_time(self) -> float:
        return 1.0

    def noised(self, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        return torch.lerp(clean, noise, _expand(time_BT, clean))

    def network_input(self, noisy: Tensor, time_BT: Tensor) -> tuple[Tensor, Tensor]:
        return noisy, 1000 * time_BT

    def squared_error(self, output: Tensor, clean: Tensor, time_BT: Tensor, noise: Tensor) -> Tensor:
        return (output - (noise - clean)).square()

    def context_input(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        return clean, torch.full(clean.shape[:2], 1000 * self.CONTEXT_TIME, device=clean.device)

    def level_time(self, level_T: Tensor, steps: int) -> Tensor:
        return level_T / steps

    def advance(self, noisy: Tensor, output: Tensor, level_T: Tensor, next_T: Tensor, steps: int) -> Tensor:
        return noisy + _expand((next_T - level_T)[None] / steps, noisy) * output


def noise_process(prediction: str, stabilization_level: int, clip: float | None = None) -> NoiseProcess:
    """The process of a `prediction`: v, x0, change (to the sampler x0: the network adds the frame before) or flow."""
    return Flow() if prediction == "flow" else Diffusion(prediction, stabilization_level, clip)


def _expand(time_BT: Tensor, like: Tensor) -> Tensor:
    return time_BT.to(like.device)[..., None, None, None]
