"""What a source knows of all its episodes beyond what an `Episode` holds, so that a conversion can keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recording:
    """The robot and the names of what was recorded."""

    robot: str | None = None
    """Kind of robot, as the source names it."""
    action_names: Any = None
    """What the columns of the actions are called, as LeRobot stores it (a list, or lists by group); None: unknown."""
    proprio_names: Any = None
    """The same of the readings."""
    left_out: tuple[str, ...] = ()
    """What the source holds and does not give, by its own names: other cameras and columns."""


def recording_of(episodes: object) -> Recording:
    """What the source of these episodes says; nothing where it says nothing."""
    found = getattr(episodes, "recording", None)
    return found if isinstance(found, Recording) else Recording()
