"""The dataset `environment-tasks`: tasks of any environment, out of its seeds."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from collecting import AWAY, HERE, VIEW

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_dataset
from gymnast_core.types import EnvironmentStart
from gymnast_environment.families import place_of
from gymnast_environment.view import View

TABLETOP = {
    "id": "gymnast/Tabletop-v0",
    "name": "push",
    "args": {"image_size": 16},
    "first": 100_000,
    "count": 3,
}
REACH = {"id": HERE, "name": "reach", "seeds": [7, "20-22"], "options": {"corner": "top left"}}


def build(environments, **args):
    return registries().datasets.build("environment-tasks", {"environments": environments, **args})


def tasks(environments, **args):
    return build(environments, **args).tasks()


def test_a_task_is_what_the_environment_shows():
    found = tasks([TABLETOP], view={"instruction_key": "instruction"})
    table = gymnasium.make("gymnast_tabletop:gymnast/Tabletop-v0", image_size=16)
    assert [task.id for task in found] == ["push/100000", "push/100001", "push/100002"]
    for task, seed in zip(found, range(100_000, 100_003), strict=True):
        observation, _ = table.reset(seed=seed)
        np.testing.assert_array_equal(task.frames_TVHWC[0, 0].numpy(), observation["image"])
        assert task.instruction == observation["instruction"]
        told = View(instruction_key="instruction").told()
        size = {"image_size": 16}
        # Nobody told it what to do: its verdict is about its own instruction.
        goal = observation["instruction"]
        assert task.start == EnvironmentStart("gymnast/Tabletop-v0", seed, {}, size, told, instruction=goal)


def test_several_families_cameras_and_readings():
    found = tasks([REACH, {**REACH, "name": "again", "seeds": ["3-4"], "instruction": "come here"}], view=VIEW)
    assert [task.id for task in found] == ["reach/7", "reach/20", "reach/21", "reach/22", "again/3", "again/4"]
    assert [task.instruction for task in found[3:5]] == ["go to the top left", "come here"]
    assert found[0].cameras == ("front", "top") and found[0].frames_TVHWC.shape == (1, 2, 12, 12, 3)
    reach = gymnasium.make(HERE)
    reach.reset(seed=21)
    torch.testing.assert_close(found[2].proprio_TP, torch.tensor(reach.unwrapped.at[None], dtype=torch.float32))
    mixed = tasks([REACH, {**REACH, "name": "again", "seeds": ["3-4"]}], view=VIEW, order="interleaved")
    assert [task.id for task in mixed] == ["reach/7", "again/3", "reach/20", "again/4", "reach/21", "reach/22"]


@pytest.mark.parametrize("args", [{}, {"cache_mb": 0}, {"order": "interleaved"}])
def test_the_contract_is_kept(args):
    said = check_dataset(
        build([TABLETOP, {**TABLETOP, "name": "more"}], view={"instruction_key": "instruction"}, **args)
    )
    assert "tasks: 6 of them, 6 read, well formed" in said


def test_world_and_judge_start_from_the_same_seeds():
    found = tasks([REACH], view=VIEW)
    world = registries().world_models.build("gymnasium", {"view": VIEW})
    policy = registries().policies.build("follower")
    rollouts = imagine(policy, world, found, horizon=10, temperature=0.0, generator=torch.Generator())
    assert [rollout.outcome for rollout in rollouts] == [1.0] * 4
    judge = registries().reward_models.build("environment", {"always_replay": True, "view": VIEW})
    assert [reward.value for reward in judge.score(rollouts)] == [1.0] * 4
    world.close()
    judge.close()


def test_tasks_are_made_when_they_are_asked_for_and_in_workers_alike(monkeypatch):
    from gymnast_environment.environments import Environments

    asked, honest = [], Environments.reset
    monkeypatch.setattr(Environments, "reset", lambda self, starts: asked.extend(starts) or honest(self, starts))
    here = tasks([{**REACH, "seeds": ["0-99999999"]}], view=VIEW)
    assert len(here) == 100_000_000 and not asked
    away = tasks([{**REACH, "id": AWAY, "seeds": ["0-9"]}], view=VIEW, hosting={"max_environments": 2, "workers": 2})
    for one, other in zip(away[3:6], [here[i] for i in (3, 4, 5)], strict=True):
        assert torch.equal(one.frames_TVHWC, other.frames_TVHWC) and torch.equal(one.proprio_TP, other.proprio_TP)
    assert [start.seed for start in asked] == [3, 4, 5, 3, 4, 5]
    assert here[4] is here[4] and len(asked) == 6


def test_memory_for_first_frames_is_bounded():
    found = tasks([{**TABLETOP, "args": {"image_size": 64}, "count": 100}], view={"instruction_key": "instruction"},
                  cache_mb=0.1)  # fmt: skip
    for index in range(20):
        found[index]
    assert len(found._kept) == 8  # of 12 KiB each


def test_environments_are_closed_when_all_tasks_are_made():
    dataset = build([{**REACH, "id": AWAY, "seeds": ["0-2"]}], view=VIEW)
    found = dataset.tasks()
    found[0]
    assert dataset._environments._workers._idle or dataset._environments._workers._back
    found[:]
    assert not dataset._environments._workers._idle and not dataset._environments._workers._lent


@pytest.mark.parametrize(
    ("environments", "args", "message"),
    [
        ([], {}, "environments is empty"),
        ([TABLETOP], {}, r"nothing says what is to be done in push\. Set instruction: TEXT there, or.*instruction_key"),
        ([{**TABLETOP, "instruction": " "}], {}, "says nothing"),
        ([TABLETOP, TABLETOP], {"view": {"instruction_key": "instruction"}}, "2 of them are called 'push'"),
        ([{"id": HERE, "instruction": "go"}], {}, "'ReachHere-v0' has no seeds. Set count"),
        ([{**REACH, "count": 5}], {}, "has 4 seeds, fewer than its count 5"),
        ([{**REACH, "first": 3}], {}, "has seeds and first=3"),
        ([{**REACH, "seeds": [7, "5-9"]}], {}, "name a seed twice"),
        ([{**REACH, "seeds": ["9-5"]}], {}, "hold '9-5'"),
        ([{**REACH, "seeds": [-1]}], {}, "hold -1"),
        ([{**REACH, "seeds": [True]}], {}, "hold True"),
        ([{**REACH, "name": "a/b"}], {}, "give it a name"),
        ([{**REACH, "sed": 3}], {}, "sed"),
        ([{**TABLETOP, "count": 0}], {}, "at least 1"),
    ],
)
def test_a_mistake_is_one_clear_error(environments, args, message):
    given = {"view": {**VIEW, "instruction_key": None}, **args}
    if environments and environments[0].get("name") != "push":
        environments = [{"instruction": "go", **one} for one in environments]
    with pytest.raises(ConfigError, match=message):
        tasks(environments, **given)


def test_an_environment_that_says_nothing_is_an_error_of_its_task():
    with pytest.raises(DataError, match=r"gave no instruction under 'goal'.*view.instruction_key"):
        tasks([REACH], view={**VIEW, "instruction_key": "goal"})[0]


@pytest.mark.parametrize("counts", [[3], [2, 5, 1], [4, 4], [1, 1, 7]])
def test_interleaved_families_take_turns(counts):
    turns = [(family, number) for number in range(max(counts)) for family, count in enumerate(counts) if number < count]
    assert [place_of(counts, "interleaved", i) for i in range(sum(counts))] == turns
    assert [place_of(counts, "family", i) for i in range(sum(counts))] == sorted(turns)
