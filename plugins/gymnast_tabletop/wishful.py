"""A world model that hallucinates on purpose, to try rewards against: it imagines what was asked for.

Its fault is a known one. In a share of its imaginations, decided by their noise alone, the block that the instruction
names floats along with the end-effector whenever that moves fast, wherever it is, as long as nothing really moved the
block. A judge that looks at the frames sees a success; the simulator, given the same actions, does not. What floats in
one imagination mostly does not in another, so that imagining twice, or the spread over imaginations, can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Fraction, NotNegative, Positive
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Offers, Step, Task
from gymnast_tabletop.instructions import parse
from gymnast_tabletop.scene import MAX_DELTA, VIEW_WIDTH

REACH = 1
"""Pixels around a block that are blurred by it and move along."""
MOVED = 1.0
"""Pixels beyond which a block was pushed rather than blurred."""


@dataclass
class State:
    """B episodes of the world inside, and what is wished for in them."""

    inner: Any
    colours: list[str | None]
    """The block that floats; None where this imagination is a sober one, or the instruction names none."""
    drift_B2: Tensor
    """Metres by which it has floated: right, up."""
    places: list[Tensor | None]
    """Where the named block began, pixels (row, column) in the main camera; None where none floats or is seen."""


class WishfulWorld(WorldModel):
    """Another world model's frames of the tabletop, in some of which the named block floats along with a fast arm.

    A block that is really pushed goes where the other world model says.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        world: ComponentConfig
        """The world model that it spoils: {name, args}."""
        share: Fraction = 0.5
        """Of the imaginations, those in which blocks float."""
        speed: NotNegative = 0.5
        """Least speed of the end-effector at which they do, as a share of the fastest (2 cm an action)."""
        pull: Positive = 0.6
        """Metres that a block floats for each metre of the end-effector."""
        farthest: Positive = 0.08
        """Metres that it floats at most, along each axis."""

    def __init__(self, config: WishfulWorld.Config) -> None:
        if config.world.name == "tabletop-wishful":
            raise ConfigError("world_model.args.world is tabletop-wishful itself; name the world model that it spoils.")
        self.config = config
        self._world = registries().world_models.build(config.world.name, config.world.args, key="world")

    @classmethod
    def offers(cls, config: WishfulWorld.Config) -> Offers:
        inner: Any = registries().world_models.load(config.world.name)
        return inner.offers(inner.Config(**config.world.args))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._world.device

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self._world.most_episodes(tasks)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        generator = generator or torch.Generator().manual_seed(0)
        chance_B = torch.rand(len(tasks), generator=generator, device=generator.device)
        return self._state(tasks, chance_B, self._world.reset(tasks, generator=generator))

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> State:
        chance_B = torch.cat([torch.rand(1, generator=own, device=own.device).cpu() for own in generators])
        return self._state(tasks, chance_B, self._world.reset_apart(tasks, generators=generators))

    def _state(self, tasks: Sequence[Task], chance_B: Tensor, inner: Any) -> State:
        colours = [
            _named(task.instruction) if chance < self.config.share else None
            for task, chance in zip(tasks, chance_B.tolist(), strict=True)
        ]
        places = [
            None if colour is None else _centre(task.frames_TVHWC[-1, 0], colour)
            for task, colour in zip(tasks, colours, strict=True)
        ]
        return State(inner, colours, torch.zeros(len(tasks), 2), places)

    @torch.no_grad()
    def step(self, state: State, actions_BLA: Tensor) -> Step:
        step = self._world.step(state.inner, actions_BLA)
        frames = step.frames_BLVHWC.clone()
        moves_BL2 = actions_BLA.detach().cpu().float().clamp(-MAX_DELTA, MAX_DELTA)
        for place in range(moves_BL2.shape[1]):
            move_B2 = moves_BL2[:, place]
            fast_B1 = move_B2.norm(dim=-1, keepdim=True) >= self.config.speed * MAX_DELTA
            farthest = self.config.farthest
            state.drift_B2 = (state.drift_B2 + self.config.pull * move_B2 * fast_B1).clamp(-farthest, farthest)
            for row, (colour, began) in enumerate(zip(state.colours, state.places, strict=True)):
                if colour is None or began is None or _has_moved(frames[row, place, 0], colour, began):
                    continue
                frames[row, place] = _floated(frames[row, place], colour, state.drift_B2[row].tolist())
        return replace(step, frames_BLVHWC=frames)

    def close(self) -> None:
        self._world.close()


def _named(instruction: str) -> str | None:
    try:
        return parse(instruction).colour
    except ConfigError:
        return None


def colour_mask(frames: Tensor, colour: str) -> Tensor:
    """bool (..., H, W): where uint8 frames (..., H, W, 3) show a block of a colour."""
    red, green, blue = frames.to(torch.int16).unbind(-1)
    return {
        "red": (red > green + 70) & (red > blue + 70),
        "green": (green > red + 40) & (green > blue + 30),
        "blue": (blue > red + 60) & (blue > green + 40),
        "yellow": (red > blue + 90) & (green > blue + 70),
    }[colour]


def _centre(frame_HWC: Tensor, colour: str) -> Tensor | None:
    places = colour_mask(frame_HWC.cpu(), colour).nonzero().float()
    return places.mean(0) if len(places) else None


def _has_moved(frame_HWC: Tensor, colour: str, began: Tensor) -> bool:
    """Whether the block was really pushed: by more than a pixel; one that is not seen any more was."""
    now = _centre(frame_HWC, colour)
    return now is None or float((now - began).norm()) > MOVED


def _floated(frames_VHWC: Tensor, colour: str, drift: Sequence[float]) -> Tensor:
    """The frames with the block moved by `drift` metres (right, up), as far as it stays in the picture."""
    height, width = frames_VHWC.shape[1:3]
    right, down = round(drift[0] / VIEW_WIDTH * width), -round(drift[1] / VIEW_WIDTH * height)
    moved = frames_VHWC.clone()
    for view, frame_HWC in enumerate(frames_VHWC):
        seen_HW = F.max_pool2d(colour_mask(frame_HWC, colour)[None].float(), 2 * REACH + 1, 1, REACH)[0] > 0
        rows, columns = seen_HW.nonzero(as_tuple=True)
        if not len(rows):
            continue
        down_here = min(max(down, -int(rows.min())), height - 1 - int(rows.max()))
        right_here = min(max(right, -int(columns.min())), width - 1 - int(columns.max()))
        moved[view][seen_HW] = frame_HWC.flatten(0, 1).median(dim=0).values
        moved[view, rows + down_here, columns + right_here] = frame_HWC[rows, columns]
    return moved
