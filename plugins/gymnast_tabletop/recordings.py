"""Reading what `record` wrote: frames stay on disk, everything small is labelled for all crops at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_core.reading import read_json
from gymnast_core.types import Episode, one_camera
from gymnast_tabletop.geometry import image_points
from gymnast_tabletop.instructions import GOALS, Goal, block_index, feasible, parse, successes
from gymnast_tabletop.scene import FPS

_FILES = ("frames.npy", "actions.npy", "states.npy", "episodes.json", "meta.json")


def new_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file, mapped into memory, whose room on the disk is taken. Raises `OSError` where there is none.

    Otherwise a disk that fills up ends the process by a signal, in the midst of the work and without a word.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on this file system
                    raise
    return array


class Folder:
    """The arrays of one recording, checked against each other; `DataError` when something is missing."""

    def __init__(self, path: Path) -> None:
        missing = [name for name in _FILES if not (path / name).is_file()]
        if missing:
            raise DataError(
                f"{path} is no tabletop recording: {', '.join(missing)} missing. Make one with "
                "`python -m gymnast_tabletop.record --image-size 32 --actions 20 --behaviour BEHAVIOUR --episodes N "
                f"--out {path}`: slow-demonstrations (6000 of them, --seed 2) to imitate, play (12000) for world "
                "models, judges and branched starts. plugins/gymnast_tabletop/README.md has the lines of the presets."
            )
        self.name, self._path = path.name, path
        try:
            self.frames_NTHWC = np.load(path / "frames.npy", mmap_mode="r", allow_pickle=False)
            self.actions_NTA = np.load(path / "actions.npy", allow_pickle=False)
            self.states_NTS = np.load(path / "states.npy", allow_pickle=False)
            episodes = read_json(path / "episodes.json")
            self.seeds = [int(one["seed"]) for one in episodes]
            self.colours = [tuple(one["colours"]) for one in episodes]
            self.instructions = [str(one["instruction"]) for one in episodes]
        except (ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(f"{path} cannot be read: {error}. Record it again.") from error
        n, frames = self.frames_NTHWC.shape[:2]
        shapes = {len(self.seeds), len(self.actions_NTA), len(self.states_NTS), n}
        if len(shapes) > 1 or self.actions_NTA.shape[1] + 1 != frames or self.states_NTS.shape[1] != frames:
            raise DataError(f"{path}: its arrays differ in length. Record it again.")
        points = image_points(self.states_NTS)
        self.points_NTJ2 = np.where((points >= 0) & (points <= 1), points, np.float32(np.nan))

    def __reduce__(self) -> tuple[type[Folder], tuple[Path]]:
        # Pickled for a worker process, a memory map would travel as gigabytes of pixels.
        return Folder, (self._path,)


class Crops(Sequence[Episode]):
    """Crops of `window` frames of some episodes of a folder, with what is known of every instruction.

    `own` keeps the recorded instruction, otherwise each crop gets one in hindsight: for half of the crops,
    drawn by `rng`, one that came true if any did, else any feasible one. All labels compare the crop's last
    frame with its first.
    """

    def __init__(
        self,
        folder: Folder,
        episodes: NDArray[np.int64],
        *,
        window: int | None,
        crops: str,
        own: bool,
        goals: Sequence[Goal],
        rng: np.random.Generator,
    ) -> None:
        self._folder = folder
        frames = folder.frames_NTHWC.shape[1]
        self._window = self.frames = window or frames
        if self._window > frames:
            raise DataError(f"{folder.name} has {frames} frames an episode; window is {window}. Set a smaller window.")
        offsets = frames - self._window + 1
        if crops == "all":
            self._episode = np.repeat(episodes, offsets)
            self._offset = np.tile(np.arange(offsets), len(episodes))
        else:
            self._episode = episodes
            self._offset = rng.integers(offsets, size=len(episodes)) if crops == "one" else np.zeros_like(episodes)
        self._label([goal in goals for goal in GOALS], own, rng)

    def _label(self, allowed: list[bool], own: bool, rng: np.random.Generator) -> None:
        """Outcomes of the 16 goals in every crop, and which goal each crop is about."""
        folder, last = self._folder, self._offset + self._window - 1
        starts, ends = folder.states_NTS[self._episode, self._offset], folder.states_NTS[self._episode, last]
        self._known = np.zeros((len(self), len(GOALS)), bool)
        self._fulfilled = np.zeros_like(self._known)
        colours = [folder.colours[i] for i in self._episode]
        own_goals = [parse(instruction) for instruction in folder.instructions]
        own_index = np.array([GOALS.index(own_goals[i]) for i in self._episode], np.int64)
        for present in set(colours):
            rows = np.array([i for i, c in enumerate(colours) if c == present])
            for g, goal in enumerate(GOALS):
                if goal.colour in present:
                    done = successes(goal, present, starts[rows], ends[rows])
                    self._fulfilled[rows, g] = done
                    # What came true was feasible, whatever the rule of thumb says.
                    self._known[rows, g] = allowed[g] & (done | feasible(goal, present, starts[rows]))
        if own:
            self._goal = own_index
            return
        preference = rng.random(self._known.shape) + self._fulfilled * (rng.random((len(self), 1)) < 0.5)
        drawn = np.where(self._known, preference, -1.0).argmax(axis=1)
        self._goal = np.where(self._known.any(axis=1), drawn, own_index)

    def __len__(self) -> int:
        return len(self._episode)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"No crop {index}; there are {len(self)}.")
        folder, episode, start = self._folder, int(self._episode[index]), int(self._offset[index])
        stop, goal = start + self._window, GOALS[self._goal[index]]
        named = block_index(goal, folder.colours[episode])
        order = [named, *(j for j in range(folder.points_NTJ2.shape[2]) if j != named)]
        known, fulfilled = self._known[index], self._fulfilled[index]
        # Copies: tensors must not alias a read-only memory map.
        return Episode(
            id=f"{folder.name}/{folder.seeds[episode]}/{start}",
            instruction=goal.instruction,
            frames_TVHWC=one_camera(torch.from_numpy(np.array(folder.frames_NTHWC[episode, start:stop]))),
            actions_TA=torch.from_numpy(folder.actions_NTA[episode, start : stop - 1].copy()),
            fps=FPS,
            success=bool(fulfilled[self._goal[index]]),
            outcomes={GOALS[g].instruction: bool(fulfilled[g]) for g in np.flatnonzero(known)},
            points_TJ2=torch.from_numpy(folder.points_NTJ2[episode, start:stop][:, order]),
        )
