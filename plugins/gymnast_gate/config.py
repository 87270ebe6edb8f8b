"""What `gymnast gate` is told: a training's config, and what is measured and wanted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from gymnast_core.config.ranges import Count, Fraction, NotNegative, Positive, Range, ZeroOrMore
from gymnast_core.config.schema import ComponentConfig, RunConfig
from gymnast_core.errors import ConfigError

Level = Annotated[int, Range(least=0, below=255)]


@dataclass(frozen=True)
class GateOptions:
    """The section gate: how much is measured, and what is wanted. Shares are in [0, 1]: 0.03 is 3 points."""

    rollouts: Count = 400
    """Tasks that everything is measured on, one rollout of each kind a task."""
    judged: Count = 30
    """Judged successes wanted of each group of tasks for the judge's gate: imagined rollouts are added to groups that
    have fewer."""
    enough: Count = 400
    """Rollouts at which an estimate decides where its interval does not."""
    enough_judged: Count = 30
    """Judged successes of a group of tasks at which an estimate decides likewise."""
    most_rollouts: Count = 2000
    """Imagined rollouts at most, those that are added included."""
    least: Count = 10
    """Cases below which nothing is said: "not measured"."""
    batch_size: Count = 64
    """Rollouts at once; what a killed measurement repeats when it is resumed."""
    success_least: Fraction = 0.1
    """Sampled success in the environment below which the policy seldom shows what to learn from."""
    success_most: Fraction = 0.9
    """Above it, little is left to learn."""
    changed_levels: Level = 16
    """A pixel has changed if one of its channels differs by more than so many levels of 255."""
    early_frame: Count = 1
    """First frame, counted in actions, at which imagined frames are held against real ones."""
    late_frame: Count = 10
    """Second one; the last frame of shorter rollouts."""
    unchanged_early: Positive = 30.0
    """PSNR, dB, wanted at the early frame of pixels that look as in the start frame."""
    unchanged_late: Positive = 25.0
    """The same at the late frame."""
    changed_gain: NotNegative = 5.0
    """By how many dB imagined pixels that changed must be better than those of the start frame, at both frames."""
    actions_gain: Positive = 1.0
    """By how many dB imagined pixels that changed must be better than those imagined under the actions of another
    episode, at the late frame; less would mean that actions are ignored."""
    action_lag: Fraction = 0.05
    """By how much the true success of actions taken in imagination may be below the policy's in the environment. The
    tabletop's world model, in which training is known to help, is 3 points below."""
    episodes: ComponentConfig | None = None
    """Recorded episodes for the gate of frames, where no environment stands behind the tasks."""
    examples: ZeroOrMore = 6
    """Film strips of each kind on the page."""


@dataclass(frozen=True)
class GateConfig(RunConfig):
    """`gymnast gate`: is a training in imagination likely to help? Every config of `gymnast train` will do.

    The environment is `evaluation.world`, judged by `evaluation.reward_model`.
    """

    kind: ClassVar[str] = "gate"
    takes: ClassVar[tuple[str, ...]] = ("train",)
    """Commands whose configs this one takes, too."""
    gate: GateOptions = field(default_factory=GateOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate.success_least >= self.gate.success_most:
            raise ConfigError(
                f"gate.success_least={self.gate.success_least:g} is not below gate.success_most="
                f"{self.gate.success_most:g}: no policy could pass."
            )
        if self.gate.early_frame > self.gate.late_frame:
            raise ConfigError(
                f"gate.early_frame={self.gate.early_frame} comes after gate.late_frame={self.gate.late_frame}."
            )
