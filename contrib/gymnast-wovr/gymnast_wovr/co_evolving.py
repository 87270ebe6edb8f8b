"""A world model that is refitted to the policy's own rollouts while it trains it: `world_model: co-evolving`.

This is the world model itself, as it is at the moment, and the settings; `refinement` is what happens to it (and to the
judge, if that is wanted) and `callback` when. (WoVR, arXiv 2602.13977: base rollouts, reinforcement learning, evolved
rollouts, one refinement of the world model, reinforcement learning. The same idea: WMPO, arXiv 2511.09515,
policy-behaviour alignment.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, NotNegative, ZeroOrMore, check_values
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, WorldModel
from gymnast_core.plugins.compose import load_tasks, registries
from gymnast_core.types import Episode, LossSum, Offers, Step, Task
from gymnast_dyna.config import RefitConfig, check_refit
from gymnast_dyna.refit import SECTIONS, Refit, lacks
from torch import Tensor, nn

from gymnast_wovr.learners import Learner, learning_judge

KEY = "world_model.args"
INNER = f"{KEY}.world_model"


def _some_steps() -> RefitConfig:
    return RefitConfig(fit={"fit": {"steps": 200, "warmup_steps": 20}})


class CoEvolvingWorld(WorldModel):
    """Another world model, refitted during `gymnast train` on rollouts of the policy in the tasks' own environments.

    Before the iterations in `at`, and before every `every`-th one, the policy acts `rollouts` times in the environments
    that the run's tasks name, and the world model, and the judge with `judge`, go on learning from what happened there
    and in earlier refinements, as in a round of `gymnast dyna`. Their weights are then part of every snapshot, so that
    a resumed run goes on with those that its iteration had; RUN/refinements/iteration-N keeps the recording and
    checkpoints. Of several processes, the first one acts and fits; the others wait for its weights.
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
        world: RefitConfig = field(default_factory=_some_steps)
        """How the world model goes on learning, as in `gymnast dyna`: `fit` has keys of `gymnast fit`, `earlier` are
        episodes against forgetting. Left out: 200 steps."""
        judge: RefitConfig | None = None
        """How the judge goes on learning from the same rollouts, by the environments' verdict: the one learned part of
        the run's reward model, alone or within others; null: it stays as it is."""

    def __init__(self, config: Config) -> None:
        _check(config)
        self.config = config
        part = config.world_model
        self.inner = registries().world_models.build(part.name, part.args, key=INNER)
        missing = lacks(type(self.inner))
        if not missing and part.args.get("checkpoint") is None:
            missing = [f"{INNER}.args.checkpoint, which it is to begin with"]
        if missing:
            raise ConfigError(
                f"{INNER}={config.world_model.name} cannot co-evolve: it lacks {', '.join(missing)}. Choose a world "
                "model that `gymnast fit` can train and save, e.g. worldgym."
            )
        self.refined: int | None = None
        """The iteration before which the weights were refined last; None: never."""
        self.recorded: list[int] = []
        """Iterations before which rollouts were recorded: what is learned from."""
        self._parts = Parts()
        self._judge: Learner | None = None
        self._judge_weights: Mapping[str, Any] | None = None
        """Of a snapshot, until the judge is known."""
        self._environment: WorldModel | None = None

    @classmethod
    def offers(cls, config: Config) -> Offers:
        part = config.world_model
        inner = registries().world_models.load(part.name)
        return inner.offers(typed(inner.Config, part.args, f"{INNER}.args"))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.inner.device

    @property
    def concurrent(self) -> bool:  # type: ignore[override]
        return self.inner.concurrent

    def attach(self, parts: Parts) -> None:
        self._parts = parts
        self.inner.attach(parts)
        if self.config.judge is not None and parts.reward_model is not None and parts.config is not None:
            self._judge = learning_judge(parts.reward_model, parts.config.reward_model)
            self._give_judge()

    def state_dict(self) -> dict[str, Any]:
        """Weights are part of it once they are no longer those of the checkpoint."""
        weights = judge = None
        if self.refined is not None:
            weights = dict(self.inner.module().state_dict())
            judge = self._judge_weights if self._judge is None else dict(self._judge.live.module().state_dict())
        state = {"refined": self.refined, "recorded": self.recorded, "weights": weights, "judge": judge}
        return {**state, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["weights"] is not None:
            self.inner.module().load_state_dict(state["weights"])
        # An earlier edition learned from the newest rollouts alone, and never refitted the judge.
        self.recorded, self._judge_weights = list(state.get("recorded", [])), state.get("judge")
        self._give_judge()
        self.refined = state["refined"]
        self.inner.load_state_dict(state["inner"])

    def _give_judge(self) -> None:
        if self._judge is not None and self._judge_weights is not None:
            self._judge.live.module().load_state_dict(self._judge_weights)
            self._judge_weights = None

    def learners(self) -> dict[str, Learner]:
        """What is refitted, by its key, in order."""
        found = {"world_model": Learner(self.inner, self.config.world_model)}
        return found if self._judge is None else {**found, "reward_model": self._judge}

    def how(self, key: str) -> RefitConfig:
        """How the part of that key goes on learning."""
        how: RefitConfig = getattr(self.config, SECTIONS[key])
        return how

    def take(self, key: str, weights: Mapping[str, Tensor]) -> None:
        """Let what is refitted under that key have these weights."""
        network = self.learners()[key].live.module()
        network.load_state_dict(weights)
        network.eval()

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self.inner.most_episodes(tasks)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        return self.inner.reset(tasks, generator=generator)

    @property
    def takes_several_apart(self) -> bool:
        return self.inner.takes_several_apart

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> Any:
        return self.inner.reset_apart(tasks, generators=generators)

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
            self._environment = registries().world_models.build(part.name, part.args, key=f"{KEY}.environment")
            self._environment.attach(self._parts)
        return self._environment

    def tasks(self) -> Sequence[Task]:
        """What the policy may be asked to do there."""
        part = self.config.tasks
        return self._parts.tasks if part is None else load_tasks(part, f"{KEY}.tasks")


def _check(config: CoEvolvingWorld.Config) -> None:
    """Everything that would only show at the first refinement. Raises `ConfigError`."""
    check_values(type(config), asdict(config), KEY)
    if not config.at and not config.every:
        raise ConfigError("co-evolving refines nothing: set world_model.args.every=N or world_model.args.at=[N].")
    for key, name in SECTIONS.items():
        how: RefitConfig | None = getattr(config, name)
        if how is None:
            continue
        section = f"{KEY}.{name}"
        check_refit(how, section)
        if how.recorded.name != "lerobot":
            raise ConfigError(f"{section}.recorded.name is {how.recorded.name}; a run records what lerobot reads.")
        trainer = how.fit.get("trainer") or {}
        if several := sorted({"devices", "num_nodes", "strategy"} & set(trainer)):
            raise ConfigError(f"{section}.fit.trainer.{several[0]}: within a run, one process fits. Leave it out.")
        somewhere = Path("refinement")
        Refit(how, key, config.world_model, config.world_model, [somewhere], 0, somewhere, section).config()
