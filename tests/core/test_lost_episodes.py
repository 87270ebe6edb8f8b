"""A world that loses an episode, or takes few at once: what a rollout says of it, and that it survives a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from gymnast_core.errors import ContractError, DataError
from gymnast_core.interfaces import Policy, WorldModel
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.replay import Course, replay
from gymnast_core.rollouts.state import rollout_from_state, to_state
from gymnast_core.testing import check_world_model
from gymnast_core.testing.made_judged import StandInPolicy
from gymnast_core.testing.making import make_tasks
from gymnast_core.types import ActionChunk, Observation, Step, Task

SIZE = 8
HORIZON = 6


@dataclass
class State:
    """The steps behind it, and the world's count of states that are alive."""

    alive: list[int]
    batch: int
    steps: int = 0

    def __post_init__(self) -> None:
        self.alive.append(self.batch)

    def __del__(self) -> None:
        self.alive.remove(self.batch)


class Fragile(WorldModel):
    """Shows its count of steps; loses the episodes of the tasks named in `lost` at their second step."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, lost: Sequence[str] = (), most: int | None = None) -> None:
        self.config, self.device = self.Config(), torch.device("cpu")
        self.lost, self.most = lost, most
        self.batches: list[tuple[str, ...]] = []
        self.alive: list[int] = []
        self.alive_at_reset: list[int] = []

    def most_episodes(self, tasks: Sequence[Task]) -> int | None:
        return self.most

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
        self.alive_at_reset.append(sum(self.alive))
        self.batches.append(tuple(task.id for task in tasks))
        return State(self.alive, len(tasks))

    def step(self, state: State, actions_BLA: torch.Tensor) -> Step:
        state.steps += 1
        frames = torch.full((*actions_BLA.shape[:2], 1, SIZE, SIZE, 3), state.steps, dtype=torch.uint8)
        gone = [name in self.lost and state.steps >= 2 for name in self.batches[-1]]
        errors = tuple("the table collapsed" if lost else None for lost in gone) if any(gone) else None
        return Step(frames, outcome_BL=torch.ones(actions_BLA.shape[:2]), errors=errors)


class Still(Policy):
    """Does nothing, two actions at a time."""

    api_version = 2
    chunk_length, action_dim = 2, 7
    config = None

    def act(self, observation: Observation, *, temperature: float = 1.0, generator: Any = None) -> ActionChunk:
        batch = len(observation.instructions)
        return ActionChunk(torch.zeros(batch, 2, 7), torch.zeros(batch, 2, 7))

    def evaluate(self, observation: Any, chunk: Any, *, temperature: Any = 1.0) -> Any:
        raise NotImplementedError


def roll_out(world: Fragile, count: int = 5) -> list[Any]:
    tasks = [replace(task, id=str(i)) for i, task in enumerate(make_tasks(count, SIZE))]
    generator = torch.Generator().manual_seed(0)
    return imagine(Still(), world, tasks, horizon=HORIZON, temperature=1.0, generator=generator)


def test_the_rollout_says_what_went_wrong() -> None:
    rollouts = roll_out(Fragile(lost=["1", "3"]))
    assert [rollout.error for rollout in rollouts] == [None, "the table collapsed", None, "the table collapsed", None]
    assert [rollout.outcome for rollout in rollouts] == [1.0, None, 1.0, None, 1.0]
    assert all(rollout.frames_TVHWC.shape[0] == HORIZON + 1 for rollout in rollouts)
    assert [rollout.error for rollout in roll_out(Fragile())] == [None] * 5


@pytest.mark.parametrize("most", [1, 2, 5, 9])
def test_no_more_episodes_at_once_than_the_world_takes(most: int) -> None:
    world = Fragile(most=most)
    rollouts = roll_out(world)
    assert [rollout.task.id for rollout in rollouts] == ["0", "1", "2", "3", "4"]
    assert [rollout.group for rollout in rollouts] == [0, 1, 2, 3, 4]
    assert [name for batch in world.batches for name in batch] == ["0", "1", "2", "3", "4"]
    assert max(map(len, world.batches)) == min(most, 5)
    assert set(world.alive_at_reset) == {0}, "the last batch's state is gone before the next one begins"


def test_a_snapshot_keeps_it() -> None:
    lost, sound = roll_out(Fragile(lost=["0"]), 2)
    assert rollout_from_state(to_state(lost)).error == "the table collapsed"
    assert rollout_from_state(to_state(sound)).error is None
    earlier = {name: value for name, value in to_state(sound).items() if name != "error"}
    assert rollout_from_state(earlier).error is None, "a snapshot of the time before there were errors"


@pytest.mark.parametrize("most", [None, 1, 2, 3])
def test_the_contract_s_check_heeds_how_many_there_may_be(most: int | None) -> None:
    class Strict(Fragile):
        """Refuses more episodes than it takes, and actions of another width."""

        def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> State:
            assert most is None or sum(self.alive) + len(tasks) <= most
            return super().reset(tasks, generator=generator)

        def step(self, state: State, actions_BLA: torch.Tensor) -> Step:
            if actions_BLA.shape[2] != 7:
                raise DataError("seven")
            return super().step(state, actions_BLA)

    verified = check_world_model(Strict(most=most), tasks=make_tasks(4, SIZE), action_dim=7)
    assert ("states alive at once are independent" in verified) == (most != 1)


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (("oh", None), "to lose none of the episodes; got oh"),
        ((None,), "errors of 2 texts or None"),
        ([None, None], "errors of 2 texts or None"),
        ((None, 3), "errors of 2 texts or None"),
    ],
)
def test_the_contract_s_check_reads_errors(errors: Any, message: str) -> None:
    class Odd(Fragile):
        """Says something else."""

        def step(self, state: State, actions_BLA: torch.Tensor) -> Step:
            return replace(super().step(state, actions_BLA), errors=errors)

    with pytest.raises(ContractError, match=message):
        check_world_model(Odd(), tasks=make_tasks(2, SIZE), action_dim=7)


@pytest.mark.parametrize("most", [0, -1, "4", 2.0, True])
def test_a_run_reads_how_many_there_may_be(most: Any) -> None:
    said = rf"^Fragile\.most_episodes returned {most!r}; it returns a whole number from 1, or None"
    policy, tasks = StandInPolicy(), make_tasks(2, SIZE)
    with pytest.raises(ContractError, match=said):
        imagine(policy, Fragile(most=most), tasks, horizon=HORIZON, temperature=1.0, generator=torch.Generator())
    course = Course(tasks[0], (torch.zeros(2, 7),), torch.Generator())
    with pytest.raises(ContractError, match=said):
        replay(Fragile(most=most), [course])


def test_the_contract_s_check_reads_how_many_there_may_be() -> None:
    with pytest.raises(ContractError, match="most_episodes: expected one episode or more, or None"):
        check_world_model(Fragile(most=0), tasks=make_tasks(2, SIZE), action_dim=7)
