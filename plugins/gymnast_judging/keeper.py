"""Which of its own rollouts a process keeps during a training."""

from __future__ import annotations

from collections.abc import Sequence

from gymnast_core.plugins.events import RewardsScored
from gymnast_core.types import Reward, Rollout
from gymnast_judging.options import Config
from gymnast_judging.stored import kind_of, store


class Keeper:
    """Keeps all rollouts that could not be judged, and of each iteration as many others as there is room for.

    What is kept is named after the first group of a draw, and no two processes hold one group: each writes its own.
    """

    def __init__(self, event: RewardsScored, options: Config) -> None:
        self._folder, self._part = event.folder, event.config.reward_model
        self._kind = kind_of(self._part, event.parts.reward_model)
        # Every process has the same share, so that none has to ask the others what is left.
        self._share = options.keep_bytes // event.parts.processes.count if options.keep_iterations else 0
        self._iteration, self._left = 0, 0

    def keep(self, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
        """Rollouts of a draw of an iteration (from 1)."""
        if iteration != self._iteration:
            self._iteration, self._left = iteration, self._share
        self._left -= store(
            self._folder, f"iteration-{iteration:06d}", rollouts, rewards, self._part, reward_kind=self._kind,
            scored_bytes=self._left,
        )  # fmt: skip
