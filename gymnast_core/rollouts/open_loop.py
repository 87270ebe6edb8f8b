"""How well imagined frames match recorded ones when recorded actions are replayed from the first frame (open loop).

Shapes: B episodes, L imagined frames, H W C pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.measures import MEASURES, compare
from gymnast_core.types import Episode, Task

log = logging.getLogger(__name__)

MAX_STEPS = 20
"""Frames that are imagined of an episode, at most."""
REPORTED_STEPS = (1, 4, 8, 16, 20)
BATCH, BATCH_PIXELS = 64, 2**18
"""Episodes imagined together, and the pixels of one frame of each, at most: large frames cost a lot of memory."""


@dataclass(frozen=True)
class Chunks:
    """How many actions a world is given at once."""

    length: int
    """As it is acted in, or was trained."""
    whole: bool = False
    """Whether it imagines so many, whatever it is given, and fills up shorter chunks: then none are given where
    episodes allow it, since what it makes of the filling is no fault of its."""

    def steps(self, recorded: int, most: int = MAX_STEPS) -> int:
        """Frames that are imagined of an episode with so many recorded ones, the start frame among them."""
        if not self.whole:
            return min(most, recorded - 1)
        steps = min(max(most, self.length), recorded - 1)
        return steps - steps % self.length or steps


@dataclass(frozen=True)
class OpenLoop:
    """Episodes replayed in a world model, and what was recorded; several cameras below each other."""

    imagined_BLHWC: Tensor
    """uint8."""
    recorded_BTHWC: Tensor
    """uint8, T = 1 + L: the start frame, then the frames that `imagined_BLHWC` should be."""

    def quality(self) -> dict[str, Tensor]:
        """Each measure (B, L) of the imagined frames."""
        return compare(self.imagined_BLHWC, self.recorded_BTHWC[:, 1:])

    def copy(self) -> dict[str, Tensor]:
        """Each measure (B, L) of a world that stands still: the start frame, the last one seen, repeated."""
        return compare(self.recorded_BTHWC[:, :1], self.recorded_BTHWC[:, 1:])

    def copy_previous(self) -> dict[str, Tensor]:
        """Each measure (B, L) of the recorded frame before."""
        return compare(self.recorded_BTHWC[:, :-1], self.recorded_BTHWC[:, 1:])

    def curves(self) -> dict[str, list[float]]:
        """Each measure by frame, mean over the episodes: `psnr`, …, and `psnr_copy`, … of the start frame repeated."""
        both = {"": self.quality(), "_copy": self.copy()}
        return {f"{m}{c}": values_BL.mean(0).tolist() for c, found in both.items() for m, values_BL in found.items()}


def open_loop_quality(
    world_model: WorldModel, episodes: Sequence[Episode], chunks: Chunks, generator: torch.Generator
) -> dict[str, float]:
    """MSE (8-bit grey levels squared), PSNR (dB) and SSIM by frame and on average, with controls.

    `psnr_copy` repeats the first frame: the score of a world where nothing moves. `psnr_copy_previous`
    shows the recorded frame before. `psnr_shuffled` replays the actions of another episode, half of all away: close to
    `psnr` would mean that the actions are ignored. The same for `mse_` (lower is better) and `ssim_`.
    """
    steps = common_steps(episodes, chunks)
    longest = chunks.steps(max(len(episode.frames_TVHWC) for episode in episodes))
    if steps < longest:
        log.warning(
            "Validation imagines %d frames, which the shortest held-out episode has, not %d. Leave short ones out: "
            "short_episodes=leave_out, or the dataset's window.", steps, longest,
        )  # fmt: skip
    totals: dict[str, Tensor] = {}
    size = batch_size(episodes)
    # Neighbours may be crops of one recording.
    half = len(episodes) // 2
    others = [*episodes[half:], *episodes[:half]] if half else []
    for start in range(0, len(episodes), size):
        part = slice(start, start + size)
        for name, values_L in _batch(world_model, episodes[part], others[part], steps, chunks, generator).items():
            totals[name] = totals.get(name, torch.zeros(steps)) + values_L / len(episodes)
    quality: dict[str, float] = {}
    for measure in MEASURES:
        for name in (measure, f"{measure}_copy"):
            quality |= {f"{name}_{step}": totals[name][step - 1].item() for step in REPORTED_STEPS if step <= steps}
    return quality | {name: values_L.mean().item() for name, values_L in totals.items()}


def _batch(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    others: Sequence[Episode],
    steps: int,
    chunks: Chunks,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Sum over the batch of each measure, per step (L,); with the actions of as many others, unless there are none."""
    replayed = replay_recorded(world_model, episodes, steps, chunks, generator)
    found = {"": replayed.quality(), "_copy": replayed.copy(), "_copy_previous": replayed.copy_previous()}
    if others:
        shuffled = replay_recorded(world_model, episodes, steps, chunks, generator, actions_of=others)
        found["_shuffled"] = shuffled.quality()
    return {
        f"{measure}{control}": values_BL.sum(0)
        for control, values in found.items()
        for measure, values_BL in values.items()
    }


def common_steps(episodes: Sequence[Episode], chunks: Chunks, most: int = MAX_STEPS) -> int:
    """Frames that can be imagined of every episode, at most `most`; of a world that imagines whole chunks, as many of
    these as fit, and one at least where episodes are long enough. Raises `DataError` if there are none."""
    steps = chunks.steps(min((len(e.frames_TVHWC) for e in episodes), default=1), most)
    if steps < 1:
        raise DataError("Validation needs episodes of at least 2 frames.")
    return steps


def batch_size(episodes: Sequence[Episode]) -> int:
    """How many of the episodes are imagined together."""
    return max(1, min(BATCH, BATCH_PIXELS // math.prod(episodes[0].frames_TVHWC.shape[2:4])))


def replay_recorded(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    steps: int,
    chunks: Chunks,
    generator: torch.Generator,
    *,
    actions_of: Sequence[Episode] | None = None,
) -> OpenLoop:
    """Imagine `steps` frames of each episode from its first frame and its own actions, or those of as many others.

    Episodes hold the cameras that the world model imagines, in its order. The last chunk may be shorter.
    """
    actions_BLA = torch.stack([e.actions_TA[:steps] for e in (episodes if actions_of is None else actions_of)])
    tasks = [Task(e.id, e.instruction, e.frames_TVHWC[:1], e.cameras) for e in episodes]
    state = world_model.reset(tasks, generator=generator)
    pieces = actions_BLA.split(chunks.length, dim=1)
    frames = [_tall(world_model.step(state, piece_BLA).frames_BLVHWC).cpu() for piece_BLA in pieces]
    recorded = [_tall(episode.frames_TVHWC[: steps + 1]) for episode in episodes]
    return OpenLoop(torch.cat(frames, dim=1), torch.stack(recorded))


def _tall(frames_VHWC: Tensor) -> Tensor:
    """The views below each other: (..., V·H, W, C) from (..., V, H, W, C)."""
    return frames_VHWC.flatten(-4, -3)
