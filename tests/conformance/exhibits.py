"""The museum: plugins made by `gymnast new`, each broken in one way, and the words by which the break is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Exhibit:
    """One broken plugin: replacements in the source of the template's example."""

    title: str
    reason: str
    """Regular expression that the check's message must match."""
    edits: tuple[tuple[str, str], ...]
    args: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def one(title: str, reason: str, old: str, new: str, **args: Any) -> Exhibit:
    return Exhibit(title, reason, ((old, new),), args)


INIT = "    def __init__(self, config: Config) -> None:\n"
"""What methods are put before."""


def with_method(title: str, reason: str, method: str) -> Exhibit:
    """The example with one more method, unindented, before its constructor."""
    lines = [f"    {line}\n" if line else "\n" for line in method.strip().splitlines()]
    return one(title, reason, INIT, "".join(lines) + "\n" + INIT)


FORGETFUL = """
def state_dict(self):
    return {"seen": self.__dict__.get("seen", 0)}

def load_state_dict(self, state):
    pass
"""
"""A state that is told and not taken over; `SEEN` makes it change."""
SEEN = "self.seen = self.__dict__.get('seen', 0) + 1\n        "
NOT_CONTINUED = "load_state_dict: expected a new one to continue from the state .*'seen': [1-9]"


def forgetful(before: str) -> Exhibit:
    lines = [f"    {line}\n" if line else "\n" for line in FORGETFUL.strip().splitlines()]
    edits = ((INIT, "".join(lines) + "\n" + INIT), (before, SEEN + before))
    return Exhibit("a state that does not continue", NOT_CONTINUED, edits)


LOOKALIKE = 'self.config = __import__("types").SimpleNamespace(**vars(config))'
"""What reads like a config and is none."""
