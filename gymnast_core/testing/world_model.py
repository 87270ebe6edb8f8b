"""The contract of world models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.testing.component import can_save, check_component, reloaded
from gymnast_core.testing.contract import Contract, instance, raises, size_of
from gymnast_core.testing.making import make_tasks, seeded, uniform
from gymnast_core.types import Task

ROUNDING = 2
"""Levels of 255 by which one and the same frame may differ between batches: sums are rounded in another order."""


def check_world_model(
    world_model: WorldModel | Callable[[], WorldModel],
    *,
    tasks: Sequence[Task] | None = None,
    action_dim: int | None = None,
    image_size: int | None = None,
    reload: Callable[[Path], WorldModel] | None = None,
) -> list[str]:
    """Check `reset`, `step`, `outcomes` and, where it exists, `save`.

    Sizes default to its own or its `config`'s, or 7 and 64. `reload` builds the world model from a saved folder; by
    default its `Config` is given `checkpoint=FOLDER`.
    """
    world = instance(world_model)
    contract = Contract(world, WorldModel)
    size = image_size or size_of(world, "image_size", 64)
    tasks = list(tasks or make_tasks(2, size))
    trial = _Trial(contract, world, tasks, action_dim or size_of(world, "action_dim", 7))
    device = getattr(world, "device", None)
    contract.expect(isinstance(device, torch.device), "device", "a torch.device", repr(device))
    _check_neighbours(trial, _check_randomness(trial))
    _check_starts(trial)
    if can_save(world):
        _check_save(trial, reload)
    check_component(contract, world)
    return contract.verified


class _Trial:
    """Episodes of one world model, each frame of which is checked for shape and dtype."""

    def __init__(self, contract: Contract, world: WorldModel, tasks: list[Task], width: int) -> None:
        self.contract, self.world, self.tasks, self.width = contract, world, tasks, width
        self.actions_BLA = uniform((len(tasks), 6, width), seed=1) * 0.1

    def run(
        self,
        tasks: Sequence[Task],
        actions_BLA: Tensor,
        *,
        seed: int = 3,
        state: Any = None,
        world: WorldModel | None = None,
    ) -> Tensor:
        """The frames of chunks of 1, 3 and 2 actions, (B, 6, H, W, 3) on the CPU."""
        world, contract = world or self.world, self.contract
        state = world.reset(tasks, generator=seeded(seed)) if state is None else state
        height_width = tuple(tasks[0].frames_THWC.shape[1:3])
        chunks = []
        for chunk in actions_BLA.split([1, 3, 2], dim=1):
            frames = world.step(state, chunk)
            near = isinstance(frames, Tensor) and frames.device.type in ("cpu", world.device.type)
            contract.expect(near, "step", f"frames on its device ({world.device}) or the CPU", frames)
            shape = (len(tasks), chunk.shape[1], *height_width, 3)
            contract.tensor(frames, "step", f"the frames after {chunk.shape[1]} actions", shape, torch.uint8)
            chunks.append((frames, frames.clone()))
        aliased = any(not torch.equal(frames, copy) for frames, copy in chunks)
        contract.expect(not aliased, "step", "returned frames to stay as they are", "changes by a later step")
        outcomes = list(world.outcomes(state))
        valid = all(value is None or 0.0 <= value <= 1.0 for value in outcomes)
        count = len(outcomes) == len(tasks)
        contract.expect(valid and count, "outcomes", f"{len(tasks)} numbers in [0, 1] or None", outcomes)
        return torch.cat([frames for frames, _ in chunks], dim=1).cpu()


def _check_randomness(trial: _Trial) -> Tensor:
    """Check one batch of episodes and return its frames."""
    contract, world, tasks, actions_BLA = trial.contract, trial.world, trial.tasks, trial.actions_BLA
    with contract.untouched("step", tasks=tasks, actions_BLA=actions_BLA):
        first = trial.run(tasks, actions_BLA)
    contract.verified += ["frames are uint8 (B, L, H, W, 3) for any chunk length", "inputs are not modified"]
    same = torch.equal(first, trial.run(tasks, actions_BLA))
    contract.expect(same, "reset", "the same frames from the same seed", "different frames")
    contract.verified.append("the same generator seed gives the same frames")
    state, other = (world.reset(tasks, generator=seeded(seed)) for seed in (3, 4))
    world.step(other, -actions_BLA)
    same = torch.equal(first, trial.run(tasks, actions_BLA, state=state))
    contract.expect(same, "reset", "states that do not influence each other", "others beside a second state")
    contract.verified.append("states alive at once are independent")
    with raises(contract, "step", f"a DataError for actions of width {trial.width + 1}, not {trial.width}"):
        world.step(world.reset(tasks, generator=seeded(3)), torch.zeros(len(tasks), 1, trial.width + 1))
    contract.verified.append("actions of the wrong width are a DataError")
    return first


def _check_neighbours(trial: _Trial, first: Tensor) -> None:
    contract, tasks, actions_BLA = trial.contract, trial.tasks, trial.actions_BLA

    def same(frames_BTHWC: Tensor, expected_BTHWC: Tensor) -> bool:
        return int((frames_BTHWC.int() - expected_BTHWC.int()).abs().max()) <= ROUNDING

    others_BLA = torch.cat([actions_BLA[:1], -actions_BLA[1:]])
    others = [tasks[0], *(replace(task, frames_THWC=255 - task.frames_THWC) for task in tasks[1:])]
    try:
        beside = trial.run(others, others_BLA)
    except DataError:  # a world that knows its tasks: they do other things only
        beside = trial.run(tasks, others_BLA)
    wanted = "an episode's frames not to depend on its neighbours"
    contract.expect(same(beside[:1], first[:1]), "reset", wanted, "other frames beside other tasks and actions")
    contract.verified.append("an episode does not depend on its neighbours")
    if torch.equal(first, trial.run(tasks, actions_BLA, seed=4)):  # no noise, which belongs to places in the batch
        backwards = trial.run(tasks[::-1], actions_BLA.flip(0)).flip(0)
        contract.expect(same(backwards, first), "reset", "the same frames in any batch order", "others in reverse")
        contract.verified.append("the order of the batch does not matter")


def _check_starts(trial: _Trial) -> None:
    """One episode, several context frames, no generator, and frames that may not fit."""
    contract, world, tasks = trial.contract, trial.world, trial.tasks
    trial.run(tasks[:1], trial.actions_BLA[:1])
    with contract.working("reset", "to start without a generator"):
        world.step(world.reset(tasks), trial.actions_BLA)
    moves_TA = uniform((2, trial.width), seed=11) * 0.1
    held = [
        replace(task, frames_THWC=task.frames_THWC[-1:].expand(3, -1, -1, -1), actions_TA=moves_TA) for task in tasks
    ]
    padded = [replace(task, frames_THWC=torch.nn.functional.pad(task.frames_THWC, (0, 0, 0, 3))) for task in tasks]
    for what, starts in (("three context frames", held), ("frames three pixels wider", padded)):
        with contract.working("reset", f"frames, or a DataError, for {what}"):
            try:
                with contract.untouched("reset", tasks=starts):
                    state = world.reset(starts, generator=seeded(3))
                found = world.step(state, trial.actions_BLA)
            except DataError:
                continue
            contract.tensor(found, "step", f"frames after {what}", found.shape, torch.uint8)
            contract.expect(found.ndim == 5, "step", f"frames (B, L, H, W, C) after {what}", tuple(found.shape))
            contract.verified.append(f"{what} are accepted")


def _check_save(trial: _Trial, reload: Callable[[Path], WorldModel] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trial.world.save(Path(folder))
        again = reloaded(trial.contract, trial.world, Path(folder), reload)
        if again is None:
            return
        found = trial.run(trial.tasks, trial.actions_BLA, world=again)
    same = torch.equal(found, trial.run(trial.tasks, trial.actions_BLA))
    trial.contract.expect(same, "save", "the same world model when loaded", "another one, by its frames")
    trial.contract.verified.append("a saved world model loads as the same world model")
