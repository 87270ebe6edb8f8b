"""Edits of the picture that a rollout starts from; the goal stays what it was."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.types import Task
from gymnast_episodes.pictures import read_picture
from gymnast_probe.colours import HUES, colour_masks, to_hsv, to_rgb, visible_colours
from gymnast_probe.interfaces import Edit, Edited, NotApplicable

Frames = NDArray[np.uint8]
"""uint8 RGB; N is context frames times cameras."""


class ImageEdit(Edit):
    """Changes every context frame of every camera alike."""

    def apply(self, task: Task, rng: np.random.Generator) -> Edited:
        frames_TVHWC = task.frames_TVHWC.numpy()
        frames_NHWC = frames_TVHWC.reshape(-1, *frames_TVHWC.shape[2:])
        edited_NHWC = self.edit(frames_NHWC, task.view()[-1].numpy(), rng, task.instruction)
        if (edited_NHWC == frames_NHWC).all():
            raise NotApplicable("the picture stays as it is")
        edited_TVHWC = np.ascontiguousarray(edited_NHWC.reshape(frames_TVHWC.shape))
        return Edited(replace(task, frames_TVHWC=torch.from_numpy(edited_TVHWC)), task.instruction)

    @abstractmethod
    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        """The edited frames, of the same shape; the main camera shows `shown_HWC` now. Raises `NotApplicable`."""


@dataclass(frozen=True)
class Distractor(ImageEdit):
    """Pastes something that was not there, with a soft mask: a shaded disc or box, or a cut-out of a folder."""

    size: float = 0.2
    """Its width, as a share of the picture's."""
    softness: float = 0.15
    """Width of its soft edge, as a share of its own."""
    folder: str | None = None
    """Folder of PNG or JPEG cut-outs to draw from; their transparency is kept."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        _, height, width, _ = frames_NHWC.shape
        side = max(3, round(self.size * width))
        patch, mask = self._cut_out(side, rng) if self.folder else _shape(side, self.softness, rng)
        top, left = (int(rng.integers(0, max(1, length - side + 1))) for length in (height, width))
        alpha = np.zeros((height, width, 1), np.float32)
        colours = np.zeros((height, width, 3), np.float32)
        place = (slice(top, top + side), slice(left, left + side))
        fits = alpha[place].shape[:2]
        alpha[place], colours[place] = mask[: fits[0], : fits[1]], patch[: fits[0], : fits[1]]
        return _blend(frames_NHWC, colours, alpha)

    def _cut_out(self, side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        folder = Path(str(self.folder)).expanduser()
        files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if not files:
            raise DataError(
                f"edits: the folder {folder} holds no PNG or JPEG. Set folder to one that does, or to null."
            )
        path = files[rng.integers(len(files))]
        picture_HWC = read_picture(path, str(path), "Repair it, or take it out of the folder.", alpha=True)
        rgba = np.asarray(Image.fromarray(picture_HWC).resize((side, side)), np.float32)
        soft = _edge(np.minimum(*_border_distance(side)), self.softness * side)
        return rgba[..., :3], (rgba[..., 3] / np.float32(255) * soft)[..., None].astype(np.float32)


@dataclass(frozen=True)
class Recolour(ImageEdit):
    """Gives something that the instruction does not name by its colour another one, which nothing else has."""

    turn: float | None = None
    """Turns of the colour wheel, 0 to 1; None draws a colour that is neither seen nor named."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        seen, named = visible_colours(shown_HWC), [name for name in HUES if name in instruction.lower()]
        others = [name for name in seen if name not in named]
        if not others:
            raise NotApplicable("the picture shows no colour but those that the instruction names")
        old = str(rng.choice(others))
        new = str(rng.choice([name for name in HUES if name not in seen and name not in named] or [old]))
        return _turned(frames_NHWC, {old: HUES[new] - HUES[old] if self.turn is None else self.turn})


@dataclass(frozen=True)
class Swap(ImageEdit):
    """Two coloured things trade their colours, so that each stands where the other one stood."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        seen = visible_colours(shown_HWC)
        if len(seen) < 2:
            raise NotApplicable("the picture does not show two colours")
        first, second = seen[:2]
        turn = HUES[second] - HUES[first]
        return _turned(frames_NHWC, {first: turn, second: -turn})


@dataclass(frozen=True)
class Occlude(ImageEdit):
    """Covers a part of the picture with grey, softly."""

    size: float = 0.25
    """Side of the square, as a share of the picture's."""
    softness: float = 0.1
    """Width of its soft edge, as a share of its own."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        _, height, width, _ = frames_NHWC.shape
        side = max(2, round(self.size * min(height, width)))
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        alpha = np.zeros((height, width, 1), np.float32)
        mask = _edge(np.minimum(*_border_distance(side)), self.softness * side)
        alpha[top : top + side, left : left + side] = mask[..., None]
        return _blend(frames_NHWC, np.full((height, width, 3), 128.0, np.float32), alpha)


@dataclass(frozen=True)
class Brightness(ImageEdit):
    """Darker or brighter."""

    factor: float = 0.6
    """On all colours."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        return np.clip(np.rint(frames_NHWC * np.float32(self.factor)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Crop(ImageEdit):
    """A part of the picture, enlarged to its size: a camera that stands closer and a little aside."""

    share: float = 0.9
    """Of the picture's sides that is kept."""

    def edit(self, frames_NHWC: Frames, shown_HWC: Frames, rng: np.random.Generator, instruction: str) -> Frames:
        _, height, width, _ = frames_NHWC.shape
        rows, columns = self.share * height, self.share * width
        top, left = float(rng.uniform(0, height - rows)), float(rng.uniform(0, width - columns))
        box = (left, top, left + columns, top + rows)
        resized = [
            Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box) for frame in frames_NHWC
        ]
        return np.stack([np.asarray(image) for image in resized])


def _shape(side: int, softness: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A disc or a box of a random colour, lit from a side: colours (side, side, 3) in 0-255 and its mask."""
    y, x = _border_distance(side)
    centre = (side - 1) / 2
    grid = np.arange(side, dtype=np.float32) - centre
    radius = side / 2 - np.hypot(grid[:, None], grid[None])
    inside = radius if rng.random() < 0.5 else np.minimum(y, x)
    light = 1 + 0.35 * (grid[:, None] * rng.uniform(-1, 1) + grid[None] * rng.uniform(-1, 1)) / side
    colour = rng.uniform(30, 225, 3).astype(np.float32)
    return np.clip(light[..., None] * colour, 0, 255).astype(np.float32), _edge(inside, softness * side)[..., None]


def _border_distance(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels from each centre to the nearest border, by rows and by columns."""
    distance = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5).astype(np.float32)
    return np.broadcast_to(distance[:, None], (side, side)), np.broadcast_to(distance[None], (side, side))


def _edge(inside: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """0 at the border to 1 at `width` pixels inside it."""
    return np.clip(inside / max(width, 1e-6), 0.0, 1.0).astype(np.float32)


def _blend(frames_NHWC: Frames, colours_HWC: NDArray[np.float32], alpha_HW1: NDArray[np.float32]) -> Frames:
    mixed = frames_NHWC * (1 - alpha_HW1) + colours_HWC * alpha_HW1
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _turned(frames_NHWC: Frames, turns: Mapping[str, float]) -> Frames:
    """Pixels of these colours with their hue moved by so many turns."""
    edited = frames_NHWC.copy()
    for frame_HWC in edited:
        hsv, masks = to_hsv(frame_HWC), colour_masks(frame_HWC)
        for colour, turn in turns.items():
            hsv[masks[colour], 0] = (hsv[masks[colour], 0] + turn) % 1.0
        changed = np.any([masks[colour] for colour in turns], axis=0)
        frame_HWC[changed] = to_rgb(hsv)[changed]
    return edited


IMAGE_EDITS: Mapping[str, type[Edit]] = {
    "distractor": Distractor, "recolour": Recolour, "swap": Swap, "occlude": Occlude, "brightness": Brightness,
    "crop": Crop,
}  # fmt: skip
