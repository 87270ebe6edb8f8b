"""Clips whose outcome is known, made from seeds: what a judge is measured on, with no recording and at no cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch

from gymnast_core.config.ranges import Choices, Count, Fraction, Range, Seed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Episode, one_camera
from gymnast_episodes.crops import Lazy
from gymnast_tabletop.datasets import _table
from gymnast_tabletop.experts import BEHAVIOURS
from gymnast_tabletop.scene import FPS
from gymnast_tabletop.splits import SPLITS

_ATTEMPTS_A_CLIP = 200
"""Attempts after which a share of successes or failures counts as out of reach."""


class TabletopClips(Dataset):
    """Episodes of scripted behaviours, successes and failures in a chosen share, labelled by the simulator's state.

    Attempt i is a function of its seed alone and takes the behaviours in turn; kept are the first attempts of either
    outcome. Failures are therefore near misses of the experts as well as play that does something else.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: Count = 200
        """Clips."""
        success_share: Fraction = 0.5
        """Share of the clips that are successes."""
        behaviours: list[str] = field(default_factory=lambda: ["demonstrations", "slow-demonstrations", "play"])
        """Who acts, in turn: names of `experts.BEHAVIOURS`."""
        split: Annotated[str, Choices(*SPLITS)] = "reporting"
        """Range of seeds: training, choosing or reporting."""
        seed: Seed = 0
        """Which stream of the split's seeds: clips with different values share no scene."""
        image_size: Count = 64
        """Pixels a side."""
        n_blocks: Annotated[int, Range(least=2, most=3)] = 2
        """Blocks on the table, 2 or 3."""
        actions: Count = 16
        """Control steps a clip; it has one frame more."""

    def __init__(self, config: TabletopClips.Config) -> None:
        from gymnast_tabletop.record import Recording

        if not config.behaviours:
            raise ConfigError(f"behaviours is empty; name one or more of {', '.join(BEHAVIOURS)}.")
        self.config = config
        self._recordings = tuple(
            Recording(
                behaviour=name, episodes=config.count, actions=config.actions, split=config.split,
                image_size=config.image_size, n_blocks=config.n_blocks, seed=config.seed, keep_failures=True,
            )
            for name in config.behaviours
        )  # fmt: skip

    def episodes(self) -> Sequence[Episode]:
        clips: list[Episode] = []

        def clip(index: int) -> Episode:
            if not clips:
                clips.extend(self._make())
            return clips[index]

        return Lazy(self.config.count, clip)

    def _make(self) -> list[Episode]:
        from gymnast_tabletop.record import attempt

        config = self.config
        successes = round(config.count * config.success_share)
        missing = {True: successes, False: config.count - successes}
        table = _table(config.n_blocks, config.image_size)
        clips: list[Episode] = []
        for index in range(_ATTEMPTS_A_CLIP * config.count):
            if not any(missing.values()):
                return clips
            made = attempt(self._recordings[index % len(self._recordings)], index, table)
            if not missing[made.success]:
                continue
            missing[made.success] -= 1
            clips.append(
                Episode(
                    id=f"tabletop-clips/{config.n_blocks}/{made.seed}",
                    instruction=made.instruction,
                    frames_TVHWC=one_camera(torch.from_numpy(made.frames_THWC)),
                    actions_TA=torch.from_numpy(made.actions_TA),
                    fps=FPS,
                    success=made.success,
                    outcomes={made.instruction: made.success},
                )
            )
        if not any(missing.values()):
            return clips
        raise DataError(
            f"{missing[True]} successes and {missing[False]} failures are missing after {index + 1} attempts of "
            f"{', '.join(config.behaviours)}. Name other behaviours, or another success_share."
        )
