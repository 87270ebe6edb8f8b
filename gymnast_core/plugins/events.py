"""What hooks are told: one frozen dataclass an event. Fields may be added; none is taken away within an API version."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gymnast_core.metric_names import fault_of_names
from gymnast_core.plain import plain_number

if TYPE_CHECKING:
    from gymnast_core.interfaces import Parts
    from gymnast_core.learning import Learned
    from gymnast_core.types import Reward, Rollout


def _no_parts() -> Parts:
    from gymnast_core.interfaces import Parts  # torch, which listing plugins can do without

    return Parts()


@dataclass(frozen=True)
class Registering:
    """Components made at run time can be added."""

    registries: Any
    """The `Registries` of this process. E.g. `event.registries.reward_models.register("judge-b", JudgeB)`."""


@dataclass(frozen=True)
class RunEvent:
    """What all events of a run say."""

    config: Any
    """The command's config (`RunConfig` of `gymnast train`), `output` set."""
    folder: Path
    """The run's folder."""
    step: int = 0
    """Steps of the run that are done: iterations of `gymnast train`, gradient steps of `gymnast fit`."""
    parts: Parts = field(default_factory=_no_parts)
    """The parts of the run, as far as the command has them."""

    def section(self, name: str, kind: type) -> Any:
        """What the config's `hooks.NAME` says, as an instance of the dataclass `kind`, defaults included."""
        from gymnast_core.config.typed import typed

        return typed(kind, getattr(self.config, "hooks", {}).get(name, {}), f"hooks.{name}")


@dataclass(frozen=True)
class CallbacksWanted(RunEvent):
    """A trainer is about to be built."""


@dataclass(frozen=True)
class RunStarted(RunEvent):
    """A run begins, or goes on after `step` of its `total` steps."""

    title: str = ""
    total: int = 0
    unit: str = "step"
    """What a step is called, e.g. "iteration"."""


@dataclass(frozen=True)
class StepDone(RunEvent):
    """Step `step` (from 1) is complete."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Its numbers by name; read-only, since other hooks and the run's record look at the same."""
    learned: Learned | None = None
    """What an iteration of `gymnast train` learned from in the leader, which of several processes is its share alone
    (`IterationLearned` is told in all of them). To be looked at and not kept, for it holds all frames. None where
    nothing was, and in other commands."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))


@dataclass(frozen=True)
class IterationLearned(RunEvent):
    """Iteration `step` (from 1) of `gymnast train` has learned."""

    learned: Learned | None = None
    """What it learned from in this process: judged groups and their advantages, to be looked at and not kept, for they
    hold all frames. None where nothing was."""


@dataclass(frozen=True)
class RolloutsImagined(RunEvent):
    """Rollouts were imagined in the iteration after `step`; their judgement is under way. Do not modify them."""

    rollouts: Sequence[Rollout] = ()
    """Those of this process."""


@dataclass(frozen=True)
class RewardsScored(RunEvent):
    """Rollouts of the iteration after `step` were judged. Do not modify them."""

    rollouts: Sequence[Rollout] = ()
    """Those of this process."""
    rewards: Sequence[Reward] = ()
    """`rewards[i]` judges `rollouts[i]`."""


@dataclass(frozen=True)
class EvaluationWanted(RunEvent):
    """The policy is to be measured after `step` iterations."""

    label: str = ""
    """"before", "after", or "iteration-000005". A resumed run asks for "before", too, with the iterations behind it as
    `step`: what was measured can be told then, and it is too late to measure it."""


@dataclass(frozen=True)
class EvaluationDone(RunEvent):
    """Rollouts of an evaluation were judged, maybe in batches."""

    label: str = ""
    """What was measured, e.g. as a file name: that of `EvaluationWanted`; of `gymnast evaluate` "POLICY-in-WORLD"."""
    world: str = ""
    """The world's label in the config of `gymnast evaluate`; in a training, the name of `evaluation.world`."""
    rollouts: Sequence[Rollout] = ()
    rewards: Sequence[Reward] = ()
    """`rewards[i]` judges `rollouts[i]`."""
    policy: str = ""
    """The policy's label in the config of `gymnast evaluate`; "" in a training, which has one."""


@dataclass(frozen=True)
class SteeringWanted(RunEvent):
    """The rollouts of the iteration after `step` are judged, and the policy is still the one that acted: what is
    learned from them, and what comes next, may be changed."""

    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The families of tasks that are drawn no more, by what tasks were grouped by."""


@dataclass(frozen=True)
class Steering:
    """What a hook wants of the rest of a run. What several hooks want adds up."""

    leave_out: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Families of tasks that are learned from and drawn no more, by "instruction" or by "family" (the task's id up to
    its last slash)."""
    stop: str | None = None
    """Why the run is to end with this iteration, without learning from it; None: it goes on."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers to log with this iteration's, of names that are not the run's own (`gymnast_core.metric_names`)."""

    def __post_init__(self) -> None:
        if self.stop is not None and not isinstance(self.stop, str):
            raise ValueError(f"Steering.stop is {self.stop!r}; it must say why the run is to end, or be None.")
        if not isinstance(self.leave_out, Mapping):
            raise ValueError(
                f"Steering.leave_out is {self.leave_out!r:.80}; it must be families of tasks by what groups them, e.g. "
                '{"instruction": ["open the drawer"]}.'
            )
        for by, names in self.leave_out.items():
            is_several = isinstance(names, Collection) and not isinstance(names, str | bytes | Mapping)
            if not is_several or not all(isinstance(name, str) for name in names):
                raise ValueError(
                    f"Steering.leave_out[{by!r}] is {names!r:.80}; it must be a list or a set of texts, "
                    'e.g. ["open the drawer"].'
                )
        if not isinstance(self.metrics, Mapping):
            raise ValueError(f"Steering.metrics is {self.metrics!r:.80}; it must be numbers by name.")
        if fault := fault_of_names(self.metrics):
            raise ValueError(f"Steering.metrics has {fault}.")
        numbers = {name: plain_number(f"Steering.metrics[{name!r}]", value) for name, value in self.metrics.items()}
        object.__setattr__(self, "metrics", numbers)

    @classmethod
    def joined(cls, answers: Sequence[Steering]) -> Steering:
        """What several hooks want, as one."""
        leave_out: dict[str, set[str]] = {}
        for answer in answers:
            for by, names in answer.leave_out.items():
                leave_out.setdefault(by, set()).update(names)
        reasons = [answer.stop for answer in answers if answer.stop is not None]
        metrics = {name: value for answer in answers for name, value in answer.metrics.items()}
        return cls(leave_out, " ".join(reasons) if reasons else None, metrics)


@dataclass(frozen=True)
class RunStopped(RunEvent):
    """The run's steps ended or failed; also on Ctrl-C and SIGTERM. Told once more of a run that fails after its steps,
    when its results are written."""

    error: BaseException | None = None
    """What ended them: `KeyboardInterrupt`, `Terminated` (SIGTERM), or what went wrong. None: they are done."""


@dataclass(frozen=True)
class RunDone(RunEvent):
    """The run is complete."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    """What the command prints: numbers and paths by name."""


@dataclass(frozen=True)
class PageWanted:
    """Somebody wants to see a folder whose page is missing or old (`gymnast view`)."""

    folder: Path
    """What a command has left; its config.yaml says in the first line which one ("kind: evaluate")."""
