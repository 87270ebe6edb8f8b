"""A world of three cameras and two readings that are known: they count actions and add them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Offers, Step, Task

CAMERAS = ("front", "left", "wrist")
SIZE = 32
"""Pixels of a side."""


def frames(steps: int, place: float) -> Tensor:
    """What the cameras show after `steps` actions that added up to `place`, (V, H, W, C): a ramp that each camera sees
    from another side, shifted by the steps, in a colour that says the place."""
    ramp = torch.arange(SIZE)
    pictures = []
    for camera in range(len(CAMERAS)):
        red = (ramp * (camera + 2) + 20 * steps)[:, None].expand(SIZE, SIZE)
        green = (ramp * (7 - camera) + 11 * steps)[None].expand(SIZE, SIZE)
        blue = torch.full((SIZE, SIZE), 100 + round(1000 * place) + 40 * camera)
        pictures.append(torch.stack([red, green, blue], dim=-1) % 256)
    return torch.stack(pictures).to(torch.uint8)


def readings(steps: int, place: float) -> Tensor:
    """Proprioception, (P,)."""
    return torch.tensor([0.1 * steps, 10.0 * place])


def task(name: str, instruction: str, place: float) -> Task:
    """A task that starts at this place."""
    return Task(name, instruction, frames(0, place)[None], CAMERAS, proprio_TP=readings(0, place)[None])


class CountingWorld(WorldModel):
    """Adds up the first dimension of actions."""

    api_version = 2
    device = torch.device("cpu")

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self) -> None:
        self.config = self.Config()

    @classmethod
    def offers(cls, config: Config) -> Offers:
        return Offers(CAMERAS, proprio=2)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> list[list[float]]:
        starts = [task.proprio_TP for task in tasks if task.proprio_TP is not None]
        return [[0, float(proprio_TP[-1, 1]) / 10] for proprio_TP in starts]

    def step(self, state: list[list[float]], actions_BLA: Tensor) -> Step:
        shown, felt = [], []
        for episode, actions_LA in zip(state, actions_BLA, strict=True):
            for action in actions_LA[:, 0].tolist():
                episode[0] += 1
                episode[1] += action
                shown.append(frames(int(episode[0]), episode[1]))
                felt.append(readings(int(episode[0]), episode[1]))
        count, length = actions_BLA.shape[:2]
        return Step(torch.stack(shown).unflatten(0, (count, length)), torch.stack(felt).unflatten(0, (count, length)))
