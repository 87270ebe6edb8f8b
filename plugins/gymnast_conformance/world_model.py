"""The contract of world models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gymnast_conformance.contract import Contract, instance, raises, size_of
from gymnast_conformance.making import make_tasks, seeded, uniform
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Task


def check_world_model(
    world_model: WorldModel | Callable[[], WorldModel],
    *,
    tasks: Sequence[Task] | None = None,
    action_dim: int | None = None,
    image_size: int | None = None,
) -> list[str]:
    """Check `reset`, `step`, `outcomes`. Sizes default to its own or its `config`'s, or 7 and 64."""
    world = instance(world_model)
    contract = Contract(world, WorldModel)
    size = image_size or size_of(world, "image_size", 64)
    tasks = list(tasks or make_tasks(2, size))
    width = action_dim or size_of(world, "action_dim", 7)
    actions_BLA = uniform((len(tasks), 6, width), seed=1) * 0.1
    height_width = tuple(tasks[0].frames_THWC.shape[1:3])

    def episode(seed: int, state: Any = None) -> Tensor:
        state = world.reset(tasks, generator=seeded(seed)) if state is None else state
        chunks = []
        for chunk in actions_BLA.split([1, 3, 2], dim=1):
            frames = world.step(state, chunk)
            shape = (len(tasks), chunk.shape[1], *height_width, 3)
            contract.tensor(frames, "step", f"the frames after {chunk.shape[1]} actions", shape, torch.uint8)
            chunks.append((frames, frames.clone()))
        aliased = any(not torch.equal(frames, copy) for frames, copy in chunks)
        contract.expect(not aliased, "step", "returned frames to stay as they are", "changes by a later step")
        outcomes = list(world.outcomes(state))
        valid = all(value is None or 0.0 <= value <= 1.0 for value in outcomes)
        count = len(outcomes) == len(tasks)
        contract.expect(valid and count, "outcomes", f"{len(tasks)} numbers in [0, 1] or None", outcomes)
        return torch.cat([frames for frames, _ in chunks], dim=1)

    contract.expect(hasattr(world, "device"), "device", "a torch.device", "no such attribute")
    with contract.untouched("step", tasks=tasks, actions_BLA=actions_BLA):
        first = episode(seed=3)
    contract.verified += ["frames are uint8 (B, L, H, W, 3) for any chunk length", "inputs are not modified"]
    same = torch.equal(first, episode(seed=3))
    contract.expect(same, "reset", "the same frames from the same seed", "different frames")
    contract.verified.append("the same generator seed gives the same frames")
    state, other = world.reset(tasks, generator=seeded(3)), world.reset(tasks, generator=seeded(4))
    world.step(other, -actions_BLA)
    same = torch.equal(first, episode(seed=3, state=state))
    contract.expect(same, "reset", "states that do not influence each other", "others beside a second state")
    contract.verified.append("states alive at once are independent")
    with raises(contract, "step", f"a DataError for actions of width {width + 1}, not {width}"):
        world.step(world.reset(tasks, generator=seeded(3)), torch.zeros(len(tasks), 1, width + 1))
    contract.verified.append("actions of the wrong width are a DataError")
    return contract.verified
