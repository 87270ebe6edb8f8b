"""What `gymnast judge` is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class JudgeConfig:
    """`gymnast judge`: how good a reward model is, on clips whose outcome is known."""

    kind: ClassVar[str] = "judge"
    reward_model: ComponentConfig
    """The judge."""
    clips: ComponentConfig
    """Dataset of recorded episodes with `success`; those without are left out."""
    camera: str | None = None
    """The only camera of the clips that the judge is shown, and that is filmed. None shows it all of them, and films
    the main one."""
    episodes: int | None = None
    """Episodes used, from the first; None uses all."""
    threshold: float = 0.5
    """Value above which a judgement counts as a success; half a success is none. Of a judge that gives scores, on its
    own scale."""
    bins: int = 10
    """Bins of the reliability diagram."""
    batch_size: int = 64
    """Clips put to the judge at once; what a killed measurement asks again (a judge with a memory pays only once)."""
    rescore: int = 1
    """How often clips that could not be judged are put to the judge again."""
    max_error_rate: float = 0.5
    """Share of clips left unjudged above which the measurement stops, to be resumed."""
    videos: int = 12
    """Clips filmed of each of the four cases, and of those that could not be judged."""
    output: str | None = None
    """Folder of the results; None makes runs/judge-<date>-<time>."""

    def __post_init__(self) -> None:
        counts = {"episodes": 1, "bins": 1, "batch_size": 1, "rescore": 0, "videos": 0}
        for name, least in counts.items():
            number = getattr(self, name)
            if number is not None and number < least:
                raise ConfigError(f"{name} is {number}; it must be at least {least}.")
        if not math.isfinite(self.threshold):
            raise ConfigError(f"threshold is {self.threshold}; it must be a finite number.")
        if not 0.0 <= self.max_error_rate <= 1.0:
            raise ConfigError(f"max_error_rate is {self.max_error_rate}; it must lie in [0, 1].")
