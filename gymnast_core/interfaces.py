"""The four contracts a plugin can fulfil, and the dataset that feeds them.

Every component is built as `Component(config)`, where `config` is an instance of its `Config` dataclass; the
registry merges the user's `args` over the dataclass's defaults. `gymnast_core.testing.check_*` verifies each contract.

Shapes and units are those of `gymnast_core.types`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gymnast_core.errors import DataError
from gymnast_core.types import ActionChunk, Episode, Observation, Reward, Rollout, Task

API_VERSION = 1
"""Raised when a contract changes in a way that plugins must follow."""


@dataclass(frozen=True)
class Loss:
    """A training loss and what to log with it."""

    value: Tensor
    """Scalar, differentiable."""
    metrics: Mapping[str, float]


class Trainable:
    """Mixin of components that `gymnast fit` can train."""

    def module(self) -> nn.Module:
        """The network whose parameters are trained; its `train()`/`eval()` mode is set by the caller."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it does not define module().")

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        """The loss on a batch of recorded episodes. All randomness (crops, noise, dropout) comes from `generator`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained: it does not define training_loss().")

    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """Quality on held-out episodes, as named numbers (e.g. PSNR by frame, accuracy, false-positive rate)."""
        raise NotImplementedError(f"{type(self).__name__} cannot be validated: it does not define validate().")

    def save(self, directory: Path) -> None:
        """Write a checkpoint folder (safetensors + JSON) that the component's `Config` can load again."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved: it does not define save().")


class WorldModel(Trainable, ABC):
    """Imagines what the camera sees when a robot acts.

    >>> state = world_model.reset(tasks, generator=generator)
    >>> frames_BLHWC = world_model.step(state, actions_BLA)
    """

    api_version: ClassVar[int] = API_VERSION
    Config: ClassVar[type]
    device: torch.device

    @abstractmethod
    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        """Start B = len(tasks) episodes from the tasks' context frames (and their actions).

        Returns an opaque state. Several states may be alive at once and do not influence each other. All
        randomness of the episodes (initial noise of every later step) comes from `generator`; the same seed gives
        the same frames, and an episode's frames do not depend on its neighbours beyond the noise drawn.
        Raises `DataError` if the frames do not fit the model.
        """

    @abstractmethod
    def step(self, state: Any, actions_BLA: Tensor) -> Tensor:
        """Execute a chunk of L actions in each episode and return the L frames that follow, uint8 (B, L, H, W, C).

        Actions are float32 in robot units; any L >= 1 is accepted, and chunk lengths may vary between calls.
        `state` is consumed and updated in place: the caller uses the same object again for the next chunk.
        Raises `DataError` if the actions' width is not the model's.
        """

    def outcomes(self, state: Any) -> Sequence[float | None]:
        """Success in [0, 1] as the world itself knows it, one per episode; None for learned worlds."""
        return [None] * len(state)

    def close(self) -> None:
        """Release simulators, files and connections."""


class Policy(nn.Module, Trainable, ABC):
    """Decides the next chunk of actions from what the camera sees and the instruction."""

    api_version: ClassVar[int] = API_VERSION
    Config: ClassVar[type]
    chunk_length: int
    """L, actions a decision."""
    action_dim: int
    """A."""

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
        self, observation: Observation, chunk: ActionChunk, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Differentiable (log_prob_BLD, entropy_BLD) of a chunk under the current weights at that temperature (nats).

        With unchanged weights `log_prob_BLD` equals what `act` returned for the chunk. `GymnastError` if that is NaN.
        """

    def module(self) -> nn.Module:
        return self

    def imitation_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        """Supervised loss on recorded episodes (behaviour cloning)."""
        return self.training_loss(episodes, generator=generator)


class RewardModel(Trainable, ABC):
    """Judges whether rollouts fulfil their instructions."""

    api_version: ClassVar[int] = API_VERSION
    Config: ClassVar[type]

    @abstractmethod
    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        """One `Reward` per rollout, in order. What cannot be judged comes back with `error` set, never as a value.

        A rollout's reward does not depend on the other rollouts of the call. Inputs are not modified.
        """

    def preflight(self, rollouts: int, frames: int) -> None:
        """Called before policy and world model are loaded: refuse (`ConfigError`) to judge that many rollouts of that
        many frames if it cannot be paid for, or say what it will cost."""

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        """Start `score` and return at once, for judges that work while the next rollouts are imagined."""
        scored: Future[list[Reward]] = Future()
        scored.set_result(self.score(rollouts))
        return scored

    def close(self) -> None:
        """Release files and connections."""


class Optimizer(ABC):
    """The reinforcement-learning algorithm (not torch.optim.Optimizer): from rewards to a policy loss."""

    api_version: ClassVar[int] = API_VERSION
    Config: ClassVar[type]
    group_size: int
    """K, episodes imagined for each task draw."""
    epochs: int
    """Passes over each batch of rollouts."""
    minibatch_size: int
    """Trajectories a gradient step."""
    max_grad_norm: float
    """Gradient norm above which gradients are scaled down."""
    needs_reference: bool = False
    """Whether `loss` wants `reference_log_prob`, the log-probabilities under the frozen initial policy."""
    demonstrations_per_rollout: float = 0.0
    """Demonstration episodes mixed into each minibatch, as a multiple of its trajectories (Iter-SFT: 1)."""

    @abstractmethod
    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The gradient optimizer of the policy's parameters."""

    @abstractmethod
    def learning_rate(self, update: int) -> float:
        """Learning rate of the given gradient step, counted from 0 over the whole run."""

    @abstractmethod
    def keep(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """Which groups carry a training signal, bool (G,). Entries where `valid_GK` is False are unscored rollouts."""

    @abstractmethod
    def advantages(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        """Advantages, float32 (G, K); 0 where `valid_GK` is False, whatever `rewards_GK` holds there."""

    @abstractmethod
    def loss(
        self,
        log_prob_BS: Tensor,
        old_log_prob_BS: Tensor,
        advantages_B: Tensor,
        mask_BS: Tensor,
        reference_log_prob_BS: Tensor | None = None,
    ) -> Loss:
        """The policy loss of a minibatch of B trajectories with S = N·L·D factors each.

        Masked entries (False) and padding influence neither value nor gradient. Metrics: clip fraction, ratio, ….
        """

    def should_stop(self, metrics: Mapping[str, float]) -> bool:
        """Whether to skip the remaining gradient steps on this batch (e.g. the KL left its bound)."""
        return False


class Dataset(ABC):
    """Tasks and/or recorded episodes. Both are lazy sequences: an item is read when it is indexed."""

    api_version: ClassVar[int] = API_VERSION
    Config: ClassVar[type]

    def tasks(self) -> Sequence[Task]:
        """Tasks to start rollouts from."""
        raise DataError(f"{type(self).__name__} holds no tasks. Choose a dataset of tasks.")

    def episodes(self) -> Sequence[Episode]:
        """Recorded episodes to fit to."""
        raise DataError(f"{type(self).__name__} holds no episodes. Choose a dataset of recorded episodes.")
