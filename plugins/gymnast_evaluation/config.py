"""What `gymnast evaluate` is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class EvaluateConfig:
    """`gymnast evaluate`: the value of policies in worlds, on the same tasks and seeds."""

    kind: ClassVar[str] = "evaluate"
    policies: dict[str, ComponentConfig]
    """Label -> policy."""
    worlds: dict[str, ComponentConfig]
    """Label -> world model."""
    tasks: ComponentConfig
    rewards: dict[str, ComponentConfig] = field(default_factory=dict)
    """Label of a world -> the reward model that judges there."""
    horizon: int = 40
    """Actions an episode."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy."""
    episodes: int | None = None
    """Tasks used, from the first; None uses all."""
    batch_size: int = 64
    """Episodes rolled out at once."""
    seed: int = 0
    output: str | None = None
    """Folder of the results; None makes runs/<preset>-<timestamp>."""

    def __post_init__(self) -> None:
        for name, number in (("horizon", self.horizon), ("episodes", self.episodes), ("batch_size", self.batch_size)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} is {number}; it must be at least 1.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}; it must not be negative.")
        for label in (*self.policies, *self.worlds):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label):
                raise ConfigError(f"The label {label!r} names files; use letters, digits, '_', '-' and '.'.")
        if not self.policies or not self.worlds:
            raise ConfigError(
                "policies and worlds need an entry each: policies.LABEL=openvla-oft worlds.LABEL=gymnasium."
            )
        if set(self.rewards) != set(self.worlds):
            unjudged = sorted(set(self.worlds) - set(self.rewards))
            raise ConfigError(
                f"rewards needs a judge for each world {sorted(self.worlds)} and for no other; it has "
                f"{sorted(self.rewards)}. "
                + (f"Set rewards.{unjudged[0]}=NAME." if unjudged else "Name the worlds and rewards alike.")
            )
