"""What the libraries of trackers are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Film:
    """A video of a rollout."""

    file: Path
    """An mp4."""
    caption: str


@dataclass(frozen=True)
class Point:
    """Everything that is known of one step."""

    step: int
    numbers: Mapping[str, float]
    films: Sequence[Film] = ()


@dataclass(frozen=True)
class Opening:
    """What a tracker is told of a run when it begins or goes on."""

    folder: Path
    """The run's folder; its name is the run's."""
    kind: str
    """The command: "train", "fit", "evaluate"."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved config, nested, without secrets."""
    run: str | None = None
    """What the tracker calls the run that goes on; None: a new one."""


class Sink(Protocol):
    """One run in a tracker. Every method may raise whatever its library raises."""

    run: str
    """What the tracker calls the run; it goes on under that name."""
    rewrites: bool
    """Whether a process that resumes the run writes its whole past again, in place of what earlier ones wrote."""

    def has(self, step: int) -> bool:
        """Whether the tracker holds all of a step already."""

    def send(self, point: Point) -> None:
        """Add a step; steps come in order."""

    def summarise(self, numbers: Mapping[str, float]) -> None:
        """Numbers of the whole run."""

    def attach(self, page: Path) -> None:
        """Keep a file with the run."""

    def finish(self, complete: bool) -> None:
        """Everything is sent; the run is complete, or may go on some day."""
