"""What a reward model's numbers are called and how they read: success in per cent, or a mean reward as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gymnast_pages import wording

COIN_FLIPS = ("random",)
"""Judges that look at nothing: what they say is no success."""
_AROUND = ("judge", "judges", "reward_model")
"""Arguments in which a judge names those that it is built around."""


def judge_name(part: Any) -> str:
    """What pages call a judge, from its name and args in a config: "claude"; "twice(random)" of one that is built
    around another; "" where no name stands there."""
    name = part if isinstance(part, str) else _entry(part, "name")
    args = _entry(part, "args")
    found = [args.get(key) for key in _AROUND] if isinstance(args, Mapping) else []
    inner = [judge_name(one) for value in found for one in (value if isinstance(value, list | tuple) else [value])]
    asked = ", ".join(filter(None, inner))
    return f"{name or ''}({asked})" if asked else str(name or "")


def _entry(part: Any, key: str) -> Any:
    return part.get(key) if isinstance(part, Mapping) else getattr(part, key, None)


@dataclass(frozen=True)
class Measure:
    """Of one reward model. Only that of the kind "success" is ever called success, unless it flips coins."""

    kind: str = "success"
    """The reward model's kind: "success" or "score"."""
    judge: str = ""
    """Its name, as `judge_name` tells it."""

    @property
    def is_success(self) -> bool:
        return self.kind == "success" and not self.is_chance

    @property
    def is_chance(self) -> bool:
        """Whether all that is said rests on coin flips, however they are wrapped: "random", "twice(random)"."""
        names = re.findall(r"[^(), ]+(?![^(), ]*\()", self.judge)
        return bool(names) and all(name in COIN_FLIPS for name in names)

    @property
    def name(self) -> str:
        """ "success", "mean reward by JUDGE", or "mean coin flip by JUDGE"."""
        if self.is_chance:
            return f"mean coin flip by {self.judge}"
        return "success" if self.is_success else f"mean reward by {self.judge or 'the judge'}"

    @property
    def title(self) -> str:
        """The name as it begins a line."""
        return self.name[0].upper() + self.name[1:]

    def value(self, mean: float | None) -> str:
        """0.325 -> "32.5 %", or "0.325"; None -> "unscored"."""
        return wording.percent(mean) if self.is_success or mean is None else wording.number(mean)

    def interval(self, bounds: Sequence[float] | None) -> str:
        """(0.1, 0.25) -> "10.0 % to 25.0 %", or "0.1 to 0.25"."""
        if self.is_success or bounds is None:
            return wording.interval(bounds)
        return f"{wording.number(bounds[0])} to {wording.number(bounds[1])}"

    def change(self, difference: float, unit: str = " points") -> str:
        """0.12 -> "+12.0 points", or "+0.12"."""
        return wording.points(difference, unit) if self.is_success else wording.number(difference, sign="+")

    def changes(self, bounds: Sequence[float] | None) -> str:
        """(-0.1, 0.3) -> "−10.0 to +30.0 points", or "−0.1 to +0.3"; None -> "unknown"."""
        return "unknown" if bounds is None else f"{self.change(bounds[0], unit='')} to {self.change(bounds[1])}"

    def verdict(self, value: float | None) -> str:
        """One judgement in words: "success", "failure", "partial 32.5 %", "unscored", or "reward 1.25"."""
        return wording.verdict(value) if self.is_success or value is None else f"reward {wording.number(value)}"


SUCCESS = Measure()
"""Success by whichever judge."""
