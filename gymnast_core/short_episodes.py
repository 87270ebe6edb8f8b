"""Recorded episodes that are too short to learn from: left out when a command starts, counted and said."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import overload

from gymnast_core.errors import DataError
from gymnast_core.interfaces import Trainable
from gymnast_core.types import Episode

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class Chosen(Sequence[Episode]):
    """Some items of a lazy sequence, in order."""

    def __init__(self, episodes: Sequence[Episode], indices: Sequence[int]) -> None:
        self._episodes, self._indices = episodes, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(index, slice):
            return Chosen(self._episodes, self._indices[index])
        return self._episodes[self._indices[index]]


def long_enough(
    episodes: Sequence[Episode], learner: Trainable, name: str, *, refuse: bool = False
) -> Sequence[Episode]:
    """The episodes with at least `learner.least_actions` recorded actions; how many are left out is logged.

    A sequence with an attribute `frames` (the number of frames of every item, or a list of one number each) is not
    read; others are read once from end to end, unless a single action is enough.

    Args:
        episodes: what to choose from.
        learner: what is to be trained on them.
        name: what the episodes are called in messages, e.g. "episodes" or "demonstrations".
        refuse: whether a short episode is an error instead.

    Raises:
        DataError: none is long enough, or with `refuse` some are not; the first is named. And what reading raises.
    """
    least = learner.least_actions
    frames = getattr(episodes, "frames", None)
    if isinstance(frames, int):
        frames = [frames] * len(episodes) if frames <= least else ()
    known = frames is not None or isinstance(episodes, list | tuple)
    if least <= 0 or (least == 1 and not known):
        return episodes
    actions = _read(episodes, name) if frames is None else [count - 1 for count in frames]
    kept = [index for index, count in enumerate(actions) if count >= least]
    if len(kept) == len(actions):
        return episodes
    short, learns = len(actions) - len(kept), f"the {least} actions that {type(learner).__name__} learns from at once"
    if refuse or not kept:
        first = next(index for index, count in enumerate(actions) if count < least)
        raise DataError(
            f"{name}: {short} of {len(actions)} episodes have fewer than {learns}, first {episodes[first].id!r} with "
            f"{actions[first]}; the longest has {max(actions)}. Lower what needs so many (chunk_length, window), or "
            "set short_episodes=pad where there is that option."
        )
    log.warning("%s: %d of %d episodes are left out: they have fewer than %s.", name, short, len(actions), learns)
    return Chosen(episodes, kept)


def _read(episodes: Sequence[Episode], name: str) -> list[int]:
    """Recorded actions of each episode."""
    counts, told = [], time.monotonic()
    for index in range(len(episodes)):
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.warning("%s: the dataset does not tell lengths: %d of %d episodes read.", name, index, len(episodes))
        counts.append(len(episodes[index].actions_TA))
    return counts
