"""How near imagined frames are to real ones, apart for pixels that changed and pixels that did not.

A pixel (of one camera, at one frame) has changed against another frame if one of its three channels differs by more
than `levels` of 255. Errors are squared differences of levels, added up over pixels and channels; PSNR, which is
10 log10(255² / mean), is taken of sums over all episodes, not averaged over episodes, some of which have hardly a
changed pixel.

Shapes: E episodes, K clusters of episodes that begin alike, T frames after the start, V cameras, H W C pixels, R
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gymnast_core.statistics import Interval, cluster_index, percentiles, resampled_means

FAINTEST = 1e-4
"""Mean squared error, levels squared, that stands for equality: 88 dB."""
AGAINST = ("first", "previous")
"""The frame that a pixel is compared with: the start, or the real frame before."""
PARTS = ("changed", "unchanged")
SOURCES = ("model", "copy", "shuffled")
"""Whose frames: the world model's, the frame that pixels are compared with repeated, the world model's under the
actions of another episode."""

Sums = Mapping[str, list[float]]
"""For each frame after the start, of one episode: "changed/first/count" numbers, "changed/first/model" errors, …"""


def errors_of(
    real_TVHWC: Tensor,
    model_TVHWC: Tensor,
    shuffled_TVHWC: Tensor | None,
    levels: int,
    ended_after: int | None = None,
) -> Sums:
    """The squared errors of one episode by frame; all begin with the same start frame, which is not counted.

    Nor are frames after `ended_after` actions, if given: the real episode is over then and stands still, which no
    action does in the world model.
    """
    real = real_TVHWC.int()
    last = len(real) if ended_after is None else ended_after
    lives_T111 = (torch.arange(1, len(real)) <= last)[:, None, None, None]
    sums: dict[str, list[float]] = {}
    for against in AGAINST:
        compared = real[:1].expand_as(real[1:]) if against == "first" else real[:-1]
        shown = {"model": model_TVHWC[1:], "copy": compared}
        if shuffled_TVHWC is not None:
            shown["shuffled"] = shuffled_TVHWC[1:]
        changed_TVHW = (real[1:] - compared).abs().amax(-1) > levels
        squares = {name: (frames.int() - real[1:]).square().sum(-1) for name, frames in shown.items()}
        for part, mask_TVHW in (("changed", changed_TVHW & lives_T111), ("unchanged", ~changed_TVHW & lives_T111)):
            place = f"{part}/{against}"
            sums[f"{place}/count"] = (3.0 * mask_TVHW.sum((1, 2, 3))).tolist()
            for name, squares_TVHW in squares.items():
                sums[f"{place}/{name}"] = (squares_TVHW * mask_TVHW).sum((1, 2, 3)).double().tolist()
    return sums


@dataclass(frozen=True)
class Likeness:
    """A PSNR, or a difference of two, over E episodes."""

    value: float
    """dB."""
    interval: Interval
    """95 %, by resampling episodes; all that begin alike together."""
    n: int
    """Episodes that have such pixels."""


class Comparison:
    """The errors of many episodes at all frames. `starts` names where each begins; None: each elsewhere."""

    def __init__(self, episodes: Sequence[Sums], starts: Sequence[str] | None = None) -> None:
        self._episodes = episodes
        self._cluster_E = np.arange(len(episodes)) if starts is None else cluster_index(starts)
        self.frames = len(episodes[0]["changed/first/count"]) if episodes else 0

    def knows(self, source: str) -> bool:
        return bool(self._episodes) and all(f"changed/first/{source}" in sums for sums in self._episodes)

    def psnr(self, part: str, source: str, frame: int, against: str = "first") -> Likeness | None:
        """Of a source at a frame (from 1); None where no episode has such a pixel."""
        return self._likeness(part, (source,), frame, against)

    def gain(self, part: str, over: str, frame: int, against: str = "first") -> Likeness | None:
        """By how many dB the world model's PSNR is above that of `over`, the same episodes resampled for both."""
        return self._likeness(part, ("model", over), frame, against)

    def curve(self, part: str, source: str, against: str = "first") -> list[float | None]:
        """PSNR by frame."""
        found = []
        for frame in range(1, self.frames + 1):
            counts, errors = self._sums(part, (source,), frame, against)
            found.append(float(_decibels(errors.sum() / counts.sum())) if counts.sum() else None)
        return found

    def _likeness(self, part: str, sources: Sequence[str], frame: int, against: str) -> Likeness | None:
        counts_E, errors_SE = self._sums(part, sources, frame, against)
        n = int((counts_E > 0).sum())
        if not n:
            return None
        counts_K = np.bincount(self._cluster_E, weights=counts_E)
        errors_SK = np.stack([np.bincount(self._cluster_E, weights=errors_E) for errors_E in errors_SE])
        counts_SK = np.broadcast_to(counts_K, errors_SK.shape)
        means_RS = resampled_means(errors_SK, counts_SK, np.zeros(len(counts_K)), seed=0, resamples=2000)
        value = _signed(_decibels(errors_SE.sum(axis=1) / counts_E.sum()))
        return Likeness(float(value), percentiles(_signed(_decibels(means_RS))), n)

    def _sums(
        self, part: str, sources: Sequence[str], frame: int, against: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        place = f"{part}/{against}"
        counts = np.array([sums[f"{place}/count"][frame - 1] for sums in self._episodes])
        errors = np.array([[sums[f"{place}/{name}"][frame - 1] for sums in self._episodes] for name in sources])
        return counts, errors


def _decibels(mean_squares: NDArray[np.float64]) -> NDArray[np.float64]:
    return 10 * np.log10(255.0**2 / np.maximum(mean_squares, FAINTEST))


def _signed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first one, less the second if there are two."""
    return values[..., 0] - values[..., 1] if values.shape[-1] == 2 else values[..., 0]


def side_by_side(frames_TVHWC: Tensor) -> Tensor:
    """All cameras in one picture, (T, H, V·W, C)."""
    return torch.cat(frames_TVHWC.unbind(1), dim=2)
