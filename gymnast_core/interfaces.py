"""The contracts a plugin can fulfil: world model, policy, reward model, optimizer, and the dataset that feeds them.

Every component is built as `Component(config)`, where `config` is an instance of its `Config` dataclass; the
registry merges the user's `args` over the dataclass's defaults. `gymnast_core.testing.check_*` verifies each contract.

Shapes and units are those of `gymnast_core.types`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gymnast_core.errors import DataError
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.processes import Processes
from gymnast_core.types import (
    ActionChunk,
    Episode,
    Evaluation,
    LossSum,
    Needs,
    Observation,
    Offers,
    Reward,
    Rollout,
    Step,
    Task,
)

API_VERSION = 2
"""Raised when a contract changes in a way that plugins must follow."""


class Component:
    """What all five kinds of plugin share."""

    api_version: ClassVar[int]
    """The plugin API that the class is written for. Say `api_version = 2`: a plugin that says nothing is refused, so
    that none written for an earlier API runs and fails later."""
    Config: ClassVar[type]
    """Frozen dataclass of what the user may say, a docstring under each field and a range beside each number
    (`gymnast_core.config.ranges`)."""
    config: Any
    """The instance of `Config` that the component was built from."""
    free_on_resume: ClassVar[tuple[str, ...]] = ("device",)
    """Arguments that change nothing of what it computes, but where, how fast or for how much money: a command that goes
    on may be told others. (`gymnast train` lets all arguments of its reward model change, and notes it.) It replaces
    what is inherited: name "device" again, if there is one."""

    @classmethod
    def presets(cls) -> dict[str, dict[str, Any]]:
        """Other defaults for keys of `Config`, by the name that chooses them (a published checkpoint's settings); the
        documentation shows them beside the keys."""
        return {}

    def attach(self, parts: "Parts") -> None:
        """Called once, when all parts of a run are built, before any of them is used. Keep what you need of `parts`:
        a judge its run's world model, an optimizer its policy."""

    def state_dict(self) -> dict[str, Any]:
        """What a snapshot must hold, beside weights, so that a resumed run continues identically: nested dicts and
        lists of tensors, numbers, strings and None. A policy's is that of `torch.nn.Module`: weights included."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Continue from what `state_dict` returned."""

    def close(self) -> None:
        """Release simulators, files and connections. May be called more than once."""


class Trainable:
    """Mixin of components that `gymnast fit` can train."""

    least_actions: int = 0
    """Fewest recorded actions of an episode that `training_loss` and `validate` take. Shorter episodes are left out,
    counted and said, before a training begins (`gymnast_core.short_episodes`)."""

    def module(self) -> nn.Module:
        """The network whose parameters are trained; its `train()`/`eval()` mode is set by the caller."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it does not define module().")

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """The loss on recorded episodes, as a sum and its weight: an episode adds the same whichever others come along.

        All randomness (crops, noise, dropout) comes from `generator`, of which each episode takes one number, in order:
        begin with `generators = gymnast_core.seeds.episode_generators(generator, len(episodes))`, and draw what episode
        i needs from `generators[i]`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it does not define training_loss().")

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """Quality on held-out episodes, as named numbers (e.g. PSNR by frame, accuracy, false-positive rate)."""
        raise NotImplementedError(f"{type(self).__name__} cannot be validated: it does not define validate().")

    def save(self, directory: Path) -> None:
        """Write a checkpoint folder (safetensors + JSON) that the component's `Config` can load again."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved: it does not define save().")


class WorldModel(Component, Trainable, ABC):
    """Imagines what the cameras see when a robot acts.

    >>> state = world_model.reset(tasks, generator=generator)
    >>> step = world_model.step(state, actions_BLA)
    >>> step.frames_BLVHWC
    """

    device: torch.device
    concurrent: bool = False
    """Whether `reset` and `step` may be called from several threads at once, each with a state and a generator of its
    own, so that a CPU's cores imagine several batches side by side."""

    @classmethod
    def offers(cls, config: Any) -> Offers:
        """What the world that `config` describes shows after each action; known before anything heavy is loaded."""
        return Offers()

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        """The most episodes of these tasks that one `reset` may start while no other state is alive (a simulator's
        memory); None: any number. Larger batches are split by whoever resets (`imagine` does)."""
        return None

    @abstractmethod
    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        """Start B = len(tasks) episodes from the tasks' context frames (and their actions).

        Returns an opaque state. Several states may be alive at once and do not influence each other. All
        randomness of the episodes (initial noise of every later step) comes from `generator`; the same seed gives
        the same frames, and an episode's frames do not depend on its neighbours beyond the noise drawn.
        Raises `DataError` if the frames do not fit the model.
        """

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> Any:
        """As `reset`, but episode i draws its noise from `generators[i]` alone: neither its place in the batch nor its
        neighbours change its frames, and the same start, actions and seed give the same frames (within rounding).

        This default takes one episode at a time, which whoever calls it has to heed (`takes_several_apart`). Override
        it where a batch can draw its noise row by row.
        """
        if len(tasks) != 1:
            raise NotImplementedError(f"{type(self).__name__} starts episodes with noise of their own one at a time.")
        return self.reset(tasks, generator=generators[0])

    @property
    def takes_several_apart(self) -> bool:
        """Whether `reset_apart` takes several episodes at once: where it is overridden. A world model around another
        one answers what that one does."""
        return type(self).reset_apart is not WorldModel.reset_apart

    @abstractmethod
    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        """Execute a chunk of L actions in each episode; what the world shows after each of them.

        Actions are float32 in robot units; any L >= 1 is accepted, and chunk lengths may vary between calls.
        `state` is consumed and updated in place: the caller uses the same object again for the next chunk.
        Raises `DataError` if the actions' width is not the model's.
        """


class Policy(nn.Module, Component, Trainable, ABC):
    """Decides the next chunk of actions from what the cameras see and the instruction."""

    chunk_length: int
    """L, actions a decision."""
    action_dim: int
    """A."""
    concurrent: bool = False
    """Whether `act` may be called from several threads at once, each with a generator of its own."""

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What the policy that `config` describes must be shown; known before anything heavy is loaded."""
        return Needs()

    @cached_property
    def needed(self) -> Needs:
        """What this policy must be shown. `needs` is asked once: files that a policy came from may be gone later."""
        needs = self.needs(self.config)
        return needs if needs.actions is not None else replace(needs, actions=int(self.action_dim))

    @abstractmethod
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        """Decide one chunk for each of B observations, without gradients.

        `temperature` divides the logits; 0 means the most likely action (log-probabilities are then those at
        temperature 1). Sampling uses `generator` only. Of a policy for evaluation only, log-probabilities are NaN.
        """

    @abstractmethod
    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        """How likely the current weights make a chunk at that temperature: a number, or float32 (B,), one a decision.

        With unchanged weights `log_prob_BLD` equals what `act` returned for the chunk. `GymnastError` if that is NaN.
        """

    @property
    def least_actions(self) -> int:  # type: ignore[override]
        """A chunk of them; a policy that can learn from less overrides this."""
        return int(self.chunk_length)

    def module(self) -> nn.Module:
        return self

    def imitation_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        """Supervised loss on recorded episodes (behaviour cloning), as of `training_loss`."""
        return self.training_loss(episodes, generator=generator)


class RewardModel(Component, Trainable, ABC):
    """Judges rollouts."""

    kind: Literal["success", "score"] = "success"
    """"success": a reward's value in [0, 1] says whether the instruction was fulfilled, and reports call it success.
    "score": any finite number, larger is better; reports call it the mean reward by this judge."""

    @classmethod
    def looks_at(cls, config: Any, frames: int) -> Sequence[int]:
        """The places, of `frames` >= 1 of a rollout, that `score` looks at; all, unless a judge says otherwise. What
        nobody looks at need not be made (`Rollout.frames_at`), and `gymnast plan` does not count it."""
        return range(frames)

    @abstractmethod
    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        """One `Reward` per rollout, in order. What cannot be judged comes back with `error` set, never as a value.

        A rollout's reward does not depend on the other rollouts of the call. Inputs are not modified.
        """

    def objection(self, task: Task) -> str | None:
        """Why no rollout of this task can be judged, whatever happens in it, and what to do about it; None: one may be.
        Asked after `attach`, before anything runs, about tasks whose instruction was changed."""
        return None

    def preflight(self, rollouts: int, frames: int) -> None:
        """Called before policy and world model are loaded: refuse (`ConfigError`) to judge that many rollouts of that
        many frames if it cannot be paid for, or say what it will cost."""

    def submit(self, rollouts: Sequence[Rollout]) -> "Future[list[Reward]]":
        """Start `score` and return at once, for judges that work while the next rollouts are imagined."""
        scored: Future[list[Reward]] = Future()
        scored.set_result(self.score(rollouts))
        return scored


class Optimizer(Component, ABC):
    """The reinforcement-learning algorithm (not torch.optim.Optimizer): from rewards to a policy loss."""

    group_size: int
    """K, episodes imagined for each task draw."""
    epochs: int
    """Passes over each batch of rollouts."""
    minibatch_size: int
    """Trajectories a gradient step."""
    max_grad_norm: float
    """Gradient norm above which gradients are scaled down."""
    needs_reference: bool = False
    """Whether `loss` wants the log-probabilities under the frozen initial policy."""
    demonstrations_per_rollout: float = 0.0
    """Demonstration episodes mixed into each minibatch, as a multiple of its trajectories (Iter-SFT: 1)."""
    imitates: bool = False
    """Whether `loss` imitates rollouts, as `Policy.imitation_loss` does demonstrations. Then `log_prob_BSD`, entropies
    and the reference's are those at temperature 1. Otherwise they are those at the temperature that each rollout was
    sampled with, so that the ratio to `old_log_prob_BSD` is 1 before the first step."""

    def extra_modules(self, policy: Policy) -> Mapping[str, nn.Module]:
        """Critics and the like by name: trained by the same gradient steps, kept in snapshots, saved beside the policy.
        Called once, after `attach`; return the same modules that `loss` uses."""
        return {}

    @abstractmethod
    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The gradient optimizer of the policy's and the extra modules' parameters. A parameter group may hold
        `lr_scale`, a factor on `learning_rate`."""

    @abstractmethod
    def learning_rate(self, update: int) -> float:
        """Learning rate of the given gradient step, counted from 0 over the whole run."""

    @abstractmethod
    def keep(self, judged: Judged) -> Tensor:
        """Which groups carry a training signal, bool (G,)."""

    @abstractmethod
    def advantages(self, judged: Judged) -> Advantages:
        """What each action's advantage is, for the groups that were kept. In a run of several processes, each asks for
        its own groups; what has to be known of all of them goes through `parts.processes`."""

    @abstractmethod
    def loss(self, minibatch: Minibatch) -> LossSum:
        """The loss of some trajectories as a sum and its weight: the parts of a minibatch add up to the whole.

        Metrics: clip fraction, ratio, …, each with how it combines.
        """

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        """Whether to skip this gradient step and the rest of the batch (e.g. the KL left its bound)."""
        return False


class Dataset(Component, ABC):
    """Tasks and/or recorded episodes. Both are lazy sequences: an item is read when it is indexed."""

    def tasks(self) -> Sequence[Task]:
        """Tasks to start from. Slices are sequences, too.

        Ids are unique: an id stands for one start, and results are paired by it. A run refuses two tasks of one id; at
        its start where the sequence is a list or has an attribute `ids` (a sequence of all ids, none of which takes
        making a task), else when the second one is read.
        """
        raise DataError(f"{type(self).__name__} holds no tasks. Choose a dataset of tasks.")

    def episodes(self) -> Sequence[Episode]:
        """Recorded episodes to fit components to. Slices are sequences, too."""
        raise DataError(f"{type(self).__name__} holds no episodes. Choose a dataset of recorded episodes.")


@dataclass(frozen=True)
class Parts:
    """The parts of a run. A command that has no use for one leaves it None (`gymnast evaluate` has no optimizer)."""

    policy: Policy | None = None
    world_model: WorldModel | None = None
    reward_model: RewardModel | None = None
    optimizer: Optimizer | None = None
    tasks: Sequence[Task] = ()
    demonstrations: Sequence[Episode] = ()
    config: Any = None
    """The config of the command (`RunConfig` of `gymnast train`)."""
    processes: Processes = field(default_factory=Processes)

    def components(self) -> Mapping[str, Component]:
        """Those that there are, by their key in the config."""
        named = {
            "policy": self.policy,
            "world_model": self.world_model,
            "reward_model": self.reward_model,
            "optimizer": self.optimizer,
        }
        return {name: part for name, part in named.items() if part is not None}

    def attach(self) -> None:
        """Introduce the parts to each other, and to the tasks, if these want to know them (`AttachedTasks`)."""
        for component in self.components().values():
            component.attach(self)
        if isinstance(self.tasks, AttachedTasks):
            self.tasks.attach(self)


@runtime_checkable
class AttachedTasks(Protocol):
    """A sequence of tasks that is told the parts of a run after these were introduced to each other."""

    def attach(self, parts: Parts) -> None:
        """Refuse (`ConfigError`) what these parts cannot do with the tasks."""
