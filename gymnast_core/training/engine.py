"""Where rollouts are made and judged: in the process that trains, or wherever a plugin has workers.

An engine is told which groups are wanted, and gives them back judged. Which rollouts come back does not depend on where
they are made: their noise has a name (`gymnast_core.seeds`) of seed, iteration, draw and place in the draw.
"""

from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from threading import Event

import torch

from gymnast_core.config.ranges import Count
from gymnast_core.config.schema import ComponentConfig, LoopConfig
from gymnast_core.interfaces import Component, Parts, Policy, RewardModel, WorldModel
from gymnast_core.plugins.registry import Registry
from gymnast_core.rollouts.deal import Batch, Deal
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.side_by_side import side_by_side
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Rollout


@dataclass(frozen=True)
class Wanted:
    """One draw: rollouts that are to be made with the policy's weights as they are when an engine is told."""

    deals: tuple[Deal, ...]
    """Those of this process."""
    loop: LoopConfig
    seed: int
    iteration: int
    draw: int
    """Number of the draw within the iteration."""
    version: int
    """Gradient steps behind the policy; names its weights."""


class Making(ABC):
    """Rollouts under way."""

    @abstractmethod
    def rollouts(self) -> list[Rollout]:
        """Those of all deals, in order. Waits until they are imagined, whether they are judged or not."""

    @abstractmethod
    def rewards(self) -> list[Reward]:
        """One for each of `rollouts()`. Waits until they are judged."""


class Engine(Component, ABC):
    """Makes and judges rollouts. `attach` gives it the parts of the run; it has no state that a snapshot would need."""

    api_version = 2
    staleness: int = 0
    """Updates that the weights behind a draw may lack when it is learned from: 0; or 1 of an engine that works on the
    next iteration's first draw while the policy is updated."""

    @abstractmethod
    def start(self, wanted: Wanted) -> Making:
        """Begin to make what is wanted, and return at once. If `staleness` is 1, the policy may change as soon as this
        returns; otherwise not before `rollouts()` has returned."""


class LocalEngine(Engine):
    """Everything in the process that trains, as a run does unless it is told otherwise."""

    @dataclass(frozen=True)
    class Config:
        batches: Count | None = None
        """Batches that a CPU's cores imagine side by side, each of which takes memory; null: as many as PyTorch has
        threads. 1 lets all threads work on one batch after the other."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def attach(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, wanted: Wanted) -> Making:
        policy, world_model, reward_model = self._parts.policy, self._parts.world_model, self._parts.reward_model
        assert policy is not None and world_model is not None and reward_model is not None
        return _Here(policy, world_model, reward_model, wanted, self.config.batches)


class _Here(Making):
    """Made when they are asked for."""

    def __init__(
        self, policy: Policy, world_model: WorldModel, reward_model: RewardModel, wanted: Wanted, at_once: int | None
    ) -> None:
        self._policy, self._world_model, self._reward_model = policy, world_model, reward_model
        self._wanted = wanted
        most = batches_at_once(policy, world_model)
        self._at_once = most if at_once is None else min(at_once, most)
        self._imagined: list[tuple[list[Rollout], Future[list[Reward]]]] = []

    def rollouts(self) -> list[Rollout]:
        batches = [batch for deal in self._wanted.deals for batch in deal.batches]
        with closing(side_by_side(self._imagine, batches, self._at_once)) as made:
            for imagined in made:
                # A judge that answers slowly works on this batch while the next one is imagined.
                self._imagined.append((imagined, submit(self._reward_model, imagined)))
        return [rollout for batch, _ in self._imagined for rollout in batch]

    def _imagine(self, batch: Batch, stop: Event) -> list[Rollout]:
        return imagine_batch(self._policy, self._world_model, batch, self._wanted, stop)

    def rewards(self) -> list[Reward]:
        again = self._wanted.loop.rescore
        return [
            reward for batch, future in self._imagined for reward in judge(self._reward_model, batch, future, again)
        ]


def batches_at_once(policy: Policy, world_model: WorldModel) -> int:
    """How many batches this process can imagine side by side: one for each of PyTorch's threads on a CPU, if the parts
    allow it. Several processes have the cores to share already."""
    devices = {world_model.device.type, *(weights.device.type for weights in policy.parameters())}
    allowed = policy.concurrent and world_model.concurrent and not torch.distributed.is_initialized()
    return torch.get_num_threads() if allowed and devices == {"cpu"} else 1


def imagine_batch(
    policy: Policy, world_model: WorldModel, batch: Batch, wanted: Wanted, stop: Event | None = None
) -> list[Rollout]:
    """The rollouts of one batch of a draw: the same ones wherever this is called. `Stopped` if `stop` is set."""
    return imagine(
        policy,
        world_model,
        batch.tasks,
        horizon=wanted.loop.horizon,
        temperature=wanted.loop.temperature,
        generator=seeded_generator(wanted.seed, "imagine", wanted.iteration, wanted.draw, batch.first),
        groups=batch.labels,
        batch_size=wanted.loop.imagine_batch_size,
        version=wanted.version,
        stop=stop,
    )


@lru_cache(maxsize=1)
def engines() -> Registry[Engine]:
    """The engines of this process: our own "local", and those of the entry points `gymnast.engines`."""
    found: Registry[Engine] = Registry("engine", "gymnast.engines", "Engine", module="gymnast_core.training.engine")
    found.register("local", LocalEngine)
    return found


def build_engine(part: ComponentConfig) -> Engine:
    """The engine that a config asks for. Raises `ConfigError`, `PluginError`."""
    return engines().build(part.name, part.args, key="engine")
