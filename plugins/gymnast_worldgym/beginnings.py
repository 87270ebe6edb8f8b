"""Whether a training sees clips from the midst of episodes, or their beginnings alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger(__name__)

LEAST = 64
"""Clips that are looked at before it is said."""


class Beginnings:
    """Says once that every clip begins where its episode does, as where episodes are crops of the window's length.

    `size` is the frames of a clip. The first frame of an episode has no action that led to it, and no frame before it:
    a model that sees no other clips learns that a window always begins with a robot that did not move.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._clips = 0
        self._known = False

    def look(self, lengths: Sequence[int]) -> None:
        """The frames of a batch's episodes, one number each."""
        if self._known:
            return
        self._clips += len(lengths)
        if any(length > self._size for length in lengths):
            self._known = True
        elif self._clips >= LEAST:
            self._known = True
            log.warning(
                "None of the first %d episodes of this training is longer than a clip of the world model (%d frames): "
                "each clip begins where its episode does, without an action that led there. If they are crops of "
                "longer ones, leave window out of episodes.args, or set it to much more than %d.",
                self._clips, self._size, self._size,
            )  # fmt: skip
