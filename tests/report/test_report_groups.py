"""What an iteration learned from, as it is written down and shown; rewards against another judge's word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fake_run
import pytest
import torch

from gymnast_core.errors import DataError
from gymnast_core.learning import Advantages, Judged, Learned
from gymnast_core.runs.results import read_run
from gymnast_report.compare import paired
from gymnast_report.groups import GroupRecord, forget_later, read_groups, weightiest
from gymnast_report.replay import agreements, audit_chart


def learned(values: list[float | None], advantages: list[list[float]], finish: int | None = None) -> Learned:
    rollouts = tuple(replace(fake_run.rollout(i), group=i // 2) for i in range(len(values)))
    rewards = fake_run.rewards(values)
    rewards[0] = replace(rewards[0], finish_step=finish)
    judged = Judged(rollouts, tuple(rewards), 2)
    return Learned(judged, Advantages.of_trajectories(torch.tensor(advantages), judged))


def test_influence_is_the_advantage_over_the_tokens_that_count(tmp_path: Path) -> None:
    """8 actions of 7 factors each; the first rollout succeeds after 2 actions, the last one could not be judged."""
    given = learned([1.0, 0.0, 1.0, None], [[2.0, -1.0], [0.5, 9.0]], finish=2)
    row = GroupRecord(tmp_path).done(1, given)
    assert row is not None
    first, second = row.groups
    assert (first.actions, first.tokens) == ([2, 8], [14, 56])
    assert first.influence == [28.0, 56.0] and first.advantages == [2.0, -1.0]
    assert second.influence == [28.0, 0.0] and second.advantages == [0.5, 0.0] and second.actions == [8, 0]
    found = [(one.group.label, one.place, one.share) for one in weightiest(read_groups(tmp_path))]
    assert found == [(0, 1, 0.5), (0, 0, 0.25), (1, 0, 0.25)]


def test_groups_that_nothing_was_learned_from_say_why(tmp_path: Path) -> None:
    record = GroupRecord(tmp_path)
    for label, values in enumerate([[1.0, 1.0], [None, None], [None, 1.0, 0.0], [0.0, 1.0]]):
        rollouts = [replace(fake_run.rollout(i), group=10 + label) for i in range(len(values))]
        record.judged(rollouts, fake_run.rewards(values))
    row = record.done(1, None)
    assert row is not None and row.total == 0 and not weightiest([row])
    assert [group.reason.split()[0] for group in row.groups] == ["all", "could", "not", "left"]
    assert record.done(2, None) is None  # each is told once


def test_a_resumed_run_writes_its_iterations_once_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    given = learned([1.0, 0.0], [[1.0, -1.0]])
    record = GroupRecord(tmp_path)
    for iteration in (1, 2, 3):
        record.done(iteration, given)
    with (tmp_path / "groups.jsonl").open("a") as file:
        file.write('{"iteration":4,"hor')
    assert [row.iteration for row in read_groups(tmp_path)] == [1, 2, 3]
    forget_later(tmp_path, 1)
    GroupRecord(tmp_path).done(2, given)
    assert [row.iteration for row in read_groups(tmp_path)] == [1, 2]
    (tmp_path / "groups.jsonl").write_text('{"iteration": 1, "horizon": 8, "groups": [{"label": 1}]}\n')
    with pytest.raises(DataError, match=r"groups\.jsonl, line 1.*Delete that file"):
        read_groups(tmp_path)


def test_rewards_are_held_against_what_another_judge_says(tmp_path: Path) -> None:
    folder = tmp_path / "rescored" / "environment"
    folder.mkdir(parents=True)
    pairs = [(1.0, 1.0)] * 6 + [(1.0, 0.0)] * 2 + [(0.0, 1.0)] * 3 + [(0.0, 0.0)] * 4 + [(None, 1.0)]
    rows = [{"id": str(i), "first_value": a, "value": b} for i, (a, b) in enumerate(pairs)]
    rows.append({"id": "0", "first_value": 1.0, "value": 0.0})  # judged once more: the last word counts
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = agreements(tmp_path)
    assert found.table == ((4, 3), (3, 5)) and found.n == 15
    assert found.confirmed is not None and found.confirmed[0] == 5 / 8
    assert found.confirmed[1] == pytest.approx((0.3057, 0.8632), abs=1e-4)  # Wilson's interval of 5 in 8
    assert found.found is not None and found.found[0] == 5 / 8
    assert audit_chart(tmp_path) is None
    (tmp_path / "judging").mkdir()
    (tmp_path / "judging/audit.jsonl").write_text('{"iteration": 5, "n": 8, "denied": 3}\n')
    chart = audit_chart(tmp_path)
    assert chart is not None and "62.5 % at iteration 5" in chart.description()


def test_rollouts_of_one_task_are_one_case_against_replay(tmp_path: Path) -> None:
    """Of 4 tasks with 8 rewarded rollouts each the other judge confirms 2: that is known of 4 cases, not of 32."""
    folder = tmp_path / "rescored" / "environment"
    folder.mkdir(parents=True)
    rows = [
        {"id": f"{task}-{i}", "task": f"t{task}", "first_value": 1.0, "value": float(task < 2)}
        for task in range(4)
        for i in range(8)
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = agreements(tmp_path)
    assert (found.n, found.tasks, found.table) == (32, 4, ((0, 0), (16, 16)))
    assert found.confirmed == (0.5, (0.0, 1.0))
    (tmp_path / "judging").mkdir()
    tasks = {"denied_tasks": ["t0"] * 8 + ["t1"] * 8, "confirmed_tasks": ["t2"] * 8 + ["t3"] * 8}
    lines = [{"iteration": 1, "n": 32, "denied": 16} | tasks, {"iteration": 2, "n": 32, "denied": 16}]
    (tmp_path / "judging/audit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chart = audit_chart(tmp_path)
    assert chart is not None
    known, unknown = chart.series[0].points
    assert (known.y, known.low, known.high) == (0.5, 0.0, 1.0)
    # Audits that did not write their tasks down keep Wilson's interval of 16 in 32.
    assert (unknown.low, unknown.high) == pytest.approx((0.3363, 0.6637), abs=1e-4)


def test_a_task_that_occurs_twice_is_one_case_beside_another_run(tmp_path: Path) -> None:
    """Twelve tasks twice each, all of which one run alone solves: p = 2 / 2¹², and 24 pairs."""
    for name, value in (("first", 0.0), ("second", 1.0)):
        (tmp_path / name / "evaluations").mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("kind: train\n")
        episodes = [{"task": f"t{i % 12}", "instruction": "x", "value": value} for i in range(24)]
        result = {
            "label": "after", "iteration": 1, "world": "w", "reward_model": "environment", "rate": value,
            "interval": [value, value], "n": 24, "unscored": 0, "episodes": episodes,
        }  # fmt: skip
        (tmp_path / name / "evaluations/after.json").write_text(json.dumps(result))
    (found,), refused = paired({name: read_run(tmp_path / name) for name in ("first", "second")})
    assert (refused, found.n, found.difference, found.test) == ([], 24, 1.0, None)
    assert found.p_value == pytest.approx(2 / 2**12)
