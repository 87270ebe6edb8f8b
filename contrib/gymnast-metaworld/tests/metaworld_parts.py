"""What the tests share: episodes reduced to what must be the same again."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import gymnasium
import numpy as np

ID = "gymnast_metaworld:MetaWorld-v0"


def make(task: str = "door-open", **args: Any) -> gymnasium.Env:
    return gymnasium.make(ID, task=task, **args)


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


def episode(environment: gymnasium.Env, seed: int, steps: int) -> list[Any]:
    """Fingerprints of the first and last observation of an expert's episode, and when it first succeeded."""
    seen, info = environment.reset(seed=seed)
    marks: list[Any] = [digest(seen["image"], seen["wrist_image"], seen["proprio"])]
    first = None
    for step in range(steps):
        seen, _, _, _, info = environment.step(environment.unwrapped.expert_action())
        if info["success_any"] and first is None:
            first = step
    return [*marks, digest(seen["image"], seen["wrist_image"], seen["proprio"]), first]


def main() -> None:
    """`python metaworld_parts.py '{"task": [seeds]}' STEPS` prints each episode's fingerprints as JSON."""
    wanted, steps = json.loads(sys.argv[1]), int(sys.argv[2])
    found = {}
    for task, seeds in wanted.items():
        environment = make(task, wrist=True)
        found[task] = [episode(environment, seed, steps) for seed in seeds]
        environment.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
