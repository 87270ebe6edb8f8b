"""Which frames of which episodes become items of a dataset: parts, crops, and what to do with bad episodes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.types import Episode
from gymnast_episodes.images import resize

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The options that all readers of episodes share."""

    window: int | None = None
    """Frames a crop; null for whole episodes. Shorter episodes are left out."""
    crops: str = "all"
    """Which crops of an episode: all, one (at an offset drawn by the seed) or first."""
    part: str = "all"
    """train, validation or all; whole episodes fall into one of the two."""
    validation_fraction: float = 0.05
    """Fraction of the episodes that are validation."""
    seed: int = 0
    """Of the partition and the offsets."""
    image_size: list[int] | None = None
    """Resize frames to this height and width, pixels; null keeps their own."""
    skip_bad: bool = False
    """Decode every video once at the start and leave out the episodes that cannot be read, with a warning each;
    false: a bad episode is an error when it is read."""

    def __post_init__(self) -> None:
        choices = {"crops": ("all", "one", "first"), "part": ("train", "validation", "all")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}: {unknown_name('choice', getattr(self, name), known)}")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigError(f"validation_fraction is {self.validation_fraction}; it must lie in [0, 1).")
        if self.window is not None and self.window < 2:
            raise ConfigError(f"window is {self.window}; a crop has at least 2 frames.")
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ConfigError(f"image_size is {list(self.image_size)}; give height and width, e.g. [64, 64].")


class Source(Protocol):
    """Episodes of one dataset on disk, by number. Picklable: holds no open file."""

    name: str

    def __len__(self) -> int: ...

    def label(self, episode: int) -> str:
        """Name of an episode, unique in the source."""

    def frames(self, episode: int) -> int:
        """T, as the metadata has it; `DataError` if the episode's metadata cannot be used."""

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        """Frames `start` to `stop` (excluded) and the actions between them."""


class Lazy(Sequence[Item], Generic[Item]):
    """A sequence whose items are made when they are indexed."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"No item {index}; there are {self._length}.")
        return self._make(index % self._length)


def select(source: Source, selection: Selection) -> Sequence[Episode]:
    """The episodes, or crops of them, that `selection` asks for; frames are decoded when an item is indexed.

    Raises `DataError` if none is left.
    """
    rng = np.random.default_rng(selection.seed)
    chosen = partition(len(source), selection.part, selection.validation_fraction, rng)
    # Drawn for every episode, so that a bad or short one does not change the crops of the others.
    position = rng.random(len(source))
    known = _frames(source, chosen.tolist(), selection.skip_bad)
    long_enough = {i: frames for i, frames in known.items() if frames >= (selection.window or 2)}
    if not long_enough:
        raise DataError(
            f"{source.name}: no episode to read. Part {selection.part!r} has {len(chosen)} of {len(source)} episodes, "
            f"{len(known)} can be read, the longest has {max(known.values(), default=0)} frames "
            f"(window: {selection.window}). Choose another part, or a smaller window."
        )
    if len(long_enough) < len(known):
        short = len(known) - len(long_enough)
        log.warning("%s: %d episodes are shorter than %d frames: left out.", source.name, short, selection.window or 2)
    episodes = np.array(list(long_enough), np.int64)
    lengths = np.array(list(long_enough.values()), np.int64)
    return Crops(source, episodes, lengths, selection, position[episodes])


class Crops(Lazy[Episode]):
    """Crops of the given episodes; `position_N` in [0, 1) says where the one crop of `crops: one` lies."""

    def __init__(
        self,
        source: Source,
        episodes_N: NDArray[np.int64],
        lengths_N: NDArray[np.int64],
        selection: Selection,
        position_N: NDArray[np.float64],
    ) -> None:
        self._source, self._window = source, selection.window
        offsets_N = lengths_N - (lengths_N if selection.window is None else selection.window) + 1
        if selection.crops == "all":
            self._row = np.repeat(np.arange(len(episodes_N)), offsets_N)
            self._start = np.arange(len(self._row)) - np.repeat(np.cumsum(offsets_N) - offsets_N, offsets_N)
        else:
            self._row = np.arange(len(episodes_N))
            self._start = (position_N * offsets_N).astype(np.int64) * (selection.crops == "one")
        self._episodes, self._lengths = episodes_N, lengths_N
        super().__init__(len(self._row), self._crop)

    def _crop(self, index: int) -> Episode:
        row, start = int(self._row[index]), int(self._start[index])
        episode = int(self._episodes[row])
        label = f"{self._source.name}/{self._source.label(episode)}"
        if self._window is None:
            return self._source.read(episode, 0, int(self._lengths[row]), label)
        return self._source.read(episode, start, start + self._window, f"{label}/{start}")


def frames_tensor(frames_THWC: NDArray[np.uint8], image_size: list[int] | None) -> Tensor:
    """uint8 frames as a tensor, resized as WorldGym's training data was."""
    tensor_THWC = torch.from_numpy(frames_THWC)
    return tensor_THWC if image_size is None else resize(tensor_THWC, image_size)


def partition(count: int, part: str, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the episodes of a part, in order. The generator is used alike whatever the part."""
    shuffled = rng.permutation(count)
    validation = round(count * fraction)
    chosen = {"train": shuffled[validation:], "validation": shuffled[:validation], "all": shuffled}[part]
    return np.sort(chosen)


def _frames(source: Source, episodes: Sequence[int], skip_bad: bool) -> dict[int, int]:
    """Frames of each episode; with `skip_bad`, only of those that can be read from end to end."""
    found: dict[int, int] = {}
    bad, told = 0, time.monotonic()
    for number, episode in enumerate(episodes):
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            log.warning("%s: %d of %d episodes checked.", source.name, number, len(episodes))
        try:
            frames = source.frames(episode)
            if skip_bad and frames > 1:
                source.read(episode, 0, frames, "")
        except DataError as error:
            if not skip_bad:
                raise
            bad += 1
            log.warning("Skipped %s/%s: %s", source.name, source.label(episode), error)
        else:
            found[episode] = frames
    if bad:
        log.warning("%s: %d bad episodes skipped, %d are good.", source.name, bad, len(found))
    return found
