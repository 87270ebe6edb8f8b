"""A simulator judges by the instruction that it knows; of others it says something only where it is told, or tells."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from slider_environment import make_rollout, make_task

from gymnast_core.types import EnvironmentStart, Rollout, Task
from gymnast_environment.families import Family
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.tasks import EnvironmentTasks
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld

TABLETOP = "gymnast/Tabletop-v0"
TELLS = View(instruction_key="instruction", outcomes_key="outcomes")
SILENT = View(instruction_key="instruction")


def tasks(view: View, **family: object) -> list[Task]:
    """Tabletop tasks that came from seeds alone, as those of any simulator do."""
    found = EnvironmentTasks(EnvironmentTasks.Config([Family(TABLETOP, count=4, **family)], view=view)).tasks()  # type: ignore[arg-type]
    return list(found)


def played(start: EnvironmentStart, instruction: str | None) -> tuple[list[np.ndarray], dict[str, bool]]:
    """What the expert of an instruction (None: the environment's own) does there, and what the environment itself then
    says of every instruction."""
    environment = gymnasium.make(TABLETOP).unwrapped
    environment.reset(seed=start.seed, options=None if instruction is None else {"instruction": instruction})
    actions, info = [], {}
    for _ in range(40):
        actions.append(environment.expert_action())  # type: ignore[attr-defined]
        *_, info = environment.step(actions[-1])
    return actions, info["outcomes"]


def asking(task: Task, instruction: str) -> Task:
    return replace(task, instruction=instruction)


def rollout(task: Task, actions: list[np.ndarray]) -> Rollout:
    actions_NLA = torch.from_numpy(np.stack(actions)).float()[:, None]
    frames = task.frames_TVHWC.expand(len(actions) + 1, -1, -1, -1, -1)
    return Rollout(task, 0, frames, actions_NLA, torch.zeros(len(actions), 1, 1), 1.0)


@pytest.mark.parametrize("view", [TELLS, SILENT], ids=["tells outcomes", "silent"])
def test_a_policy_that_ignores_the_new_words_has_no_success(view: View) -> None:
    """The expert of the old instruction, judged by another one: never 1, and never a value that nobody knows."""
    reward, judged = EnvironmentReward(), 0
    for task in tasks(view):
        assert task.start is not None
        actions, outcomes = played(task.start, None)
        [own] = reward.score([rollout(task, actions)])
        assert own.value == float(outcomes[task.instruction])
        for text, done in list(outcomes.items())[:4]:
            if text == task.instruction:
                continue
            [found] = reward.score([rollout(asking(task, text), actions)])
            if view is TELLS:
                assert found.value == float(done)
                judged += 1
            else:
                assert found.value is None and found.error is not None
                assert task.instruction in found.error and text in found.error and "view.outcomes_key" in found.error
    reward.close()
    assert judged >= 8 or view is SILENT


def test_the_world_reports_what_the_task_asks_for_or_nothing() -> None:
    for view, known in ((TELLS, True), (SILENT, False)):
        [task, *_] = tasks(view)
        assert task.start is not None
        actions, outcomes = played(task.start, None)
        others = [text for text in outcomes if text != task.instruction][:2]
        world = GymnasiumWorld(GymnasiumWorld.Config(view=view))
        asked = [task, *(asking(task, text) for text in others)]
        step = world.step(world.reset(asked), torch.from_numpy(np.stack(actions)).float().expand(3, -1, -1))
        assert step.outcome_BL is not None
        last = step.outcome_BL[:, -1].tolist()
        assert last[0] == float(outcomes[task.instruction]) == 1.0
        assert last[1:] == [float(outcomes[text]) for text in others] if known else np.isnan(last[1:]).all()
        world.close()


def test_an_environment_that_is_told_judges_by_what_it_was_told() -> None:
    reward = EnvironmentReward()
    [task, *_] = tasks(SILENT, told=True)
    assert task.start is not None and task.start.options == {"instruction": task.instruction}
    _, outcomes = played(task.start, None)
    other = next(text for text in outcomes if text.split()[-1] != task.instruction.split()[-1])
    actions, outcomes = played(task.start, other)
    told = replace(task.start, options={"instruction": other})
    [found] = reward.score([rollout(replace(task, instruction=other, start=told), actions)])
    assert found.value == float(outcomes[other])
    reward.close()


def test_an_instruction_that_nobody_names_is_unscored() -> None:
    [task, *_] = tasks(TELLS)
    [found] = EnvironmentReward().score([rollout(asking(task, "sing a song"), [np.zeros(2, np.float32)] * 2)])
    assert found.value is None and "'sing a song'" in str(found.error) and "outcomes" in str(found.error)


def test_an_end_at_the_old_goal_leaves_the_new_one_open() -> None:
    [task, *_] = tasks(replace(TELLS, stop_on_success=True))
    assert "stop_on_success" in str(EnvironmentReward().objection(asking(task, "push the red block to the left edge")))
    assert EnvironmentReward().objection(task) is None


def test_a_reported_outcome_of_the_old_goal_is_not_believed() -> None:
    """A world of others reports success as its environment says it."""
    task = make_task(0)
    assert task.start is not None
    told = replace(task, start=replace(task.start, instruction=" Slide the square to the right."))
    assert EnvironmentReward().score([make_rollout(told, [0.0, 0.0], outcome=1.0)])[0].value == 1.0
    other = replace(told, instruction="slide the square to the left")
    found = EnvironmentReward().score([make_rollout(other, [0.0, 0.0], outcome=1.0)])[0]
    assert found.value is None and "slide the square to the left" in str(found.error)
