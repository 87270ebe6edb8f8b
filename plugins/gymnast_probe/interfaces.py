"""What a probe can be made with: edits of a task, and providers that generate pictures or instructions.

Providers are found through the entry-point groups `gymnast.image_editors` and `gymnast.instruction_editors`.
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gymnast_core.config.typed import typed
from gymnast_core.errors import GymnastError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.types import Task


class NotApplicable(Exception):
    """An edit that makes no sense for this task; the trial is left out, and counted as such."""


class EditorFailed(GymnastError):
    """A provider gave no picture or instruction that can be used; the trial is unscored, and says why."""

    def __init__(self, message: str, *, cost_usd: float | None = 0.0) -> None:
        super().__init__(message)
        self.cost_usd = cost_usd
        """What was paid all the same; None: not known."""


class EditorSpent(GymnastError):
    """A provider may spend no more. The probe stops, and goes on from there with more."""


class ProbeFailing(GymnastError):
    """Too many trials could not be edited or judged; the probe stops and can be resumed."""


@dataclass(frozen=True)
class Edited:
    """A probe's task."""

    task: Task
    """What the policy is given."""
    judged: str
    """The instruction that success is judged by."""
    cost_usd: float | None = 0.0

    def as_judged(self) -> Task:
        """The task in the words that success is judged by."""
        if self.judged == self.task.instruction:
            return self.task
        return reworded(self.task, self.judged)


def reworded(task: Task, words: str) -> Task:
    """The same task in other words: the environment behind it, if there is one, judges what they mean."""
    start = None if task.start is None else dataclasses.replace(task.start, instruction=words)
    return dataclasses.replace(task, instruction=words, start=start)


class Edit(ABC):
    """A frozen dataclass of settings that makes a probe of a task."""

    is_generated: ClassVar[bool] = False
    """Whether a provider makes it; what it made is kept, since it may make something else the next time."""
    changes_goal: ClassVar[bool] = False
    """Whether success is no longer what the task's own instruction asks for."""

    def prepare(self) -> None:  # noqa: B027 (most need nothing)
        """Called before anything is rolled out: refuse (`GymnastError`) what cannot work, e.g. for want of a key."""

    @abstractmethod
    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        """The edited task; everything random comes from `rng`. Raises `NotApplicable`, or what a provider raises."""

    def close(self) -> None:  # noqa: B027 (not everyone holds something)
        """Release connections and models."""


@dataclass(frozen=True)
class Generated:
    """What a provider made, and what that cost."""

    images_HWC: NDArray[np.uint8] | None = None
    instructions: tuple[str, ...] = ()
    cost_usd: float | None = 0.0


class ImageEditor(ABC):
    """Changes a picture as a sentence says; built as `Editor(config)` with `Editor.Config` a frozen dataclass."""

    Config: ClassVar[type]

    @abstractmethod
    def edit(self, image_HWC: NDArray[np.uint8], prompt: str, *, seed: int) -> Generated:
        """The edited picture, uint8 RGB of the same height and width. Raises `EditorFailed`, which
        says what was paid, if there is none."""

    def close(self) -> None:  # noqa: B027 (not everyone holds something)
        """Release connections and models."""


class InstructionEditor(ABC):
    """Proposes instructions that make sense in a picture; built as `Editor(config)` as above."""

    Config: ClassVar[type]

    @abstractmethod
    def propose(self, image_HWC: NDArray[np.uint8], instruction: str, *, seed: int) -> Generated:
        """At least one instruction other than `instruction`. Raises `EditorFailed`, which says what was paid, if there
        is none."""

    def close(self) -> None:  # noqa: B027 (not everyone holds something)
        """Release connections and models."""


def build_editor(group: str, name: str, args: Mapping[str, Any], key: str) -> Any:
    """A provider of the group "image_editors" or "instruction_editors" from its name and arguments.

    Raises `PluginError` if it is unknown, ambiguous or broken, `ConfigError` for arguments that do not fit.
    """
    interface: Any = {"image_editors": ImageEditor, "instruction_editors": InstructionEditor}[group]
    kind = group.removesuffix("s").replace("_", " ")
    known = discovery.sources(f"gymnast.{group}")
    if name not in known:
        raise PluginError(f"{key}: {unknown_name(kind, name, known)}")
    if len(known[name]) > 1:
        places = " and ".join(map(str, known[name]))
        raise PluginError(f"Two plugins are called {kind} {name!r}: {places}. Uninstall or rename one.")
    try:
        cls: Any = discovery.load(known[name][0])
    except Exception as error:  # importing foreign code can raise anything
        raise PluginError(
            f"The {kind} {name!r} of {known[name][0]} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    fits: bool = inspect.isclass(cls) and issubclass(cls, interface)
    if not (fits and dataclasses.is_dataclass(getattr(cls, "Config", None))):
        raise PluginError(f"The {kind} {name!r} is not a {interface.__name__} with a Config dataclass.")
    return cls(typed(cls.Config, args, f"{key}.args"))
