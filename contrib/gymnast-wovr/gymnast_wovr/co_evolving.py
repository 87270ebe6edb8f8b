"""A world model that is fitted to the policy's own rollouts while it trains it: `world_model: co-evolving`.

This is the world model itself, as it is at the moment, and the settings; `refinement` is what happens to it and
`callback` when. (WoVR, arXiv 2602.13977: base rollouts, reinforcement learning, evolved rollouts, one refinement of the
world model, reinforcement learning. The same idea: WMPO, arXiv 2511.09515, policy-behaviour alignment.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, NotNegative, Positive, Range, ZeroOrMore, check_values
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts, Trainable, WorldModel
from gymnast_core.plugins.compose import load_tasks, registries
from gymnast_core.types import Episode, LossSum, Offers, Step, Task
from torch import Tensor, nn

KEY = "world_model.args.world_model"


class CoEvolvingWorld(WorldModel):
    """Another world model, refined during `gymnast train` on rollouts of the policy in the tasks' own environments.

    Before the iterations in `at`, and before every `every`-th one, the policy acts `rollouts` times in the environments
    that the run's tasks name, and the world model takes `steps` gradient steps of its own `training_loss` on what
    happened there. Its weights are then part of every snapshot, so that a resumed run goes on with those that its
    iteration had; RUN/world_model/iteration-N keeps each refined world model, a checkpoint of the inner model.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        world_model: ComponentConfig
        """The world model that is refined: {name, args}. It must be trainable, and loadable with `checkpoint`."""
        at: list[ZeroOrMore] = field(default_factory=list)
        """Iterations, counted from 0, before which it is refined; 0 refines it on rollouts of the base policy."""
        every: ZeroOrMore = 0
        """Also before each iteration that is a multiple of this, 0 excepted; 0: only at `at`."""
        rollouts: Count = 64
        """Rollouts executed for each refinement, one a task, of tasks drawn by the run's seed."""
        temperature: NotNegative | None = None
        """Of the policy there; None: loop.temperature."""
        environment: ComponentConfig = field(default_factory=lambda: ComponentConfig("gymnasium"))
        """World in which the policy acts: the simulator behind each task."""
        environment_batch: Count = 16
        """Environments alive at once."""
        tasks: ComponentConfig | None = None
        """Dataset whose tasks with an environment are executed; None: the run's own tasks. (Those of keyframe-tasks
        that begin at a keyframe have none.)"""
        recorded: ComponentConfig | None = None
        """Recorded episodes to mix in, against forgetting; None trains on the new rollouts alone."""
        recorded_share: Annotated[float, Range(least=0, below=1)] = 0.5
        """Share of them in each batch, with `recorded`."""
        steps: Count = 200
        """Gradient steps a refinement."""
        batch_size: Count = 16
        """Episodes a gradient step."""
        learning_rate: Positive = 1e-4
        """AdamW's peak: it rises over the first tenth of the steps and falls along a half cosine to 0."""
        max_grad_norm: Positive = 1.0
        """Gradient norm (L2) above which gradients are scaled down."""

    def __init__(self, config: Config) -> None:
        _check(config)
        self.config = config
        part = config.world_model
        self.inner = registries().world_models.build(part.name, part.args, key=KEY)
        needed = ("module", "training_loss", "save")
        missing = [name for name in needed if getattr(type(self.inner), name) is getattr(Trainable, name)]
        if "checkpoint" not in {item.name for item in dataclasses.fields(type(self.inner).Config)}:
            missing.append("Config.checkpoint")
        if missing:
            raise ConfigError(
                f"{KEY}={config.world_model.name} cannot co-evolve: it lacks {', '.join(missing)}. Choose a world "
                "model that `gymnast fit` can train and save, e.g. worldgym."
            )
        self.refined: int | None = None
        """The iteration before which the weights were refined last; None: never."""
        self._parts = Parts()
        self._environment: WorldModel | None = None
        self._recorded: Sequence[Episode] | None = None

    @classmethod
    def offers(cls, config: Config) -> Offers:
        part = config.world_model
        inner = registries().world_models.load(part.name)
        return inner.offers(typed(inner.Config, part.args, f"{KEY}.args"))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.inner.device

    def attach(self, parts: Parts) -> None:
        self._parts = parts
        self.inner.attach(parts)

    def state_dict(self) -> dict[str, Any]:
        """Weights are part of it once they are no longer those of the checkpoint."""
        weights = None if self.refined is None else dict(self.inner.module().state_dict())
        return {"refined": self.refined, "weights": weights, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["weights"] is not None:
            self.inner.module().load_state_dict(state["weights"])
        self.refined = state["refined"]
        self.inner.load_state_dict(state["inner"])

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self.inner.most_episodes(tasks)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        return self.inner.reset(tasks, generator=generator)

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        return self.inner.step(state, actions_BLA)

    def close(self) -> None:
        self.inner.close()
        if self._environment is not None:
            self._environment.close()

    def module(self) -> nn.Module:
        return self.inner.module()

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        return self.inner.training_loss(episodes, generator=generator)

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        return self.inner.validate(episodes, generator=generator)

    def save(self, directory: Path) -> None:
        """A checkpoint of the inner world model, for its own `checkpoint`."""
        self.inner.save(directory)

    def is_due(self, iteration: int) -> bool:
        """Whether it is refined before that iteration."""
        every = self.config.every
        return iteration in self.config.at or bool(every and iteration and iteration % every == 0)

    def environment(self) -> WorldModel:
        """Where the policy acts for real; built when it is asked for first."""
        if self._environment is None:
            part = self.config.environment
            self._environment = registries().world_models.build(
                part.name, part.args, key="world_model.args.environment"
            )
            self._environment.attach(self._parts)
        return self._environment

    def tasks(self) -> Sequence[Task]:
        """What the policy may be asked to do there."""
        part = self.config.tasks
        return self._parts.tasks if part is None else load_tasks(part, "world_model.args.tasks")

    def recorded(self) -> Sequence[Episode]:
        """Recorded episodes to mix in. Raises `DataError` if there are none."""
        part, key = self.config.recorded, "world_model.args.recorded"
        if part is None:
            return ()
        if self._recorded is None:
            self._recorded = registries().datasets.build(part.name, part.args, key=key).episodes()
            if not len(self._recorded):
                raise DataError(f"{key}: the dataset {part.name!r} holds no episodes.")
        return self._recorded


def _check(config: CoEvolvingWorld.Config) -> None:
    check_values(type(config), asdict(config), "world_model.args")
    if not config.at and not config.every:
        raise ConfigError("co-evolving refines nothing: set world_model.args.every=N or world_model.args.at=[N].")
