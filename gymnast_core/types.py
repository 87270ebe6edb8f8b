"""The data that crosses component boundaries, as frozen dataclasses.

Shape legend, used as suffix of tensor names throughout the project:

    B  episodes or decisions in a batch  T  frames             H W C  pixels, uint8 RGB
    G  groups (one task each)            K  episodes a group   V  cameras
    N  decisions (chunks) an episode     L  actions a chunk    S  actions an episode: N·L
    A  action dimensions                 P  proprioceptive readings
    D  factors of an action's probability: A for one token a dimension, 1 for a joint density

Frames are uint8 RGB. Actions and proprioception are in the robot's own units (metres, radians, gripper 0–1), float32.
An episode's cameras have one size and a name each; the first is the main one, for pages and for judges of one camera.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, cast

import torch
from torch import Tensor

from gymnast_core.errors import DataError, unknown_name
from gymnast_core.frames import Undecoded, check_cameras, held, made_when_looked_at
from gymnast_core.plain import plain_integer, plain_number

ONE_CAMERA = ("camera",)
"""What a single camera is called where nobody named it."""


def of_camera(frames_TVHWC: Tensor, cameras: Sequence[str], camera: str | None = None) -> Tensor:
    """The frames of one camera, (T, H, W, C); None means the main one. `DataError` for a name that is not there."""
    if camera is not None and camera not in cameras:
        raise DataError(unknown_name("camera", camera, cameras))
    return frames_TVHWC[:, 0 if camera is None else list(cameras).index(camera)]


def one_camera(frames_THWC: Tensor) -> Tensor:
    """Frames of a single camera as `frames_TVHWC`, V = 1."""
    return frames_THWC[:, None]


@dataclass(frozen=True)
class EnvironmentStart:
    """The simulator behind a task, and how it is reset so that it shows the task's last context frame."""

    id: str
    """Gymnasium id, e.g. "gymnast/Tabletop-v0"; with a module where that must be imported first ("pkg:Name-v0")."""
    seed: int
    """Of `environment.reset`."""
    options: Mapping[str, object] = field(default_factory=dict)
    """`options` of that `reset`."""
    args: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`."""
    view: Mapping[str, object] | None = None
    """How whoever made the task looks at it (the section `view` of a config): what counts as success, for how many
    steps an action is held, and more. None where nobody said."""
    instruction: str | None = None
    """What its success is about, where it cannot be told anything else. None: what `options["instruction"]` says."""


@dataclass(frozen=True)
class Episode:
    """A recorded episode: what world models, policies and rewards are fitted to."""

    id: str
    instruction: str
    frames_TVHWC: Tensor
    """uint8 RGB."""
    actions_TA: Tensor
    """float32, robot units, (T-1, A): action i leads from frame i to frame i+1."""
    cameras: tuple[str, ...] = ONE_CAMERA
    """V names, the main camera first."""
    proprio_TP: Tensor | None = None
    """float32 readings beside each frame, robot units; None where nobody recorded them."""
    fps: float | None = None
    """Frames (control steps) a second; None where nobody said."""
    success: bool | None = None
    """Whether the instruction was fulfilled at the end; None when unknown."""
    outcomes: Mapping[str, bool] = field(default_factory=dict)
    """What is known of other instructions at the end (hindsight): instruction -> fulfilled."""
    points_TJ2: Tensor | None = None
    """float32 coordinates in the main camera (x right, y down, both in [0, 1]) of J points of interest a frame, the
    object that the instruction names first; NaN where out of view. Auxiliary training targets; None where nobody knows
    them."""
    start: EnvironmentStart | None = None
    """The simulator that shows the first frame after its reset; None where there is none, or nobody knows it."""

    def __post_init__(self) -> None:
        check_cameras(self.id, self.frames_TVHWC, self.cameras)

    def view(self, camera: str | None = None) -> Tensor:
        """The frames of one camera (None: the main one), uint8 (T, H, W, C)."""
        return of_camera(self.frames_TVHWC, self.cameras, camera)


@dataclass(frozen=True)
class Task:
    """What to do and where to start: the first frame(s) and an instruction."""

    id: str
    """Unique within its dataset; paired comparisons join on it."""
    instruction: str
    """Natural language, e.g. "push the red block to the left"."""
    frames_TVHWC: Tensor
    """uint8 RGB, T >= 1 context frames, the last one being where the policy starts."""
    cameras: tuple[str, ...] = ONE_CAMERA
    """V names, the main camera first."""
    actions_TA: Tensor | None = None
    """float32 actions that led from one context frame to the next, (T-1, A); None when T = 1."""
    proprio_TP: Tensor | None = None
    """float32 readings beside each context frame; None where nobody knows them."""
    start: EnvironmentStart | None = None
    """The simulator that stands behind the task; None when there is none."""
    expert: Episode | None = None
    """A recorded episode that fulfils the task from its last context frame on, for rewards that compare with it."""
    partial_credit_criteria: str | None = None
    """What counts as half a success, for judges that give partial credit."""

    def __post_init__(self) -> None:
        check_cameras(self.id, self.frames_TVHWC, self.cameras)

    def view(self, camera: str | None = None) -> Tensor:
        """The context frames of one camera (None: the main one), uint8 (T, H, W, C)."""
        return of_camera(self.frames_TVHWC, self.cameras, camera)


@dataclass(frozen=True)
class Needs:
    """What a policy must be shown, and what it makes of that."""

    cameras: tuple[str, ...] | int = 1
    """The cameras' names in the policy's order, or their number where it does not name them."""
    history: int = 1
    """Frames at each decision: the current one and those before it."""
    proprio: int | None = None
    """Proprioceptive readings at each frame (P); None: none are used."""
    actions: int | None = None
    """Width of the actions that it decides (A); None: known once it is built, as `Policy.action_dim`."""

    @property
    def camera_count(self) -> int:
        return self.cameras if isinstance(self.cameras, int) else len(self.cameras)


@dataclass(frozen=True)
class Offers:
    """What a world shows after each action, or a dataset at the start, and what it takes."""

    cameras: tuple[str, ...] | int = 1
    """The cameras' names, or their number where they are called whatever the task calls them."""
    proprio: int | None = None
    """Proprioceptive readings at each frame (P); None: none are known."""
    actions: int | None = None
    """Width of the actions that it takes (A); None: any, or only `step` knows."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one decision, for B episodes: exactly what it `needs`, in its order."""

    images_BTVHWC: Tensor
    """uint8 RGB; T is the policy's history, oldest first. Before an episode's first frame, that frame is repeated."""
    instructions: tuple[str, ...]
    """B instructions."""
    cameras: tuple[str, ...] = ONE_CAMERA
    """V names."""
    proprio_BTP: Tensor | None = None
    """float32 readings in the robot's own units, if the policy needs them."""

    @property
    def latest_BVHWC(self) -> Tensor:
        """The current images."""
        return self.images_BTVHWC[:, -1]

    @property
    def latest_proprio_BP(self) -> Tensor | None:
        """The current readings."""
        return None if self.proprio_BTP is None else self.proprio_BTP[:, -1]

    def to(self, device: torch.device | str) -> Self:
        proprio = None if self.proprio_BTP is None else self.proprio_BTP.to(device)
        return replace(self, images_BTVHWC=self.images_BTVHWC.to(device), proprio_BTP=proprio)


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
class Evaluation:
    """How likely the current weights make a chunk, for B decisions; differentiable."""

    log_prob_BLD: Tensor
    """float32, natural log."""
    entropy_BLD: Tensor
    """float32, nats."""
    features_BF: Tensor | None = None
    """What the policy knows of the observation, for critics; None if it shows nothing."""


@made_when_looked_at("frames_BLVHWC")
@dataclass(frozen=True)
class Step:
    """What a world shows after a chunk of L actions in B episodes."""

    frames_BLVHWC: Tensor
    """uint8 RGB, one an action. Frames that the world has not made yet (`showing`) are made at the first look."""
    proprio_BLP: Tensor | None = None
    """float32 readings beside each frame, where the world knows them."""
    outcome_BL: Tensor | None = None
    """float32 success in [0, 1] after each action as the world knows it, NaN where unknown; None: never known."""
    errors: tuple[str | None, ...] | None = None
    """B texts, each saying why the world lost that episode (a simulator crashed), or None; None: it lost none. A lost
    episode goes on being stepped, shows anything, and is never judged."""
    ended_BL: Tensor | None = None
    """bool: whether the episode is over after that action (a simulator terminated or truncated it), so that those after
    it do nothing: what is shown stays, and nothing is learned from them. None: no episode ends before its horizon."""

    @property
    def undecoded(self) -> Undecoded | None:
        """The frames while there are no pictures of all of them; None afterwards, and in worlds that give pictures."""
        found = held(self, "frames_BLVHWC")
        return found if isinstance(found, Undecoded) else None

    @classmethod
    def showing(
        cls,
        frames: Tensor | Undecoded,
        proprio_BLP: Tensor | None = None,
        outcome_BL: Tensor | None = None,
        errors: tuple[str | None, ...] | None = None,
        ended_BL: Tensor | None = None,
    ) -> Self:
        """A step of pictures, or of frames of which pictures are made when somebody looks."""
        return cls(cast(Tensor, frames), proprio_BLP, outcome_BL, errors, ended_BL)


@made_when_looked_at("frames_TVHWC")
@dataclass(frozen=True)
class Rollout:
    """One episode of a policy in a world. Its tensors are its own: keeping it, or sending it, keeps nothing else."""

    task: Task
    group: int
    """Number of the group (the task draw) that this episode belongs to."""
    frames_TVHWC: Tensor
    """uint8 RGB, T = 1 + S: the start frame, then one frame an action. Frames that the world has not made yet are made
    at the first look, which `frame_count` and `frames_at` are not."""
    actions_NLA: Tensor
    """float32, robot units."""
    log_prob_NLD: Tensor
    """float32, at `temperature`, under the policy that acted."""
    temperature: float
    cameras: tuple[str, ...] = ONE_CAMERA
    """V names, as the world shows them."""
    tokens_NLD: Tensor | None = None
    """int64 token ids, for policies that decide in tokens."""
    proprio_TP: Tensor | None = None
    """float32 readings beside each frame."""
    outcome_S: Tensor | None = None
    """float32 success in [0, 1] after each action as the world itself knows it, NaN where unknown."""
    version: int = 0
    """Gradient steps that the policy which acted had behind it."""
    error: str | None = None
    """Why the world lost this episode; None while all was well. It is never judged: its reward is an error."""
    ended_after: int | None = None
    """Actions after which the world ended the episode or truncated it; later ones do and teach nothing. None: never."""

    @property
    def horizon(self) -> int:
        """Actions taken, S."""
        return self.actions_NLA.shape[0] * self.actions_NLA.shape[1]

    @property
    def outcome(self) -> float | None:
        """The latest success that the world knew of; None if it never knew, or lost the episode."""
        if self.outcome_S is None or self.error is not None:
            return None
        known = self.outcome_S[~self.outcome_S.isnan()].tolist()
        return known[-1] if known else None

    @property
    def frame_count(self) -> int:
        """T, without a look at the frames."""
        return len(held(self, "frames_TVHWC"))

    def frames_at(self, places: Sequence[int]) -> Tensor:
        """uint8 (n, V, H, W, C), the frames of these places from 0 (negative ones count from the end) and no others."""
        found = held(self, "frames_TVHWC")
        frames: Tensor = found[list(places)] if isinstance(found, Tensor) else found.at(places)
        return frames

    def view(self, camera: str | None = None, places: Sequence[int] | None = None) -> Tensor:
        """The frames of one camera (None: the main one), uint8 (T, H, W, C); of these places alone, if given."""
        frames_TVHWC = self.frames_TVHWC if places is None else self.frames_at(places)
        return of_camera(frames_TVHWC, self.cameras, camera)


@dataclass(frozen=True)
class Reward:
    """A judgement of one rollout. Either `value` or `error` is set: a failed judgement is never a zero."""

    value: float | None
    """Success in [0, 1] (see `gymnast_core.success`) of the kind "success", any finite number of the kind "score"."""
    step_values_S: Tensor | None = None
    """float32 reward of each action; None: the whole `value` belongs to the last action that counts."""
    partial: float | None = None
    """Partial credit in [0, 1], e.g. the success probability behind a thresholded value."""
    rationale: str = ""
    error: str | None = None
    cost_usd: float | None = 0.0
    """What the judgement cost, in USD; None: not known, e.g. since no price is."""
    finish_step: int | None = None
    """Number of actions until the first success, for judges that know; actions after it are not learned from."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What else the judge measured of this rollout, by name (letters, digits, underscores); a run logs the mean over
    the rollouts that have one, as `judge_NAME`."""
    votes: Sequence[float] = ()
    """What a judge that votes was told, vote by vote; an ensemble's are its members' values."""
    abstained: bool = False
    """Of an error: the judge was heard, and gave no verdict (a tie, a refusal); else it could not be heard in full."""
    success: float | None = None
    """Success in [0, 1] where `value` is graded: mixed with credit, or less a penalty. None: `value` says it."""
    end_potential: float = 0.0
    """Of shaped `step_values_S`: the last frame's potential, expected besides where the horizon is a cut."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.error is None):
            raise ValueError("A Reward has either a value or an error, never both or neither.")
        for name in ("value", "end_potential", "partial", "success", "cost_usd"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, plain_number(f"Reward.{name}", given))
        numbers = {name: plain_number(f"Reward.numbers[{name!r}]", x) for name, x in self.numbers.items()}
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "votes", tuple(plain_number("A vote of Reward.votes", vote) for vote in self.votes))
        if self.error is not None and not (isinstance(self.error, str) and self.error.strip()):
            raise ValueError(f"Reward.error is {self.error!r}; it must be text that says why there is no value.")
        if not isinstance(self.rationale, str):
            raise ValueError(f"Reward.rationale is {self.rationale!r}; it must be text.")
        if self.finish_step is not None:
            object.__setattr__(self, "finish_step", plain_integer("Reward.finish_step", self.finish_step))
        if self.abstained and self.error is None:
            raise ValueError("A Reward that abstained has an error, which says why.")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"Reward.value is {self.value}; it must be a finite number, or None with an error.")
        for name in ("partial", "success"):
            if (given := getattr(self, name)) is not None and not 0.0 <= given <= 1.0:
                raise ValueError(f"Reward.{name} is {given}; it must lie in [0, 1].")
        if self.finish_step is not None and self.finish_step < 1:
            raise ValueError(f"Reward.finish_step is {self.finish_step}; it counts actions, from 1.")
        steps_S = torch.zeros(0) if self.step_values_S is None else self.step_values_S
        if not (bool(torch.isfinite(steps_S).all()) and math.isfinite(self.end_potential)):
            raise ValueError("Reward.step_values_S, or its end_potential, holds infinite or NaN rewards.")
        if self.cost_usd is not None and not (math.isfinite(self.cost_usd) and self.cost_usd >= 0.0):
            raise ValueError(f"Reward.cost_usd is {self.cost_usd}; it must be a cost in USD, 0 or more, or None.")
        for name, number in self.numbers.items():
            if not re.fullmatch(r"\w+", name, re.ASCII):
                raise ValueError(f"Reward.numbers has the name {name!r}; use letters, digits and underscores.")
            if not math.isfinite(number):
                raise ValueError(f"Reward.numbers[{name!r}] is {number}; leave out what is not known.")


@dataclass(frozen=True)
class Metric:
    """A number to log, and how it combines with the same number of other parts, processes and steps."""

    value: float | Tensor
    """A scalar. A tensor may stay on its device until the step is logged."""
    weight: float | Tensor = 1.0
    """What a mean is weighted by. An extreme of weight 0 does not count; a sum has no weight."""
    combine: Literal["mean", "sum", "max", "min"] = "mean"


@dataclass(frozen=True)
class LossSum:
    """A loss as a sum and its weight. Whoever trains divides by the weight of everything that one gradient step learns
    from, over all its parts and processes: neither changes the step."""

    total: Tensor
    """Scalar, differentiable: the sum over what this part holds."""
    weight: float | Tensor
    """Scalar >= 0, not differentiable: how many trajectories, tokens, frames or pixels `total` adds up."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """By name: letters, digits and _ . / -, and none of the run's own (`gymnast_core.metric_names`)."""

    @property
    def mean(self) -> Tensor:
        """The loss of this part alone; 0 where nothing was weighed."""
        weight = torch.as_tensor(self.weight, device=self.total.device, dtype=self.total.dtype)
        return self.total / torch.where(weight > 0, weight, torch.ones_like(weight))
