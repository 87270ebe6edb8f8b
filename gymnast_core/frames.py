"""Frames that a world model can still make: of most imagined frames, nobody ever makes a picture.

A policy looks at the last frame of each chunk, a judge at a sample, a report at a few episodes. Where pictures are dear
(an autoencoder's decoder takes a third of an iteration), a world gives `Undecoded` latents, and frames are made when
somebody looks at them, each once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from gymnast_core.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Undecoded:
    """Frames of L actions in B episodes, as the world that imagined them keeps them."""

    latents_BLX: Tensor
    """(B, L, ...), whatever the world decodes; not changed by anybody. Rollouts keep them in main memory."""
    decode: Callable[[Tensor], Tensor]
    """uint8 RGB frames (B, L, V, H, W, 3) of such latents, any B and L, on any device. A frame depends on its own
    latents alone."""

    @torch.no_grad()
    def at(self, places: Sequence[int]) -> Tensor:
        """uint8 frames (B, n, V, H, W, 3) after the actions of those numbers, from 0; negative ones count from the
        end."""
        return self.decode(self.latents_BLX[:, list(places)])

    def all(self) -> Tensor:
        """uint8 frames (B, L, V, H, W, 3)."""
        return self.at(range(self.latents_BLX.shape[1]))


class EpisodeFrames:
    """The T = 1 + S frames of one episode, each made once, when somebody looks at it. Several threads may look."""

    def __init__(self, start_VHWC: Tensor, later: Undecoded, seen: Mapping[int, Tensor]) -> None:
        """`later` are the frames after each action (B = 1, S), `seen` those of them that are known by their places in
        the episode, from 1, as uint8 (V, H, W, 3). Memory is the episode's own."""
        self._later = later
        self._known = {0: start_VHWC, **seen}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return 1 + self._later.latents_BLX.shape[1]

    def at(self, places: Sequence[int]) -> Tensor:
        """uint8 frames (n, V, H, W, 3) of places from 0, in main memory; negative ones count from the end. Raises
        `IndexError` for others."""
        wanted = [range(len(self))[place] for place in places]
        with self._lock:
            missing = sorted(set(wanted) - self._known.keys())
            if missing:
                made_VHWC = self._later.at([place - 1 for place in missing])[0].cpu()
                self._known |= dict(zip(missing, made_VHWC, strict=True))
            found = [self._known[place] for place in wanted]
        return torch.stack(found) if found else self._known[0][None][:0]

    def all(self) -> Tensor:
        """uint8 frames (T, V, H, W, 3)."""
        return self.at(range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process, or a file, gets pictures: it has no world to make them with."""
        return _as_they_are, (self.all(),)


def _as_they_are(frames_TVHWC: Tensor) -> Tensor:
    return frames_TVHWC


class _Frames:
    """What stands in a class for a field of frames."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, holder: object | None, owner: type) -> Any:
        if holder is None:
            return self
        held = holder.__dict__[self._name]
        if not isinstance(held, Tensor):
            held = holder.__dict__[self._name] = held.all()
        return held

    def __set__(self, holder: object, frames: Tensor | Undecoded | EpisodeFrames) -> None:
        holder.__dict__[self._name] = frames


def made_when_looked_at(field: str) -> Callable[[type[T]], type[T]]:
    """Decorator of a dataclass: its `field`, of type `Tensor`, may also be given frames that are not made yet. Whoever
    reads the field gets a tensor, made at the first look and kept; `held` tells what there is."""

    def prepared(holder: type[T]) -> type[T]:
        setattr(holder, field, _Frames(field))
        return holder

    return prepared


def held(holder: object, field: str) -> Any:
    """What such a field holds, without a look at it: a tensor, `Undecoded`, or `EpisodeFrames`."""
    return vars(holder)[field]


def check_cameras(name: str, frames_TVHWC: Tensor, cameras: Sequence[str]) -> None:
    """Raises `DataError` unless the frames of what is called `name` are of these cameras."""
    if frames_TVHWC.ndim != 5 or frames_TVHWC.shape[1] != len(cameras):
        raise DataError(
            f"{name!r} has frames of shape {tuple(frames_TVHWC.shape)} and the cameras {', '.join(cameras)}; expected "
            f"(frames, {len(cameras)} cameras, height, width, 3)."
        )
