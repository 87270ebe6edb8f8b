"""Edits of the instruction: other words for the same, words for something else, and no words that mean anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from gymnast_core.types import Task
from gymnast_probe.colours import HUES, visible_colours
from gymnast_probe.interfaces import Edit, Edited, NotApplicable, reworded

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "push": ("move", "shove", "slide"), "move": ("bring", "shift", "take"), "put": ("place", "set", "lay"),
    "place": ("put", "set", "lay"), "pick up": ("grab", "lift", "take"), "lift": ("pick up", "raise"),
    "open": ("pull open",), "close": ("shut",), "take": ("grab", "pick up"), "turn": ("rotate", "twist"),
    "block": ("cube", "brick"), "cube": ("block",), "cup": ("mug",), "bowl": ("dish",), "pot": ("saucepan",),
    "towel": ("cloth",), "to": ("towards",), "into": ("inside",), "on": ("on top of",),
}  # fmt: skip
FRAMES = ("please {}", "{}, please", "can you {}", "I would like you to {}", "your task: {}", "now {}")
OPPOSITES = {
    "left": "right", "top": "bottom", "up": "down", "front": "back", "open": "close", "inside": "outside",
    "upper": "lower", "forward": "backward",
}  # fmt: skip
_SYLLABLES = ("bla", "dor", "fim", "gur", "kel", "mup", "nix", "pro", "quo", "ras", "tul", "vex", "wob", "zan")


@dataclass(frozen=True)
class Paraphrase(Edit):
    """Says the same in other words; success is that of the original."""

    synonyms: int = 2
    """Words replaced by a synonym, at most."""
    frame: bool = True
    """Whether to wrap it, as in "please ..."."""

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        text = task.instruction
        known = [word for word in SYNONYMS if _find(word, text)]
        for word in rng.permutation(known)[: self.synonyms] if known else ():
            text = _put(word, str(rng.choice(SYNONYMS[word])), text)
        if self.frame:
            text = FRAMES[rng.integers(len(FRAMES))].format(text.rstrip("."))
        if text == task.instruction:
            raise NotApplicable("no word of the instruction has a known synonym")
        return Edited(reworded(task, text), task.instruction)


@dataclass(frozen=True)
class OtherColour(Edit):
    """Names another colour that the picture shows; success is that of the new instruction."""

    changes_goal: ClassVar[bool] = True

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        named = [colour for colour in HUES if _find(colour, task.instruction)]
        if not named:
            raise NotApplicable("the instruction names no colour")
        seen = [c for c in visible_colours(task.view()[-1].numpy()) if c not in named]
        if not seen:
            raise NotApplicable("the picture shows no other colour")
        return renamed(task, _put(named[0], str(rng.choice(seen)), task.instruction))


@dataclass(frozen=True)
class OtherObject(Edit):
    """Names another object of a list; success is that of the new instruction."""

    objects: list[str] = field(default_factory=list)
    """Names of what is on the tables of these tasks, as instructions call it, e.g. [red cup, spoon]."""

    changes_goal: ClassVar[bool] = True

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        # The longest name first: "red cup" before "cup".
        named = next((name for name in sorted(self.objects, key=len)[::-1] if _find(name, task.instruction)), None)
        others = [name for name in self.objects if name != named]
        if named is None or not others:
            raise NotApplicable("the instruction names none of `objects`, or there is no other")
        return renamed(task, _put(named, str(rng.choice(others)), task.instruction))


@dataclass(frozen=True)
class OtherGoal(Edit):
    """Asks for the opposite: left for right, open for close; success is that of the new instruction."""

    changes_goal: ClassVar[bool] = True

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        pairs = [*OPPOSITES.items(), *((b, a) for a, b in OPPOSITES.items())]
        known = [pair for pair in pairs if _find(pair[0], task.instruction)]
        if not known:
            raise NotApplicable("no word of the instruction has a known opposite")
        word, opposite = known[rng.integers(len(known))]
        return renamed(task, _put(word, opposite, task.instruction))


@dataclass(frozen=True)
class Nonsense(Edit):
    """Made-up words, as many as there were; success is that of the original: who does not fall ignores words."""

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        count = max(1, len(task.instruction.split()))
        words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 4))) for _ in range(count)]
        return Edited(reworded(task, " ".join(words)), task.instruction)


def renamed(task: Task, instruction: str, cost_usd: float | None = 0.0) -> Edited:
    """The task with another goal, for the environment behind it, too, where that is told the instruction; any other
    goes on to judge by the old one, which its start then names (`EnvironmentStart.instruction`)."""
    start = task.start
    if start is not None and start.instruction is None:
        if "instruction" in start.options:
            start = replace(start, options={**start.options, "instruction": instruction})
        else:
            start = replace(start, instruction=task.instruction)
    # What counted as half a success, and the episode that fulfilled the task, were about the old goal.
    new = replace(task, instruction=instruction, start=start, partial_credit_criteria=None, expert=None)
    return Edited(new, instruction, cost_usd)


def _find(words: str, text: str) -> re.Match[str] | None:
    return re.search(rf"\b{re.escape(words)}\b", text, flags=re.IGNORECASE)


def _put(words: str, other: str, text: str) -> str:
    found = _find(words, text)
    assert found is not None
    return text[: found.start()] + other + text[found.end() :]


INSTRUCTION_EDITS: Mapping[str, type[Edit]] = {
    "paraphrase": Paraphrase, "other-colour": OtherColour, "other-object": OtherObject, "other-goal": OtherGoal,
    "nonsense": Nonsense,
}  # fmt: skip
