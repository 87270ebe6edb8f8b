"""A world model that hallucinates on purpose, to try rewards against: it imagines what was asked for.

Its fault is a known one, of models that saw little but successes: in a share of its imaginations, decided by their
noise alone, the block that the instruction names slides the way it was asked to go while the arm takes its time. A
judge that looks at the frames sees a success; the simulator, given the same actions, mostly does not. A policy learns
from it to be slow, and what the shipped one has to learn is to be quick. What slides in one imagination may stay in
another, so that imagining twice, or the spread over imaginations, can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Fraction, Positive
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Offers, Step, Task
from gymnast_tabletop.instructions import DIRECTIONS, Goal, parse
from gymnast_tabletop.scene import MAX_DELTA, VIEW_WIDTH

REACH = 1
"""Pixels around a block that are blurred by it and move along."""


@dataclass
class State:
    """B episodes of the world inside, and what is wished for in them."""

    inner: Any
    goals: list[Goal | None]
    """What slides, and where to; None where this imagination is a sober one, or the instruction names nothing."""
    drift_B: Tensor
    """Metres by which it has slid."""


class WishfulWorld(WorldModel):
    """Another world model's frames of the tabletop, in some of which the named block also slides on its own.

    How far it slides is added to where the other world model shows it, pushed or not.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        world: ComponentConfig
        """The world model that it spoils: {name, args}."""
        share: Fraction = 0.6
        """Of the imaginations, those in which blocks slide."""
        slow: Positive = 0.7
        """Speed of the end-effector below which they do, as a share of 2 cm an action, the most along each axis."""
        speed: Positive = 0.006
        """Metres an action by which they slide."""
        farthest: Positive = 0.07
        """Metres that they slide at most."""

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

    @property
    def concurrent(self) -> bool:  # type: ignore[override]
        return self._world.concurrent

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self._world.most_episodes(tasks)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        generator = generator or torch.Generator().manual_seed(0)
        chance_B = torch.rand(len(tasks), generator=generator, device=generator.device)
        return self._state(tasks, chance_B, self._world.reset(tasks, generator=generator))

    @property
    def takes_several_apart(self) -> bool:
        return self._world.takes_several_apart

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> State:
        chance_B = torch.cat([torch.rand(1, generator=own, device=own.device).cpu() for own in generators])
        return self._state(tasks, chance_B, self._world.reset_apart(tasks, generators=generators))

    def _state(self, tasks: Sequence[Task], chance_B: Tensor, inner: Any) -> State:
        goals = [
            _goal(task.instruction) if chance < self.config.share else None
            for task, chance in zip(tasks, chance_B.tolist(), strict=True)
        ]
        return State(inner, goals, torch.zeros(len(tasks)))

    @torch.no_grad()
    def step(self, state: State, actions_BLA: Tensor) -> Step:
        step = self._world.step(state.inner, actions_BLA)
        frames = step.frames_BLVHWC.clone()
        moves_BL2 = actions_BLA.detach().cpu().float().clamp(-MAX_DELTA, MAX_DELTA)
        slow_BL = moves_BL2.norm(dim=-1) < self.config.slow * MAX_DELTA
        for place, slow_B in enumerate(slow_BL.unbind(1)):
            state.drift_B = (state.drift_B + self.config.speed * slow_B).clamp(max=self.config.farthest)
            for row, (goal, drift) in enumerate(zip(state.goals, state.drift_B.tolist(), strict=True)):
                if goal is not None:
                    right, up = DIRECTIONS[goal.direction]
                    frames[row, place] = _slid(frames[row, place], goal.colour, (drift * right, drift * up))
        return replace(step, frames_BLVHWC=frames)

    def close(self) -> None:
        self._world.close()


def _goal(instruction: str) -> Goal | None:
    try:
        return parse(instruction)
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


def _slid(frames_VHWC: Tensor, colour: str, drift: Sequence[float]) -> Tensor:
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
