"""What runs on the cluster: rollout workers, and judges that do nothing else.

Both are built from the run's config, as `gymnast train` builds its parts, and told what has changed since.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gymnast_core.config.schema import RunConfig
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import load_tasks
from gymnast_core.plugins.registry import registries
from gymnast_core.rollouts.deal import Deal
from gymnast_core.training.engine import Wanted, imagine_batch
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward
from gymnast_ray.weights import frozen_prints, take_states, take_weights
from gymnast_ray.wire import Packed, PackedBatch, pack_batch, pack_rewards, unpack_batch


@dataclass(frozen=True)
class Place:
    """How a worker finds what a config names, and how much it may use."""

    folder: str
    """Working folder of the run; paths in its config are relative to that."""
    path: tuple[str, ...]
    """Where the run finds modules."""
    threads: int
    gpus: float

    def enter(self) -> None:
        """Become like the process that trains. A folder that this machine lacks is not needed if paths are absolute."""
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        sys.path += [item for item in self.path if item not in sys.path]
        torch.set_num_threads(self.threads)
        if not self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a part that takes any GPU that it sees must see none


@dataclass(frozen=True)
class Told:
    """Names of what is in the object store for workers: those who have it already need not look."""

    weights_key: int
    states_key: str


class RolloutWorker:
    """Imagines, with a policy and a world model of its own, and judges if it has a judge."""

    def build(self, config: RunConfig, place: Place, judges: bool) -> dict[str, str]:
        """Build the parts. Returns the fingerprints of the policy's frozen weights."""
        place.enter()
        self._parts = build_copies(config, acts=True, judges=judges)
        policy = self._parts.policy
        assert policy is not None
        policy.to("cuda" if place.gpus and torch.cuda.is_available() else "cpu").eval()
        self._weights_key: int | None = None
        self._states_key = ""
        return frozen_prints(policy)

    def take_frozen(self, given: Mapping[str, Packed]) -> None:
        """Replace the policy's frozen weights."""
        assert self._parts.policy is not None
        take_weights(self._parts.policy, given)

    def make(
        self, deal: Deal, wanted: Wanted, told: Told, weights: Mapping[str, Packed], states: Mapping[str, Any]
    ) -> list[PackedBatch]:
        """The batches of a deal, with those weights."""
        parts = self._parts
        policy, world_model, reward_model = parts.policy, parts.world_model, parts.reward_model
        assert policy is not None and world_model is not None
        if self._weights_key != told.weights_key:
            take_weights(policy, weights)
            self._weights_key = told.weights_key
        if self._states_key != told.states_key:
            take_states(parts, states)
            self._states_key = told.states_key
        imagined = []
        for batch in deal.batches:
            rollouts = imagine_batch(policy, world_model, batch, wanted)
            imagined.append((rollouts, None if reward_model is None else submit(reward_model, rollouts)))
        made = []
        for rollouts, future in imagined:
            rewards = None
            if reward_model is not None:
                rewards = judge(reward_model, rollouts, future, wanted.loop.rescore)
            made.append(pack_batch(rollouts, rewards))
        return made


class JudgeWorker:
    """Judges what rollout workers imagined."""

    def build(self, config: RunConfig, place: Place) -> None:
        """Build the judge and the world that it may ask."""
        place.enter()
        self._parts = build_copies(config, acts=False, judges=True)
        self._states_key = ""

    def judge(
        self, deal: Deal, wanted: Wanted, told: Told, made: Sequence[PackedBatch], states: Mapping[str, Any]
    ) -> list[Sequence[Mapping[str, Any]]]:
        """The rewards of each batch of a deal."""
        reward_model = self._parts.reward_model
        assert reward_model is not None
        if self._states_key != told.states_key:
            take_states(self._parts, states)
            self._states_key = told.states_key
        batches = [unpack_batch(packed, batch.tasks)[0] for packed, batch in zip(made, deal.batches, strict=True)]
        futures = [submit(reward_model, rollouts) for rollouts in batches]
        found: list[list[Reward]] = [
            judge(reward_model, rollouts, future, wanted.loop.rescore)
            for rollouts, future in zip(batches, futures, strict=True)
        ]
        return [pack_rewards(rewards) for rewards in found]


def build_copies(config: RunConfig, *, acts: bool, judges: bool) -> Parts:
    """Copies of those parts of a run that a worker needs, introduced to each other.

    Raises what `build_parts` raises: a machine may lack a file or a package that another one has.
    """
    known = registries()

    def build(kind: str, key: str) -> Any:
        part = getattr(config, key)
        return getattr(known, kind).build(part.name, part.args, key=key)

    parts = Parts(
        build("policies", "policy") if acts else None,
        build("world_models", "world_model"),
        build("reward_models", "reward_model") if judges else None,
        build("optimizers", "optimizer"),
        load_tasks(config.tasks),
        config=config,
    )
    parts.attach()
    return parts
