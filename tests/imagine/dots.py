"""A world simple enough to know: a white dot that moves by the action, pixels right and down; and episodes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset, WorldModel
from gymnast_core.types import Episode, Offers, Step, Task

SIZE = 16
SEEN: list[Any] = []
"""What every `DotWorld` was given: ("reset", context shape, actions) and ("step", actions_BLA)."""


def draw(place_2: Tensor) -> Tensor:
    frame = torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8)
    x, y = (int(value) % SIZE for value in place_2.round())
    frame[y, x] = 255
    return frame


def find(frame_HWC: Tensor) -> Tensor:
    index = int(frame_HWC.float().sum(-1).flatten().argmax())
    return torch.tensor([index % SIZE, index // SIZE], dtype=torch.float32)


@dataclass
class State:
    places: list[Tensor]
    generator: torch.Generator
    steps: int = 0

    def __len__(self) -> int:
        return len(self.places)


class DotWorld(WorldModel):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        brighter: int = 0
        """Levels added to every pixel that is black."""
        noise: int = 0
        """Levels of noise on black pixels."""
        fails_after: int | None = None
        """Actions after which it breaks."""
        larger: int = 1
        """How many times larger its frames are than the one it starts from."""
        cameras: list[str] = field(default_factory=list)
        """Names of its cameras; the first one sees the dot, the others its negative. None: one without a name."""

    def __init__(self, config: Config) -> None:
        self.config, self.device = config, torch.device("cpu")

    @classmethod
    def offers(cls, config: Config) -> Offers:
        return Offers(tuple(config.cameras)) if config.cameras else Offers()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        assert generator is not None
        SEEN.append(("reset", tuple(tasks[0].frames_TVHWC.shape), tasks[0].actions_TA))
        return State([find(task.view()[-1]) for task in tasks], generator)

    def step(self, state: State, actions_BLA: Tensor) -> Step:
        if actions_BLA.shape[2] != 2:
            raise DataError(f"Dots take actions of width 2, got {actions_BLA.shape[2]}.")
        SEEN.append(("step", actions_BLA.clone()))
        state.steps += actions_BLA.shape[1]
        if self.config.fails_after is not None and state.steps > self.config.fails_after:
            raise DataError("The dot fell off.")
        frames = []
        for action_BA in actions_BLA.unbind(1):
            state.places = [place + action for place, action in zip(state.places, action_BA, strict=True)]
            frame_BHWC = torch.stack([draw(place) for place in state.places]).int()
            noise = torch.randint(0, self.config.noise + 1, frame_BHWC.shape, generator=state.generator)
            frames.append((frame_BHWC + self.config.brighter + noise).clamp(max=255).to(torch.uint8))
        large = torch.stack(frames, dim=1)
        large = large.repeat_interleave(self.config.larger, 2).repeat_interleave(self.config.larger, 3)
        others = [255 - large for _ in self.config.cameras[1:]]
        return Step(torch.stack([large, *others], dim=2))


class DotEpisodes(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        lengths: list[int] = field(default_factory=lambda: [6, 9, 4])
        """Frames of the episodes."""
        instruction: str = "move the dot"
        broken: bool = False
        """The second action of every episode is NaN."""
        still: bool = False
        """Dimension 1 never moves."""
        cameras: list[str] = field(default_factory=lambda: ["camera"])
        """Names of the cameras; the first one sees the dot, the others its negative."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def episodes(self) -> Sequence[Episode]:
        return [self._episode(index) for index in range(len(self.config.lengths))]

    def _episode(self, index: int) -> Episode:
        generator = torch.Generator().manual_seed(index)
        actions = torch.randint(-2, 3, (self.config.lengths[index] - 1, 2), generator=generator).float()
        if self.config.still:
            actions[:, 1] = 0
        places = torch.cat([torch.full((1, 2), 8.0), 8.0 + actions.cumsum(0)])
        if self.config.broken:
            actions[1] = float("nan")
        frames_THWC = torch.stack([draw(place) for place in places])
        views = [frames_THWC, *(255 - frames_THWC for _ in self.config.cameras[1:])]
        frames_TVHWC, cameras = torch.stack(views, dim=1), tuple(self.config.cameras)
        return Episode(f"dot-{index}", self.config.instruction, frames_TVHWC, actions, cameras)
