"""The section hooks.wandb."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gymnast_core.config.ranges import Choices, ZeroOrMore
from gymnast_trackers.installed import require


@dataclass(frozen=True)
class Config:
    """Weights & Biases, `pip install 'gymnast[wandb]'`: `hooks.wandb.project=robots`.

    The key is wandb's own business (`wandb login`, or WANDB_API_KEY); it is never asked for here.
    """

    project: str = "gymnast"
    """Where the run goes."""
    entity: str | None = None
    """User or team; None: the one that the key belongs to."""
    mode: Annotated[str, Choices("online", "offline")] = "online"
    """"offline" writes RUN/wandb, for `wandb sync`."""
    name: str | None = None
    """What the run is called; None: as its folder."""
    tags: list[str] = field(default_factory=list)
    """Words to find it by."""
    videos: ZeroOrMore = 8
    """Videos sent of a run, at most: of rollouts before it, after it and in between."""
    live: bool = False
    """Send a step when it is made, rather than once a snapshot stands behind it. A run that is killed and resumed makes
    the last steps again; of those the tracker keeps the first numbers. Offline it makes no difference."""

    def __post_init__(self) -> None:
        require("wandb", "wandb", "wandb")
