"""An environment that costs what it is told to, for benchmarks/environment_workers.py: NumPy and Gymnasium alone."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np


class Costly(gymnasium.Env):
    """Computes for `cpu_ms` milliseconds a step and holds `memory_mb` megabytes."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, *, cpu_ms: float = 20.0, memory_mb: int = 100, size: int = 64) -> None:
        self.cpu_s, self.size = cpu_ms / 1000, size
        self.held = np.random.default_rng(0).integers(0, 256, memory_mb * 2**20, dtype=np.uint8)
        picture = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict({"image": picture})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        return self._observe(), 0.0, False, False, {"success": False}

    def _observe(self) -> dict[str, np.ndarray]:
        end = time.process_time() + self.cpu_s
        while time.process_time() < end:
            pass
        return {"image": self.np_random.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)}


gymnasium.register("gymnast-benchmark/Costly-v0", entry_point=Costly)
