"""The contract of world models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.frames import Undecoded
from gymnast_core.interfaces import Parts, WorldModel
from gymnast_core.rollouts.side_by_side import side_by_side
from gymnast_core.rollouts.sight import find_sight
from gymnast_core.testing.component import can_save, check_component, check_state, reloaded
from gymnast_core.testing.contract import Contract, instance, raises, size_of, tensors_in
from gymnast_core.testing.making import make_tasks, seeded, uniform
from gymnast_core.testing.trainable import check_trainable, make_episodes
from gymnast_core.types import Needs, Offers, Step, Task

ROUNDING = 2
"""Levels of 255 by which one and the same frame may differ between batches: sums are rounded in another order."""
READING_ROUNDING = 1e-3
"""The same for a reading, as a share of the largest one, and for an outcome."""
LOSS_ROUNDING = 1e-2
"""The same for a training loss and its gradients, as a share, of networks that compute in bfloat16."""
CHUNKS = (1, 3, 2)
"""Actions of each step."""
THREADED = (3, 4, 5, 6)
"""Seeds of the episodes that two threads imagine."""


def check_world_model(
    world_model: WorldModel | Callable[[], WorldModel],
    *,
    tasks: Sequence[Task] | None = None,
    action_dim: int | None = None,
    image_size: int | None = None,
    reload: Callable[[Path], WorldModel] | None = None,
) -> list[str]:
    """Check `offers`, `reset`, `step`, `state_dict` and, where they exist, `training_loss` and `save`.

    Sizes default to what it offers, its own or its `config`'s, or 7 and 64. `reload` builds the world model from a
    saved folder; by default its `Config` is given `checkpoint=FOLDER`. Raises `ConfigError` if the given tasks do not
    show the cameras that the world model offers.
    """
    world = instance(world_model)
    contract = Contract(world, WorldModel)
    offers = _offers(contract, world)
    size = image_size or size_of(world, "image_size", 64)
    tasks = list(tasks or make_tasks(2, size, cameras=offers.cameras, proprio_dim=offers.proprio))
    tasks = tasks[: _most(contract, world, tasks)]
    trial = _Trial(contract, world, offers, tasks, action_dim or offers.actions or size_of(world, "action_dim", 7))
    device = getattr(world, "device", None)
    contract.expect(isinstance(device, torch.device), "device", "a torch.device", repr(device))
    world.attach(Parts(world_model=world, tasks=tasks))
    first = _check_randomness(trial)
    _check_neighbours(trial, first)
    _check_noise_apart(trial)
    _check_starts(trial)
    _check_state(trial, first)
    episodes = make_episodes(Needs(trial.cameras, proprio=offers.proprio), trial.width, sum(CHUNKS), size)
    check_trainable(contract, world, episodes, tolerance=LOSS_ROUNDING, given=False)
    if can_save(world):
        _check_save(trial, first, reload)
    check_component(contract, world, with_state=False)
    return contract.verified


def _most(contract: Contract, world: WorldModel, tasks: Sequence[Task]) -> int:
    """How many episodes each of two states may have that are alive at once."""
    with contract.working("most_episodes", "the most episodes that it takes, or None"):
        most = world.most_episodes(tasks)
    fits = most is None or (isinstance(most, int) and most >= 1)
    contract.expect(fits, "most_episodes", "one episode or more, or None", repr(most))
    return len(tasks) if most is None else max(most // 2, 1)


def _offers(contract: Contract, world: WorldModel) -> Offers:
    with contract.working("offers", "what it shows, from its config alone"):
        offers = type(world).offers(world.config)
    contract.expect(isinstance(offers, Offers), "offers", "an Offers", repr(offers))
    cameras = offers.cameras
    fits = cameras >= 1 if isinstance(cameras, int) else 0 < len(set(cameras)) == len(cameras)
    contract.expect(fits, "offers", "one camera or more, by number or by different names", repr(cameras))
    fits = offers.proprio is None or offers.proprio >= 1
    contract.expect(fits, "offers", "one reading or more, or None", offers.proprio)
    return offers


@dataclass(frozen=True)
class _Seen:
    """All that a world showed in a trial, on the CPU."""

    frames_BSVHWC: Tensor
    proprio_BSP: Tensor | None
    outcome_BS: Tensor | None

    def rows(self, rows: slice | list[int]) -> _Seen:
        proprio = None if self.proprio_BSP is None else self.proprio_BSP[rows]
        return _Seen(self.frames_BSVHWC[rows], proprio, None if self.outcome_BS is None else self.outcome_BS[rows])

    def equals(self, other: _Seen) -> bool:
        """Bit for bit."""
        mine, others = tensors_in(self), tensors_in(other)
        return len(mine) == len(others) and all(map(_identical, mine, others))

    def resembles(self, other: _Seen) -> bool:
        """Within rounding."""
        levels = (self.frames_BSVHWC.int() - other.frames_BSVHWC.int()).abs().max()
        mine, others = tensors_in(self)[1:], tensors_in(other)[1:]
        return int(levels) <= ROUNDING and len(mine) == len(others) and all(map(_close, mine, others))


class _Trial:
    """Episodes of one world model; all that each step returns is checked."""

    def __init__(self, contract: Contract, world: WorldModel, offers: Offers, tasks: list[Task], width: int) -> None:
        self.contract, self.world, self.offers, self.tasks, self.width = contract, world, offers, tasks, width
        count = offers.cameras if isinstance(offers.cameras, int) else len(offers.cameras)
        self.cameras = find_sight(Needs(count), offers, tasks[0]).cameras
        self.actions_BLA = uniform((len(tasks), sum(CHUNKS), width), seed=1) * 0.1

    def run(
        self,
        tasks: Sequence[Task],
        actions_BLA: Tensor,
        *,
        seed: int = 3,
        state: Any = None,
        world: WorldModel | None = None,
    ) -> _Seen:
        """What is shown after chunks of 1, 3 and 2 actions."""
        world = world or self.world
        state = world.reset(tasks, generator=seeded(seed)) if state is None else state
        steps, copies = [], []
        unmade: list[tuple[Undecoded, Tensor]] = []
        for chunk_BLA in actions_BLA.split(CHUNKS, dim=1):
            step = world.step(state, chunk_BLA)
            if isinstance(step, Step) and step.undecoded is not None:
                unmade.append((step.undecoded, step.undecoded.at([-1])[:, 0]))
            self.expect_step(step, tasks, chunk_BLA.shape[1], world)
            steps.append(step)
            copies.append([tensor.clone() for tensor in tensors_in(step)])
        for later, last_BVHWC in unmade:
            self._expect_again(later, last_BVHWC)
        for step, copied in zip(steps, copies, strict=True):
            aliased = not all(map(_identical, tensors_in(step), copied))
            self.contract.expect(not aliased, "step", "returned frames to stay as they are", "changes by a later step")
        return _Seen(
            torch.cat([step.frames_BLVHWC for step in steps], dim=1).cpu(),
            self._joined("proprio_BLP", [step.proprio_BLP for step in steps]),
            self._joined("outcome_BL", [step.outcome_BL for step in steps]),
        )

    def _expect_again(self, later: Undecoded, last_BVHWC: Tensor) -> None:
        """Frames that are made when somebody looks are the same after more steps, and beside others."""
        levels = int((later.all()[:, -1].int() - last_BVHWC.int()).abs().max())
        found = f"a difference of {levels} levels"
        self.contract.expect(
            levels <= ROUNDING, "step", "undecoded frames to be the same whenever they are made", found
        )

    def expect_step(self, step: Any, tasks: Sequence[Task], length: int, world: WorldModel) -> None:
        """Shapes, dtypes and ranges of one step, and that it shows what `offers` says."""
        contract, batch = self.contract, len(tasks)
        contract.expect(isinstance(step, Step), "step", "a Step of gymnast_core.types", type(step).__name__)
        for tensor in tensors_in(step):
            near = tensor.device.type in ("cpu", world.device.type)
            contract.expect(near, "step", f"frames on its device ({world.device}) or the CPU", tensor.device)
        height_width = tuple(tasks[0].frames_TVHWC.shape[2:4])
        shape = (batch, length, len(self.cameras), *height_width, 3)
        after = f"after {length} actions"
        contract.tensor(step.frames_BLVHWC, "step", f"the frames {after}", shape, torch.uint8)
        readings = self.offers.proprio
        if readings is None:
            none = step.proprio_BLP is None
            contract.expect(none, "offers", "the number of readings that step shows, not None", step.proprio_BLP)
        else:
            shape = (batch, length, readings)
            contract.tensor(step.proprio_BLP, "step", f"the readings that it offers, {after},", shape, torch.float32)
        if step.errors is not None:
            texts = isinstance(step.errors, tuple) and all(isinstance(e, str | None) for e in step.errors)
            fits = texts and len(step.errors) == batch
            contract.expect(fits, "step", f"errors of {batch} texts or None, or no errors at all", repr(step.errors))
            lost = next((error for error in step.errors if error), None)
            contract.expect(lost is None, "step", "to lose none of the episodes", lost)
        if step.ended_BL is not None:
            ended_BL = step.ended_BL
            contract.tensor(ended_BL, "step", f"ended_BL {after}", (batch, length), torch.bool)
            stays = bool((ended_BL[:, 1:] >= ended_BL[:, :-1]).all())
            contract.expect(stays, "step", "an episode that has ended to stay so", ended_BL.tolist())
        if step.outcome_BL is not None:
            known_BL = torch.nan_to_num(step.outcome_BL, nan=0.0)
            contract.tensor(known_BL, "step", f"outcome_BL {after}", (batch, length), torch.float32)
            valid = bool(((known_BL >= 0) & (known_BL <= 1)).all())
            contract.expect(valid, "step", f"outcome_BL of {batch} numbers in [0, 1], or NaN", step.outcome_BL.tolist())

    def _joined(self, name: str, pieces: Sequence[Tensor | None]) -> Tensor | None:
        known = [piece for piece in pieces if piece is not None]
        same = len(known) in (0, len(pieces))
        self.contract.expect(same, "step", f"{name} after every step, or after none", "some steps without it")
        return torch.cat(known, dim=1).cpu() if known else None


def _check_randomness(trial: _Trial) -> _Seen:
    """Check one batch of episodes and return what it showed."""
    contract, world, tasks, actions_BLA = trial.contract, trial.world, trial.tasks, trial.actions_BLA
    with contract.untouched("step", tasks=tasks, actions_BLA=actions_BLA):
        first = trial.run(tasks, actions_BLA)
    contract.verified += ["frames are uint8 (B, L, V, H, W, 3) for any chunk length", "inputs are not modified"]
    readings = "no proprioception" if trial.offers.proprio is None else f"{trial.offers.proprio} readings"
    contract.verified.append(f"step shows what offers says: {', '.join(trial.cameras)}; {readings}")
    if first.outcome_BS is not None:
        contract.verified.append("outcomes are numbers in [0, 1], or NaN, after every action")
    same = first.equals(trial.run(tasks, actions_BLA))
    contract.expect(same, "reset", "the same frames from the same seed", "different frames")
    contract.verified.append("the same generator seed gives the same frames")
    if first.equals(trial.run(tasks, -3.0 * actions_BLA - 0.05)):
        contract.verified.append("not shown: that actions matter, since other actions showed the very same")
    else:
        contract.verified.append("other actions show something else")
    if bool((first.frames_BSVHWC == first.frames_BSVHWC.flatten()[0]).all()):
        contract.verified.append("not shown: any picture, since all frames are of one colour")
    if (world.most_episodes(tasks) or 2 * len(tasks)) >= 2 * len(tasks):
        _check_two_states(trial, first)
        _check_threads(trial)
    with raises(contract, "step", f"a DataError for actions of width {trial.width + 1}, not {trial.width}"):
        world.step(world.reset(tasks, generator=seeded(3)), torch.zeros(len(tasks), 1, trial.width + 1))
    contract.verified.append("actions of the wrong width are a DataError")
    return first


def _check_two_states(trial: _Trial, first: _Seen) -> None:
    contract, world, tasks = trial.contract, trial.world, trial.tasks
    state, other = (world.reset(tasks, generator=seeded(seed)) for seed in (3, 4))
    world.step(other, -trial.actions_BLA)
    same = first.equals(trial.run(tasks, trial.actions_BLA, state=state))
    contract.expect(same, "reset", "states that do not influence each other", "others beside a second state")
    contract.verified.append("states alive at once are independent")


def _check_threads(trial: _Trial) -> None:
    """Of a world that says it is `concurrent`: two states in two threads show what each shows alone."""
    contract, world = trial.contract, trial.world
    contract.expect(isinstance(world.concurrent, bool), "concurrent", "True or False", repr(world.concurrent))
    if not world.concurrent:
        return
    alone = [trial.run(trial.tasks, trial.actions_BLA, seed=seed) for seed in THREADED]
    with contract.working("concurrent", "episodes in two threads at once"):
        beside = list(side_by_side(lambda seed, _: _steps(trial, seed), THREADED, 2))
    same = all(one.resembles(other) for one, other in zip(beside, alone, strict=True))
    contract.expect(same, "concurrent", "in two threads at once what each shows alone", "other frames")
    contract.verified.append("two threads may imagine at once")


def _steps(trial: _Trial, seed: int) -> _Seen:
    """As `_Trial.run`, without its expectations."""
    state = trial.world.reset(trial.tasks, generator=seeded(seed))
    steps = [trial.world.step(state, chunk_BLA) for chunk_BLA in trial.actions_BLA.split(CHUNKS, dim=1)]
    shown = [[step.frames_BLVHWC, step.proprio_BLP, step.outcome_BL] for step in steps]
    frames, *readings = zip(*shown, strict=True)
    joined = (None if part[0] is None else torch.cat(part, dim=1).cpu() for part in readings)
    return _Seen(torch.cat(frames, dim=1).cpu(), *joined)


def _check_neighbours(trial: _Trial, first: _Seen) -> None:
    contract, tasks, actions_BLA = trial.contract, trial.tasks, trial.actions_BLA
    others_BLA = torch.cat([actions_BLA[:1], -actions_BLA[1:]])
    others = [tasks[0], *(replace(task, frames_TVHWC=255 - task.frames_TVHWC) for task in tasks[1:])]
    try:
        beside = trial.run(others, others_BLA)
    except DataError:  # a world that knows its tasks: they do other things only
        beside = trial.run(tasks, others_BLA)
    wanted = "an episode's frames not to depend on its neighbours"
    same = beside.rows(slice(1)).resembles(first.rows(slice(1)))
    contract.expect(same, "reset", wanted, "other frames beside other tasks and actions")
    contract.verified.append("an episode does not depend on its neighbours")
    if first.equals(trial.run(tasks, actions_BLA, seed=4)):  # no noise, which belongs to places in the batch
        backwards = trial.run(tasks[::-1], actions_BLA.flip(0)).rows(list(range(len(tasks)))[::-1])
        contract.expect(backwards.resembles(first), "reset", "the same frames in any batch order", "others in reverse")
        alone = trial.run(tasks[:1], actions_BLA[:1])
        contract.expect(alone.resembles(first.rows(slice(1))), "reset", wanted, "other frames alone")
        contract.verified.append("the order of the batch does not matter")


def _check_noise_apart(trial: _Trial) -> None:
    """Of a world that draws its noise row by row: an episode is in any batch what it is alone."""
    contract, world, count = trial.contract, trial.world, len(trial.tasks)
    if not world.takes_several_apart:
        return

    def run(rows: list[int]) -> _Seen:
        tasks = [trial.tasks[row] for row in rows]
        with contract.working("reset_apart", "a state of episodes with noise of their own", DataError):
            state = world.reset_apart(tasks, generators=[seeded(20 + row) for row in rows])
        return trial.run(tasks, trial.actions_BLA[rows], state=state)

    every = list(range(count))
    first = run(every)
    wanted = "the frames that an episode has alone, from its own generator"
    contract.expect(run(every[::-1]).rows(every[::-1]).resembles(first), "reset_apart", wanted, "others in reverse")
    for row in every:
        alone = run([row])
        contract.expect(alone.resembles(first.rows([row])), "reset_apart", wanted, f"others beside {count - 1} more")
    contract.verified.append("episodes with noise of their own are what they are alone")


def _check_starts(trial: _Trial) -> None:
    """One episode, several context frames, no generator, and frames that may not fit."""
    contract, world, tasks = trial.contract, trial.world, trial.tasks
    trial.run(tasks[:1], trial.actions_BLA[:1])
    with contract.working("reset", "to start without a generator"):
        world.step(world.reset(tasks), trial.actions_BLA)
    moves_TA = uniform((2, trial.width), seed=11) * 0.1
    held = [_held(task, moves_TA) for task in tasks]
    padded = [replace(task, frames_TVHWC=torch.nn.functional.pad(task.frames_TVHWC, (0, 0, 0, 3))) for task in tasks]
    for what, starts in (("three context frames", held), ("frames three pixels wider", padded)):
        with contract.working("reset", f"frames, or a DataError, for {what}"):
            try:
                with contract.untouched("reset", tasks=starts):
                    state = world.reset(starts, generator=seeded(3))
                found = world.step(state, trial.actions_BLA)
                del state  # before the next one begins
            except DataError:
                continue
            frames = found.frames_BLVHWC
            contract.tensor(frames, "step", f"frames after {what}", frames.shape, torch.uint8)
            contract.expect(frames.ndim == 6, "step", f"frames (B, L, V, H, W, C) after {what}", tuple(frames.shape))
            contract.verified.append(f"{what} are accepted")


def _held(task: Task, moves_TA: Tensor) -> Task:
    """The task with its last context frame three times."""
    proprio_TP = None if task.proprio_TP is None else task.proprio_TP[-1:].expand(3, -1)
    frames_TVHWC = task.frames_TVHWC[-1:].expand(3, -1, -1, -1, -1)
    return replace(task, frames_TVHWC=frames_TVHWC, proprio_TP=proprio_TP, actions_TA=moves_TA)


def _check_state(trial: _Trial, first: _Seen) -> None:
    """What `state_dict` returns goes through a snapshot and back, and changes nothing."""
    contract = trial.contract
    check_state(contract, trial.world)
    same = first.equals(trial.run(trial.tasks, trial.actions_BLA))
    contract.expect(same, "load_state_dict", "the same frames as before", "different frames")


def _check_save(trial: _Trial, first: _Seen, reload: Callable[[Path], WorldModel] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trial.world.save(Path(folder))
        again = reloaded(trial.contract, trial.world, Path(folder), reload)
        if again is None:
            return
        found = trial.run(trial.tasks, trial.actions_BLA, world=again)
        again.close()
    same = found.equals(first)
    trial.contract.expect(same, "save", "the same world model when loaded", "another one, by its frames")
    trial.contract.verified.append("a saved world model loads as the same world model")


def _identical(first: Tensor, second: Tensor) -> bool:
    """Bit for bit; NaN equals NaN."""
    return bool(torch.equal(first.nan_to_num(), second.nan_to_num()) and torch.equal(first.isnan(), second.isnan()))


def _close(first: Tensor, second: Tensor) -> bool:
    scale = float(second.nan_to_num().abs().max().clamp(min=1.0))
    return torch.allclose(first, second, rtol=0.0, atol=READING_ROUNDING * scale, equal_nan=True)
