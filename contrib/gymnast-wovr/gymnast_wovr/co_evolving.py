"""A world model that is fitted to the policy's own rollouts while it trains it: `world_model: co-evolving`.

This is the world model itself, as it is at the moment, and the settings; `refinement` is what happens to it and
`callback` when. (WoVR, arXiv 2602.13977: base rollouts, reinforcement learning, evolved rollouts, one refinement of the
world model, reinforcement learning. The same idea: WMPO, arXiv 2511.09515, policy-behaviour alignment.)
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Loss, Trainable, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode, Task
from torch import Tensor, nn

KEY = "world_model.args.world_model"


class CoEvolvingWorld(WorldModel):
    """Another world model, refined during `gymnast train` on rollouts of the policy in the tasks' own environments.

    Before the iterations in `at`, and before every `every`-th one, the policy acts `rollouts` times in the environments
    that the run's tasks name, and the world model takes `steps` gradient steps of its own `training_loss` on what
    happened there. Each refined world model is kept in RUN/world_model/iteration-N, a checkpoint of the inner model;
    a resumed run goes on with the one that its iteration had.
    """

    @dataclass(frozen=True)
    class Config:
        world_model: ComponentConfig
        """The world model that is refined: {name, args}. It must be trainable, and loadable with `checkpoint`."""
        at: list[int] = field(default_factory=list)
        """Iterations, counted from 0, before which it is refined; 0 refines it on rollouts of the base policy."""
        every: int = 0
        """Also before each iteration that is a multiple of this, 0 excepted; 0: only at `at`."""
        rollouts: int = 64
        """Rollouts executed for each refinement, one a task, of tasks drawn by the run's seed."""
        temperature: float | None = None
        """Of the policy there; None: loop.temperature."""
        environment: ComponentConfig = field(default_factory=lambda: ComponentConfig("gymnasium"))
        """World in which the policy acts: the simulator behind each task."""
        environment_batch: int = 16
        """Environments alive at once."""
        tasks: ComponentConfig | None = None
        """Dataset whose tasks with an environment are executed; None: the run's own tasks, of keyframe-tasks the
        first-frame ones."""
        recorded: ComponentConfig | None = None
        """Recorded episodes to mix in, against forgetting; None trains on the new rollouts alone."""
        recorded_share: float = 0.5
        """Share of them in each batch, with `recorded`."""
        steps: int = 200
        """Gradient steps a refinement."""
        batch_size: int = 16
        """Episodes a gradient step."""
        learning_rate: float = 1e-4
        """AdamW's peak: it rises over the first tenth of the steps and falls along a half cosine to 0."""
        max_grad_norm: float = 1.0
        """Gradient norm (L2) above which gradients are scaled down."""

    def __init__(self, config: Config) -> None:
        _check(config)
        self.config = config
        self.inner = self._build({})
        needed = ("module", "training_loss", "save")
        missing = [name for name in needed if getattr(type(self.inner), name) is getattr(Trainable, name)]
        if "checkpoint" not in {item.name for item in dataclasses.fields(type(self.inner).Config)}:
            missing.append("Config.checkpoint")
        if missing:
            raise ConfigError(
                f"{KEY}={config.world_model.name} cannot co-evolve: it lacks {', '.join(missing)}. Choose a world "
                "model that `gymnast fit` can train and save, e.g. worldgym."
            )
        _Built.newest = weakref.ref(self)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.inner.device

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        return self.inner.reset(tasks, generator=generator)

    def step(self, state: Any, actions_BLA: Tensor) -> Tensor:
        return self.inner.step(state, actions_BLA)

    def outcomes(self, state: Any) -> Sequence[float | None]:
        return self.inner.outcomes(state)

    def close(self) -> None:
        self.inner.close()

    def module(self) -> nn.Module:
        return self.inner.module()

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        return self.inner.training_loss(episodes, generator=generator)

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        return self.inner.validate(episodes, generator=generator)

    def save(self, directory: Path) -> None:
        """A checkpoint of the inner world model, for its own `checkpoint`."""
        self.inner.save(directory)

    def load(self, directory: Path) -> None:
        """Take over the weights that `save` wrote. Raises `CheckpointError` if they do not fit."""
        saved = self._build({"checkpoint": str(directory)})
        self.inner.module().load_state_dict(saved.module().state_dict())
        saved.close()

    def is_due(self, iteration: int) -> bool:
        """Whether it is refined before that iteration."""
        every = self.config.every
        return iteration in self.config.at or bool(every and iteration and iteration % every == 0)

    def _build(self, changes: dict[str, Any]) -> WorldModel:
        part = self.config.world_model
        return registries().world_models.build(part.name, {**part.args, **changes}, key=KEY)


class _Built:
    newest: weakref.ref[CoEvolvingWorld] | None = None


def newest_world() -> CoEvolvingWorld | None:
    """The one that was built last in this process: hooks are not handed the run's components."""
    return None if _Built.newest is None else _Built.newest()


def _check(config: CoEvolvingWorld.Config) -> None:
    if not config.at and not config.every:
        raise ConfigError("co-evolving refines nothing: set world_model.args.every=N or world_model.args.at=[N].")
    if any(iteration < 0 for iteration in config.at) or config.every < 0:
        raise ConfigError("world_model.args.at and .every count iterations; they must not be negative.")
    for name in ("rollouts", "environment_batch", "steps", "batch_size"):
        if getattr(config, name) < 1:
            raise ConfigError(f"world_model.args.{name} is {getattr(config, name)}; it must be at least 1.")
    for name in ("learning_rate", "max_grad_norm"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"world_model.args.{name} is {getattr(config, name)}; it must be above 0.")
    if not 0.0 <= config.recorded_share < 1.0:
        raise ConfigError(f"world_model.args.recorded_share is {config.recorded_share}; it must lie in [0, 1).")
    if config.temperature is not None and config.temperature < 0:
        raise ConfigError(f"world_model.args.temperature is {config.temperature}; it must not be negative.")
