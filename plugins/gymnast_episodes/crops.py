"""Which frames of which episodes become items of a dataset: parts, crops, and what to do with bad episodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Generic, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gymnast_core.config.ranges import Choices, Range, Seed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import Episode
from gymnast_episodes.checking import put_off, readable
from gymnast_episodes.images import Pixels, check_size, resize
from gymnast_episodes.recording import recording_of

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_PATIENCE = 3
"""How often every batch of `by_batches` may be made before it is said that this is slow."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The options that all readers of episodes share."""

    window: Annotated[int, Range(least=2)] | None = None
    """Frames a crop; null for whole episodes. Shorter episodes are left out."""
    crops: Annotated[str, Choices("all", "one", "first")] = "all"
    """Which crops of an episode: all, one (at an offset drawn by the seed) or first."""
    part: Annotated[str, Choices("train", "validation", "all")] = "all"
    """train, validation or all; whole episodes fall into one of the two."""
    validation_fraction: Annotated[float, Range(least=0, below=1)] = 0.05
    """Fraction of the episodes that are validation."""
    seed: Seed = 0
    """Of the partition and the offsets."""
    image_size: list[Pixels] | None = None
    """Resize frames to this height and width, pixels; null keeps their own."""
    skip_bad: bool = False
    """Read every episode once at the start and leave out those that cannot be read, with a warning each; `gymnast
    convert` leaves them out as it goes. false: a bad episode is an error when it is read."""

    def __post_init__(self) -> None:
        check_size(self.image_size)


class Source(Protocol):
    """Episodes of one dataset on disk, by number. Picklable: holds no open file."""

    name: str
    root: Path
    """Its folder."""

    def __len__(self) -> int: ...

    def label(self, episode: int) -> str:
        """Name of an episode, unique in the source."""

    def frames(self, episode: int) -> int:
        """T, as the metadata has it; `DataError` if the episode's metadata cannot be used."""

    def files(self, episode: int) -> Sequence[Path]:
        """The files that hold it."""

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        """Frames `start` to `stop` (excluded) and the actions between them."""


@dataclass(frozen=True)
class _Checked:
    """A source as its check sees it."""

    source: Source
    selection: Selection

    @property
    def name(self) -> str:
        return self.source.name

    def label(self, episode: int) -> str:
        return self.source.label(episode)

    def frames(self, episode: int) -> int:
        return self.source.frames(episode)

    def state(self, episode: int) -> str:
        files = [
            (str(path), stat.st_size, stat.st_mtime_ns) for path, stat in map(_stat, self.source.files(episode)) if stat
        ]
        # What chooses among episodes and frames does not change whether one can be read.
        return repr((replace(self.selection, window=None, crops="all", part="all", seed=0), files))

    def check(self, episode: int) -> None:
        self.source.read(episode, 0, self.source.frames(episode), "")


def _stat(path: Path) -> tuple[Path, os.stat_result | None]:
    try:
        return path, path.stat()
    except OSError:
        return path, None


@dataclass(frozen=True)
class Origin:
    """A recording."""

    folder: Path | None
    """Where it is; None of several."""
    episodes: Sequence[str]
    """Ids of its episodes. Those of their crops, and of tasks that begin in them, go on from there."""


class Lazy(Sequence[Item], Generic[Item]):
    """A sequence whose items are made when they are indexed."""

    frames: int | Sequence[int] | None = None
    """Frames of the items, known without making them: one number if all have as many, or one each."""
    ids: Sequence[str] | None = None
    """Ids of the items, known without making them; None: an id is known when its item is made."""
    origin: Origin | None = None
    """The recording that the items are from, where it is one."""
    cropped: bool = False
    """Whether some are crops of longer episodes: a crop does not show how its episode goes on, or ends."""
    unchecked: bool = False
    """Whether some may turn out to be bad, and are to be left out then (`gymnast convert`)."""

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


def by_batches(length: int, size: int, make: Callable[[int, slice], Sequence[Item]], dataset: str) -> Lazy[Item]:
    """Items that are made `size` at a time: `make` is given the number of a batch and the place of its items. The batch
    that was asked for last is kept, so that whoever reads once and in order has each made once. To whoever does not, as
    a fit that draws at random, it is said that `dataset` makes the same again and again."""
    kept: dict[int, Sequence[Item]] = {}
    batches, made = -(-length // size), 0

    def item(index: int) -> Item:
        nonlocal made
        number, place = divmod(index, size)
        if number not in kept:
            kept.clear()
            kept[number] = make(number, slice(number * size, (number + 1) * size))
            made += 1
            if made == _PATIENCE * batches + 1:
                log.warning(
                    "The %d episodes of %s are made again and again, up to %d for each that is read: %d batches so "
                    "far, where %d would do. Make them once (gymnast convert %s FOLDER …), and read that: "
                    "{name: lerobot, args: {path: FOLDER}}.",
                    length, dataset, size, made, batches, dataset,
                )  # fmt: skip
        return kept[number][place]

    return Lazy(length, item)


def select(source: Source, selection: Selection) -> Sequence[Episode]:
    """The episodes, or crops of them, that `selection` asks for; frames are decoded when an item is indexed.

    Raises `DataError` if none is left.
    """
    rng = np.random.default_rng(selection.seed)
    chosen = partition(len(source), selection.part, selection.validation_fraction, rng)
    # Drawn for every episode, so that a bad or short one does not change the crops of the others.
    position = rng.random(len(source))
    known = readable(_Checked(source, selection), chosen.tolist(), selection.skip_bad)
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
        self.recording = recording_of(source)
        # Whether a bad episode raises `DataError` although the user asked to leave it out.
        self.unchecked = selection.skip_bad and put_off()
        # Crops are counted, not listed: metadata may promise more frames than memory could number.
        offsets_N = lengths_N - (lengths_N if selection.window is None else selection.window) + 1
        self._start_N = None if selection.crops == "all" else (position_N * offsets_N).astype(np.int64)
        if selection.crops == "first":
            self._start_N = np.zeros_like(offsets_N)
        self._end_N = np.cumsum(offsets_N if self._start_N is None else np.ones_like(offsets_N))
        self._episodes, self._lengths = episodes_N, lengths_N
        super().__init__(int(self._end_N[-1]), self._crop)
        self.frames = lengths_N.tolist() if selection.window is None else selection.window
        self.cropped = selection.window is not None and bool((lengths_N > selection.window).any())
        self.ids = Lazy(len(self), self._id)
        self.origin = Origin(source.root.resolve(), Lazy(len(episodes_N), self._episode_id))

    def _place(self, index: int) -> tuple[int, int]:
        """Row among the episodes, and the first frame."""
        row = int(np.searchsorted(self._end_N, index, side="right"))
        if self._start_N is not None:
            return row, int(self._start_N[row])
        return row, index - (int(self._end_N[row - 1]) if row else 0)

    def _episode_id(self, row: int) -> str:
        return f"{self._source.name}/{self._source.label(int(self._episodes[row]))}"

    def _id(self, index: int) -> str:
        row, start = self._place(index)
        return self._episode_id(row) if self._window is None else f"{self._episode_id(row)}/{start}"

    def _crop(self, index: int) -> Episode:
        row, start = self._place(index)
        stop = int(self._lengths[row]) if self._window is None else start + self._window
        return self._source.read(int(self._episodes[row]), start, stop, self._id(index))


def wanted_cameras(camera: str | None, cameras: Sequence[str]) -> list[str]:
    """The cameras that a config names, as one or as several; none: the dataset's own choice. Raises `ConfigError`."""
    if camera is None:
        return list(cameras)
    if cameras:
        raise ConfigError(f"Give camera={camera} or cameras=[{','.join(cameras)}], not both.")
    return [camera]


def frames_tensor(frames_THWC: NDArray[np.uint8], image_size: list[int] | None) -> Tensor:
    """uint8 frames as a tensor, resized as WorldGym's training data was."""
    tensor_THWC = torch.from_numpy(frames_THWC)
    return tensor_THWC if image_size is None else resize(tensor_THWC, image_size)


def stacked(views: Mapping[str, Tensor], source: str) -> Tensor:
    """Frames of each camera (T, H, W, C) as (T, V, H, W, C). Raises `DataError` where their sizes differ."""
    sizes = {camera: tuple(view.shape[1:3]) for camera, view in views.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
        raise DataError(
            f"The cameras of {source} differ in size ({listed}): resize them with image_size=[H,W], or choose with "
            "cameras=[…]."
        )
    return torch.stack(list(views.values()), dim=1)


def partition(count: int, part: str, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the episodes of a part, in order. The generator is used alike whatever the part."""
    shuffled = rng.permutation(count)
    validation = round(count * fraction)
    chosen = {"train": shuffled[validation:], "validation": shuffled[:validation], "all": shuffled}[part]
    return np.sort(chosen)
