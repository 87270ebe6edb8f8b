"""What stands beside the first number of every page: judge, world, policy, algorithm, number of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from gymnast_pages.measure import judge_name

NOTHING_TRAINED = "none (nothing is trained here)"


@dataclass(frozen=True)
class Facts:
    """Names of plugins, or labels where a config gives some."""

    judge: str = ""
    world: str = ""
    policy: str = ""
    algorithm: str = ""
    n: str = ""
    """How many trials, in words: "400 trials"."""
    practised: str = ""
    """Where the policy learned and who judged there, if that is another place than the numbers are from."""

    @property
    def items(self) -> list[tuple[str, str]]:
        """What is shown, in order."""
        named = [("judge", self.judge), ("world", self.world), ("policy", self.policy), ("algorithm", self.algorithm)]
        shown = [(name, value or "unknown") for name, value in named] + [("n", self.n or "nothing measured")]
        return shown + ([("learned in", self.practised)] if self.practised else [])

    def but(self, **changes: str) -> Facts:
        """The same with other values where these are not empty."""
        return replace(self, **{name: value for name, value in changes.items() if value})


def facts_of(config: str, *, evaluated: bool = True) -> Facts:
    """What a folder's config.yaml says, whichever command wrote it; what it does not say is empty.

    `evaluated`: the numbers are those of the config's section `evaluation`, if it has one with tasks.
    """
    try:
        found = yaml.safe_load(config)
    except yaml.YAMLError:
        found = None
    values: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    measured = values.get("evaluation")
    learned = values.get("optimizer")
    judge, world = part(values, "reward_model", "rewards"), part(values, "world_model", "worlds")
    facts = Facts(judge, world, part(values, "policy", "policies"), part(values, "optimizer"))
    if learned is None and values.get("kind") not in (None, "train", "fit"):
        facts = facts.but(algorithm=NOTHING_TRAINED)
    # Without tasks of its own, an evaluation never runs.
    if evaluated and isinstance(measured, Mapping) and measured.get("tasks") is not None:
        place = facts.but(judge=part(measured, "reward_model"), world=part(measured, "world"))
        facts = replace(place, practised=f"{world}, judged by {judge}") if place != facts else facts
    return facts


def part(config: Mapping[str, Any], single: str, several: str = "") -> str:
    """The name of a component of a config, and the labels of those that it has by label."""
    found = config.get(single)
    name_of = judge_name if single == "reward_model" else _name
    names = [name_of(found)]
    labelled = config.get(several)
    for label, component in labelled.items() if isinstance(labelled, Mapping) else ():
        name = name_of(component) or None
        names.append(str(label) if name in (None, label) else f"{label} ({name})")
    return listed(names)


def _name(component: Any) -> str:
    return str((component.get("name") if isinstance(component, Mapping) else component) or "")


def listed(names: Sequence[str], most: int = 6) -> str:
    """ "a, b and 3 more"."""
    known = list(dict.fromkeys(name for name in names if name))
    rest = len(known) - most
    return ", ".join(known[:most]) + (f" and {rest} more" if rest > 0 else "")
