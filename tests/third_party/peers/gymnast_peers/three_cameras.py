"""A cart on a rail: three cameras of one size, two readings, and noise in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.config.ranges import Count, NotNegative
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset, WorldModel
from gymnast_core.types import Offers, Step, Task

CAMERAS = ("front", "left", "wrist")
WIDTH = 12


def render(position_B: Tensor) -> Tensor:
    """The cart at positions in [0, 1], uint8 (B, V, H, W, C): each camera shows it in its own colour, the left one
    mirrored, the wrist one blurred."""
    pixels = torch.arange(WIDTH) / (WIDTH - 1)
    near_BW = (1 - 4 * (pixels - position_B[:, None]).abs()).clamp(min=0)
    far_BW = (1 - 2 * (pixels - position_B[:, None]).abs()).clamp(min=0)
    frames = torch.zeros(len(position_B), 3, 2, WIDTH, 3, dtype=torch.uint8)
    for camera, row_BW in enumerate((near_BW, near_BW.flip(1), far_BW)):
        frames[:, camera, :, :, camera] = (255 * row_BW).round().to(torch.uint8)[:, None]
    return frames


def readings(position_B: Tensor, speed_B: Tensor) -> Tensor:
    """Proprioception, float32 (B, P)."""
    return torch.stack([position_B, speed_B], dim=1)


@dataclass
class Carts:
    """B episodes under way."""

    position_B: Tensor
    speed_B: Tensor
    generator: torch.Generator


class ThreeCameras(WorldModel):
    """Imagines all three views and the readings."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        noise: NotNegative = 0.01
        """Standard deviation of what is added to the position in every step, in rail lengths."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.device = torch.device("cpu")
        self.action_dim, self.imagined = 1, 0

    @classmethod
    def offers(cls, config: Config) -> Offers:
        return Offers(CAMERAS, proprio=2)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Carts:
        readings_BP = torch.stack([task.proprio_TP[-1] for task in tasks if task.proprio_TP is not None])
        if len(readings_BP) != len(tasks):
            raise DataError("Every task of this world begins with two readings.")
        # An episode's noise is a stream of its own, whatever its neighbours are.
        seed = torch.randint(2**62, (1,), generator=generator or torch.Generator())
        return Carts(readings_BP[:, 0].clone(), readings_BP[:, 1].clone(), torch.Generator().manual_seed(int(seed)))

    def step(self, state: Carts, actions_BLA: Tensor) -> Step:
        if actions_BLA.shape[-1] != 1:
            raise DataError(f"This world takes actions of width 1, got {actions_BLA.shape[-1]}.")
        shown, felt = [], []
        for action_BA in actions_BLA.unbind(1):
            noise_B = torch.randn(len(action_BA), generator=state.generator) * self.config.noise
            state.speed_B = 0.1 * action_BA[:, 0].clamp(-1, 1)
            state.position_B = (state.position_B + state.speed_B + noise_B).clamp(0, 1)
            shown.append(render(state.position_B))
            felt.append(readings(state.position_B, state.speed_B))
            self.imagined += len(action_BA)
        return Step(torch.stack(shown, 1), torch.stack(felt, 1))

    def state_dict(self) -> dict[str, int]:
        return {"imagined": self.imagined}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.imagined = state["imagined"]


class RailTasks(Dataset):
    """Starts along the rail."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: Count = 12
        """Tasks, evenly spaced."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def tasks(self) -> list[Task]:
        return [self._task(index) for index in range(self.config.count)]

    def _task(self, index: int) -> Task:
        position_B = torch.tensor([0.2 + 0.6 * index / max(self.config.count - 1, 1)])
        felt = readings(position_B, torch.zeros(1))
        return Task(f"rail-{index:02d}", "drive to the right", render(position_B), CAMERAS, proprio_TP=felt)
