"""The data that crosses component boundaries, as frozen dataclasses.

Shape legend, used as suffix of tensor names throughout the project:

    B  imagined episodes in a batch      T  frames             H W C  pixels, uint8 RGB
    G  groups (one task each)            K  episodes a group
    N  decisions (chunks) an episode     L  actions a chunk    A  action dimensions
    D  factors of an action's probability: A for one token a dimension, 1 for a joint density
    V  camera views                      P  proprioceptive dimensions

Frames are uint8 RGB. Actions are in the robot's own units (metres, radians, gripper 0–1), float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What to do and where to start: the first frame(s) and an instruction."""

    id: str
    """Unique within its dataset; paired comparisons join on it."""
    instruction: str
    """Natural language, e.g. "push the red block to the left"."""
    frames_THWC: Tensor
    """uint8 RGB, T >= 1 context frames, the last one being where the policy starts."""
    actions_TA: Tensor | None = None
    """float32 actions that led from one context frame to the next, (T-1, A); None when T = 1."""
    seed: int | None = None
    """Seed with which `environment.reset` shows the last context frame; None when no environment stands behind it."""
    environment: str | None = None
    """Gymnasium id of that environment, e.g. "gymnast/Tabletop-v0"."""
    environment_options: Mapping[str, object] = field(default_factory=dict)
    """`options` of that `reset`."""
    environment_args: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of `gymnasium.make` for that environment."""
    partial_credit_criteria: str | None = None
    """What counts as half a success, for judges that give partial credit."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one decision, for B episodes."""

    images_BVHWC: Tensor
    """uint8 RGB."""
    instructions: tuple[str, ...]
    """B instructions."""
    proprio_BP: Tensor | None = None
    """float32 joint or pose readings in the robot's own units, when there are any."""

    def to(self, device: torch.device | str) -> Self:
        proprio = None if self.proprio_BP is None else self.proprio_BP.to(device)
        return replace(self, images_BVHWC=self.images_BVHWC.to(device), proprio_BP=proprio)


@dataclass(frozen=True)
class ActionChunk:
    """A policy's decision for B episodes: L actions each, and how likely they were."""

    actions_BLA: Tensor
    """float32, robot units."""
    log_prob_BLD: Tensor
    """float32 log-probability (natural log) of each factor of each action at the sampling temperature."""
    tokens_BLD: Tensor | None = None
    """int64 token ids for policies that decide in tokens: what `evaluate` scores."""


@dataclass(frozen=True)
class Rollout:
    """One episode of a policy in a world. Kept as uint8 frames; nothing here grows with a model's input size."""

    task: Task
    group: int
    """Index of the group (the task draw) that this episode belongs to."""
    frames_THWC: Tensor
    """uint8 RGB, T = 1 + N·L: the start frame, then one frame an action."""
    actions_NLA: Tensor
    """float32, robot units."""
    log_prob_NLD: Tensor
    """float32, at `temperature`, under the policy that acted."""
    temperature: float
    tokens_NLD: Tensor | None = None
    """int64 token ids, for policies that decide in tokens."""
    outcome: float | None = None
    """Success in [0, 1] as the world itself knows it (simulators); None for learned worlds."""
    finish_step: int | None = None
    """Number of actions until the first success, when known; later actions are masked out of the loss."""

    @property
    def horizon(self) -> int:
        """Actions taken."""
        return self.actions_NLA.shape[0] * self.actions_NLA.shape[1]


@dataclass(frozen=True)
class Reward:
    """A judgement of one rollout. Either `value` or `error` is set: a failed judgement is never a zero."""

    value: float | None
    """Success in [0, 1]."""
    partial: float | None = None
    """Partial credit in [0, 1], e.g. the success probability behind a thresholded value."""
    rationale: str = ""
    error: str | None = None
    cost_usd: float = 0.0
    finish_step: int | None = None
    """Number of actions until the first success, for judges that know; it replaces the rollout's."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.error is None):
            raise ValueError("A Reward has either a value or an error, never both or neither.")
        for name in ("value", "partial"):
            number = getattr(self, name)
            if number is not None and not 0.0 <= number <= 1.0:
                raise ValueError(f"Reward.{name} is {number}; it must lie in [0, 1].")
        if self.finish_step is not None and self.finish_step < 1:
            raise ValueError(f"Reward.finish_step is {self.finish_step}; it counts actions, from 1.")


@dataclass(frozen=True)
class Episode:
    """A recorded episode: what world models, policies and rewards are fitted to."""

    id: str
    instruction: str
    frames_THWC: Tensor
    """uint8 RGB."""
    actions_TA: Tensor
    """float32, robot units, (T-1, A): action i leads from frame i to frame i+1."""
    success: bool | None = None
    """Whether the instruction was fulfilled at the end; None when unknown."""
    outcomes: Mapping[str, bool] = field(default_factory=dict)
    """What is known of other instructions at the end (hindsight): instruction -> fulfilled."""
    points_TJ2: Tensor | None = None
    """float32 image coordinates (x right, y down, both in [0, 1]) of J points of interest a frame, the object that the
    instruction names first; NaN where out of view. Auxiliary training targets; None where nobody knows them."""
