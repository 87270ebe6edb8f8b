"""A simulator with two cameras and a state: a dot on a sheet, seen from the front and from its own wrist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch

from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk, EnvironmentStart, Evaluation, Needs, Observation, Task

SIZE = 12
ID = "gymnast-test/TwoViews-v0"
CAMERAS = ("front", "wrist")


def front(x: int, y: int) -> np.ndarray:
    """The dot is where it is; uint8 (SIZE, SIZE, 3)."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[y, x] = 255
    return image


def wrist(x: int, y: int) -> np.ndarray:
    """One colour all over, which says where the dot is."""
    return np.full((SIZE, SIZE, 3), (10 * x, 10 * y, 100), np.uint8)


class TwoViews(gymnasium.Env):
    """Action (2,) moves the dot by whole pixels; the state is (x, y, actions so far). Success: beyond x = 5.

    The same arrays are shown again and again, overwritten, as some simulators do.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 10, "gymnast_shared_process": True}

    def __init__(self, *, wrist_size: int = SIZE):
        picture = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        small = gymnasium.spaces.Box(0, 255, (wrist_size, wrist_size, 3), np.uint8)
        state = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.observation_space = gymnasium.spaces.Dict({"front": picture, "wrist": small, "state": state})
        self.action_space = gymnasium.spaces.Box(-SIZE, SIZE, (2,), np.float32)
        self._shown = {space: np.zeros(box.shape, box.dtype) for space, box in self.observation_space.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x, self.y, self.steps = int(self.np_random.integers(0, 3)), int(self.np_random.integers(0, 3)), 0
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.x, self.y = (int(np.clip(v + d, 0, SIZE - 1)) for v, d in zip((self.x, self.y), action, strict=True))
        self.steps += 1
        return self._observe(), 0.0, False, False, {"success": self.x > 5}

    def _observe(self) -> dict[str, np.ndarray]:
        side = len(self._shown["wrist"])
        self._shown["front"][:] = front(self.x, self.y)
        self._shown["wrist"][:] = wrist(self.x, self.y)[:side, :side]
        self._shown["state"][:] = (self.x, self.y, self.steps)
        return self._shown


gymnasium.register(ID, entry_point=TwoViews)


def where(seed: int) -> tuple[int, int]:
    """Where the dot starts."""
    environment = TwoViews()
    environment.reset(seed=seed)
    return environment.x, environment.y


def pictures(x: int, y: int) -> torch.Tensor:
    """What both cameras show, uint8 (V, H, W, C)."""
    return torch.from_numpy(np.stack([front(x, y), wrist(x, y)]))


def make_task(seed: int, **changes: Any) -> Task:
    x, y = where(seed)
    fields: dict[str, Any] = {
        "id": f"dot-{seed}",
        "instruction": "move the dot to the right",
        "frames_TVHWC": pictures(x, y)[None],
        "cameras": CAMERAS,
        "proprio_TP": torch.tensor([[x, y, 0.0]]),
        "start": EnvironmentStart(ID, seed),
    }
    return Task(**(fields | changes))


class Watcher(Policy):
    """Keeps what it is shown; decides the next `chunk_length` of the given actions, the same for all episodes."""

    api_version = 2
    action_dim = 2

    @dataclass(frozen=True)
    class Config:
        cameras: tuple[str, ...] | int = CAMERAS
        """Which it needs."""
        history: int = 1
        """Frames at each decision."""
        proprio: int | None = 3
        """Readings."""

    def __init__(self, config: Config, actions_SA: torch.Tensor, chunk_length: int = 2) -> None:
        super().__init__()
        self.config, self.chunk_length, self._actions_SA = config, chunk_length, actions_SA
        self.shown: list[Observation] = []

    @classmethod
    def needs(cls, config: Config) -> Needs:
        return Needs(config.cameras, config.history, config.proprio)

    def act(self, observation: Observation, *, temperature: float = 1.0, generator: Any = None) -> ActionChunk:
        first = len(self.shown) * self.chunk_length
        self.shown.append(observation)
        actions_LA = self._actions_SA[first : first + self.chunk_length]
        actions_BLA = actions_LA.expand(len(observation.instructions), -1, -1)
        return ActionChunk(actions_BLA, torch.zeros(*actions_BLA.shape[:2], 1))

    def evaluate(self, observation: Observation, chunk: ActionChunk, *, temperature: Any = 1.0) -> Evaluation:
        raise NotImplementedError
