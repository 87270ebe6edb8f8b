"""Who acts in one attempt: a policy, a scripted expert, or chance; and the noise on top."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gymnast_collect.amounts import drawn
from gymnast_collect.config import ActorConfig, CollectConfig, NoiseConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Policy
from gymnast_core.rollouts.answers import checked_chunk
from gymnast_core.rollouts.sight import Names, Sight, find_sight
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Offers, Task
from gymnast_environment.environments import About, Sensed

_WALK = 0.6
"""Standard deviation of a walk's actions, as a share of half the action range."""


@dataclass(frozen=True)
class Limits:
    """What actions an environment takes."""

    low_A: Tensor
    high_A: Tensor
    space: str

    @classmethod
    def of(cls, about: About) -> Limits:
        """Raises `DataError` for an environment that does not take vectors."""
        if about.low_A is None or about.high_A is None:
            raise DataError(f"{about.name} takes {about.space}; only vectors of numbers (Box) can be recorded.")
        return cls(torch.from_numpy(about.low_A), torch.from_numpy(about.high_A), f"{about.name} ({about.space})")

    @cached_property
    def half_A(self) -> Tensor:
        """Half the range. Raises `DataError` where there is none."""
        half_A = (self.high_A - self.low_A) / 2
        if not bool(half_A.isfinite().all()):
            raise DataError(
                f"{self.space} limits not every action; random actions and noise are shares of these limits. Wrap it "
                "with finite ones, or let a policy or expert act without noise."
            )
        return half_A

    def within(self, action_A: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(action_A, self.low_A), self.high_A)


class Actor(ABC):
    """The actor of one attempt."""

    @abstractmethod
    def act(self, advice_A: np.ndarray | None) -> Tensor:
        """The next action, float64 (A,); `advice_A` is the scripted expert's."""

    def see(self, sensed: Sensed) -> None:  # noqa: B027
        """What is shown, from the start on."""


class ExpertActor(Actor):
    """Does what the expert advises."""

    def act(self, advice_A: np.ndarray | None) -> Tensor:
        assert advice_A is not None
        return torch.from_numpy(advice_A).double()


class RandomActor(Actor):
    """Uniform actions, or a walk (an Ornstein-Uhlenbeck process between the limits)."""

    def __init__(self, hold: float, limits: Limits, generator: torch.Generator) -> None:
        self._limits, self._generator = limits, generator
        self._walk = Slow(hold, len(limits.low_A), generator) if hold > 0 else None
        self._half_A = limits.half_A

    def act(self, advice_A: np.ndarray | None) -> Tensor:
        middle_A = (self._limits.low_A + self._limits.high_A) / 2
        if self._walk is not None:
            return middle_A + self._half_A * (_WALK * self._walk.next()).clamp(-1, 1)
        uniform_A = torch.rand(len(middle_A), dtype=torch.float64, generator=self._generator)
        return self._limits.low_A + 2 * self._half_A * uniform_A


class PolicyActor(Actor):
    """Asks a policy, alone, so that its decisions do not depend on who else is asked."""

    def __init__(
        self, policy: Policy, sight: Sight, instruction: str, temperature: float, generator: torch.Generator
    ) -> None:
        self._policy, self._sight, self._instruction = policy, sight, instruction
        self._temperature, self._generator = temperature, generator
        self._seen: deque[Sensed] = deque(maxlen=sight.history)
        self._chunk: list[Tensor] = []

    def see(self, sensed: Sensed) -> None:
        if not self._seen:
            self._seen.extend([sensed] * self._sight.history)
        else:
            self._seen.append(sensed)

    def act(self, advice_A: np.ndarray | None) -> Tensor:
        if not self._chunk:
            self._chunk = list(self._decide())
        return self._chunk.pop(0).double()

    @torch.no_grad()
    def _decide(self) -> Tensor:
        frames_BTVHWC = torch.from_numpy(np.stack([sensed.frames_VHWC for sensed in self._seen]))[None]
        readings = [sensed.proprio_P for sensed in self._seen if sensed.proprio_P is not None]
        proprio_BTP = torch.from_numpy(np.stack(readings))[None] if readings else None
        observation = self._sight.observe(frames_BTVHWC, proprio_BTP, [self._instruction])
        chunk = self._policy.act(observation, temperature=self._temperature, generator=self._generator)
        chunk = checked_chunk(self._policy, chunk, 1)
        return chunk.actions_BLA[0].cpu()


class Slow:
    """Unit noise (A,) with a memory of `actions`: an Ornstein-Uhlenbeck process, begun in its own distribution."""

    def __init__(self, actions: float, width: int, generator: torch.Generator) -> None:
        self._keep, self._generator, self._width = math.exp(-1.0 / actions), generator, width
        self._value_A: Tensor | None = None

    def next(self) -> Tensor:
        fresh_A = torch.randn(self._width, dtype=torch.float64, generator=self._generator)
        if self._value_A is None:
            self._value_A = fresh_A
        else:
            self._value_A = self._keep * self._value_A + math.sqrt(1 - self._keep**2) * fresh_A
        return self._value_A


class Noise:
    """The noise of one attempt, with the amounts that it drew."""

    def __init__(self, config: NoiseConfig, amounts: torch.Generator, noise: torch.Generator) -> None:
        self.white, self.drift, self.gain = (
            drawn(amount, amounts) for amount in (config.white, config.drift, config.gain)
        )
        self._config, self._generator = config, noise
        self._slow: Slow | None = None

    def __call__(self, action_A: Tensor, limits: Limits) -> Tensor:
        chosen_A = self._chosen(len(action_A))
        if (self.white, self.drift, self.gain) == (0.0, 0.0, 1.0):
            return action_A
        noisy_A = self.gain * action_A
        if self.white or self.drift:
            self._slow = self._slow or Slow(self._config.drift_actions, len(action_A), self._generator)
            white_A = torch.randn(len(action_A), dtype=torch.float64, generator=self._generator)
            noisy_A = noisy_A + limits.half_A * (self.white * white_A + self.drift * self._slow.next())
        return torch.where(chosen_A, noisy_A, action_A)

    def _chosen(self, width: int) -> Tensor:
        dimensions = self._config.dimensions
        if dimensions is None:
            return torch.ones(width, dtype=torch.bool)
        if dimensions and max(dimensions) >= width:
            raise DataError(f"noise.dimensions names {max(dimensions)}; actions have the dimensions 0 to {width - 1}.")
        return torch.zeros(width, dtype=torch.bool).index_fill_(0, torch.tensor(dimensions, dtype=torch.long), True)


@dataclass(frozen=True)
class Casting:
    """Who acts in an attempt: drawn from the recording's seed, the family and the attempt's number."""

    config: CollectConfig
    policies: Mapping[int, Policy]
    """By the number of the actor."""

    def draw(self, label: str, number: int) -> tuple[int, Noise, float]:
        """The actor's number, its noise, and how long random actions last."""
        draws = self._stream(label, number, "cast")
        able = self.config.actors_of(label)
        weights = [self.config.all_actors()[i].weight for i in able]
        point = drawn([0.0, sum(weights)], draws)
        chosen = able[-1]
        for i, weight in zip(able, weights, strict=True):
            if point < weight:
                chosen = i
                break
            point -= weight
        actor = self.config.all_actors()[chosen]
        noise = Noise(actor.noise, draws, self._stream(label, number, "noise"))
        return chosen, noise, drawn(actor.hold, draws)

    def make(self, chosen: int, label: str, number: int, hold: float, limits: Limits, task: Task) -> Actor:
        """The actor, for a task that shows the start. Raises `ConfigError` for a policy that needs what it lacks."""
        actor: ActorConfig = self.config.all_actors()[chosen]
        if actor.kind == "expert":
            return ExpertActor()
        generator = self._stream(label, number, actor.kind)
        if actor.kind == "random":
            return RandomActor(hold, limits, generator)
        policy = self.policies[chosen]
        shown = Offers(task.cameras, None if task.proprio_TP is None else task.proprio_TP.shape[1])
        names = Names(f"The policy of actor {actor.label!r}", f"the environment {label!r}", "its starts")
        sight = find_sight(policy.needed, shown, task, names)
        return PolicyActor(policy, sight, task.instruction, actor.temperature, generator)

    def _stream(self, label: str, number: int, use: str) -> torch.Generator:
        return seeded_generator(self.config.seed, "collect", label, number, use)
