"""Edits of the goal, where the judge is a simulator that cannot be told: refused, before anything is rolled out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluation_parts import WORLD, Command, policy

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import registries
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.view import View
from gymnast_probe.instruction_edits import renamed
from gymnast_probe.library import build_edit, edit_task

VIEW = {"instruction_key": "instruction"}
SEEDS = {"id": "gymnast/Tabletop-v0", "count": 6, "args": {"image_size": 32}}


def dataset(view: dict[str, Any] | None = None, **family: Any) -> dict[str, Any]:
    return {"name": "environment-tasks", "args": {"environments": [{**SEEDS, **family}], "view": view or VIEW}}


def edited(source: dict[str, Any], edit: str = "other-goal") -> Any:
    return registries().datasets.build("edited-tasks", {"dataset": source, "edits": {edit: {}}, "share": 1.0}).tasks()


def probe(gymnast: Command, run: Path, edits: str, tasks: str, reward: str = "environment") -> tuple[int, str, str]:
    return gymnast(
        "probe", f"policy={policy(0)}", f"world_model={WORLD}", f"reward_model={reward}", f"tasks={tasks}",
        "horizon=2", "episodes=2", "videos=0", f"edits={edits}", f"output={run}",
    )  # fmt: skip


UNTOLD = (
    "{name: environment-tasks, args: {environments: [{id: gymnast/Tabletop-v0, count: 2, args: {image_size: 32}}], "
    "view: {instruction_key: instruction}}}"
)


def test_a_probe_refuses_what_its_judge_cannot_say(gymnast: Command, tmp_path: Path) -> None:
    code, _, err = probe(gymnast, tmp_path / "a", "{other-goal: {}, other-colour: {}, paraphrase: {}}", UNTOLD)
    assert (
        code == 2 and "edits.other-goal and edits.other-colour" in err and "paraphrase" not in err.split("Or leave")[0]
    )
    assert "success-classifier" in err and "tabletop" in err and "Traceback" not in err
    assert not (tmp_path / "a/results.jsonl").read_text()
    code, _, err = probe(gymnast, tmp_path / "b", "{paraphrase: {}}", UNTOLD)
    assert code == 0, err
    code, _, err = probe(gymnast, tmp_path / "c", "{other-goal: {}}", UNTOLD, "random")
    assert code == 0, err


def test_the_tabletops_own_tasks_tell_their_environment(gymnast: Command, tmp_path: Path) -> None:
    tabletop = "{name: tabletop, args: {count: 2, image_size: 32}}"
    code, _, err = probe(gymnast, tmp_path / "a", "{other-goal: {}, other-colour: {}, paraphrase: {}}", tabletop)
    assert code == 0, err


def test_edited_tasks_are_refused_when_they_meet_such_a_judge() -> None:
    reward = EnvironmentReward()
    with pytest.raises(ConfigError, match=r"tasks.args.edits.other-goal: .*environments\[\].told"):
        Parts(reward_model=reward, tasks=edited(dataset())).attach()
    for source in (dataset(told=True), dataset({**VIEW, "outcomes_key": "outcomes"}), {"name": "tabletop"}):
        Parts(reward_model=reward, tasks=edited(source)).attach()
    Parts(reward_model=reward, tasks=edited(dataset(), "distractor")).attach()
    Parts(reward_model=registries().reward_models.build("random"), tasks=edited(dataset())).attach()


def test_the_limit_of_an_evaluation_does_not_hide_them(gymnast: Command, tmp_path: Path) -> None:
    tasks = f"{{name: edited-tasks, args: {{dataset: {UNTOLD}, edits: {{other-goal: {{}}}}, share: 1.0}}}}"
    code, _, err = gymnast(
        "evaluate", f"policy={policy(0)}", f"world_model={WORLD}", "reward_model=environment", f"tasks={tasks}",
        "horizon=2", "episodes=1", "videos=0", f"output={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 2 and "tasks.args.edits.other-goal" in err, err


def test_a_judge_around_a_simulator_objects_as_it_does() -> None:
    [task] = registries().datasets.build("environment-tasks", dataset(count=1)["args"]).tasks()
    other = renamed(task, "another").task
    build = registries().reward_models.build
    ensemble = {"judges": [{"name": "environment"}, {"name": "random"}]}
    assert build("ensemble", ensemble).objection(other) is not None
    assert build("ensemble", {"judges": [*ensemble["judges"], {"name": "random"}]}).objection(other) is None
    assert build("ensemble", ensemble).objection(task) is None
    assert build("twice", {"judge": {"name": "environment"}}).objection(other) is not None


def test_the_old_goal_stays_known_and_other_words_for_it_are_no_other_goal() -> None:
    [task] = registries().datasets.build("environment-tasks", dataset(count=1)["args"]).tasks()
    reward = EnvironmentReward(EnvironmentReward.Config(view=View()))
    twice = renamed(renamed(task, "do this").task, "do that").task
    assert twice.start is not None and twice.start.instruction == task.instruction
    for name in ("paraphrase", "nonsense"):
        found = edit_task(build_edit(name, {"edit": name}), name, task, 0)
        assert found.task.instruction != task.instruction
        assert reward.objection(found.task) is None and reward.objection(found.as_judged()) is None
        assert found.as_judged().instruction == task.instruction
