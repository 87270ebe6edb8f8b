"""What `gymnast judge` is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import AnyNumber, Count, Fraction, Range, ZeroOrMore
from gymnast_core.success import SUCCESS_ABOVE


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
    episodes: Count | None = None
    """Episodes used, from the first; None uses all."""
    threshold: AnyNumber = SUCCESS_ABOVE
    """Value above which a judgement counts as a success; half a success is none. Of a judge that gives scores, on its
    own scale."""
    bins: Annotated[int, Range(least=1, most=10_000)] = 10
    """Bins of the reliability diagram."""
    batch_size: Count = 64
    """Clips put to the judge at once; what a killed measurement asks again (a judge with a memory pays only once)."""
    rescore: Annotated[int, Range(least=0, most=1000)] = 1
    """How often clips that could not be judged are put to the judge again."""
    max_error_rate: Fraction = 0.5
    """Share of clips left unjudged above which the measurement stops, to be resumed."""
    videos: ZeroOrMore = 12
    """Clips filmed of each of the four cases, and of those that could not be judged."""
    output: str | None = None
    """Folder of the results; None makes runs/judge-<date>-<time>."""
