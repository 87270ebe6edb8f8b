"""Rollouts that a run keeps, and `gymnast rescore`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launching import Launched
from line_parts import Command
from scipy import stats

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import CheckpointError, DataError
from gymnast_core.types import EnvironmentStart, Episode, Reward, Rollout, Task
from gymnast_judging.rescore import Rescored, summarise
from gymnast_judging.rows import RowFile
from gymnast_judging.stored import PART, prune_scored, prune_unscored, store, stored_places

JUDGE = ComponentConfig("line", {"rule": "right"})
ASLEEP = Reward(None, error="the judge is asleep", cost_usd=0.25)


def rollout(number: int, **fields: Any) -> Rollout:
    generator = torch.Generator().manual_seed(number)

    def pictures(length: int) -> torch.Tensor:
        return torch.randint(0, 256, (length, 2, 4, 6, 3), generator=generator).to(torch.uint8)

    cameras = ("front", "wrist")
    expert = Episode("demo", "go right", pictures(2), torch.randn(1, 2, generator=generator), cameras, fps=5.0)
    start = EnvironmentStart(
        id="gymnast/Tabletop-v0",
        seed=2**31 - 2 - number,
        options={"instruction": "go right"},
        args={"image_size": 32, "nested": {"a": [1, 2.5, None]}},
    )
    task = Task(
        id=f"task-{number}",
        instruction="go right",
        frames_TVHWC=pictures(2),
        cameras=cameras,
        actions_TA=torch.randn(1, 2, generator=generator),
        proprio_TP=torch.randn(2, 3, generator=generator),
        start=start,
        expert=expert,
        partial_credit_criteria="half way",
    )
    made = Rollout(
        task=task,
        group=number // 4,
        frames_TVHWC=pictures(5),
        actions_NLA=torch.randn(2, 2, 2, generator=generator),
        log_prob_NLD=torch.randn(2, 2, 2, generator=generator),
        temperature=0.7,
        cameras=cameras,
        tokens_NLD=torch.randint(0, 2**40, (2, 2, 2), generator=generator),
        proprio_TP=torch.randn(5, 3, generator=generator),
        outcome_S=torch.tensor([0.0, float("nan"), 0.5, float("nan")]),
        version=7,
    )
    return replace(made, **fields)


def folder_of_a_run(path: Path) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text("kind: train\n")
    return path


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    if isinstance(a, Task | Rollout | Episode | Reward | EnvironmentStart):
        return type(a) is type(b) and all(same(value, vars(b)[key]) for key, value in vars(a).items())
    return type(a) is type(b) and a == b


def test_what_is_stored_comes_back_bit_for_bit(tmp_path: Path) -> None:
    run = folder_of_a_run(tmp_path / "run")
    rollouts = [rollout(0), rollout(1, tokens_NLD=None, proprio_TP=None), rollout(2, outcome_S=None)]
    steps_S = torch.tensor([0.0, -1.5, 0.0, 2.0])
    rewards = [ASLEEP, Reward(0.5, steps_S, partial=0.25, rationale="half", cost_usd=0.1, finish_step=3), ASLEEP]
    store(run, "iteration-000003", rollouts, rewards, JUDGE, reward_kind="score", scored_bytes=10**6)
    (unscored,) = stored_places(run)
    assert (
        unscored.judge == JUDGE and unscored.reward_kind == "score" and len(unscored.ids) == 2 and unscored.frames == 5
    )
    kept, first = unscored.load()
    assert same(kept[0], rollouts[0]) and same(kept[1], rollouts[2]) and first == [ASLEEP, ASLEEP]
    _, scored = stored_places(run, all_rollouts=True)
    kept, first = scored.load()
    assert same(kept[0], rollouts[1]) and same(first[0], rewards[1])
    assert len({*unscored.ids, *scored.ids}) == 3
    suffixes = {path.suffix for path in (run / "rollouts").rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ""}  # and a snapshot's checksums


def test_a_repeated_draw_replaces_its_own_files(tmp_path: Path) -> None:
    run = folder_of_a_run(tmp_path / "run")
    rollouts = [rollout(i) for i in range(PART + 3)]
    store(run, "iteration-000003", rollouts, [ASLEEP] * len(rollouts), JUDGE)
    store(run, "iteration-000003", [replace(rollouts[0], group=77)], [ASLEEP], JUDGE)
    assert [len(place.ids) for place in stored_places(run)] == [PART, 3, 1]
    ids = stored_places(run)[0].ids
    # The resumed run repeats the iteration, and this time all but one are judged.
    store(run, "iteration-000003", rollouts, [Reward(1.0)] * (PART + 2) + [ASLEEP], JUDGE)
    places = stored_places(run)
    assert [len(place.ids) for place in places] == [1, 1] and places[0].ids[0] not in ids
    assert same(places[0].load()[0][0], rollouts[-1])
    assert len(stored_places(run, all_rollouts=True)) == 2  # no room was given to judged ones


def test_judged_rollouts_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    run = folder_of_a_run(tmp_path / "run")
    rewards = [Reward(1.0)] * 4
    frames, actions = (5 + 2 + 2) * 2 * 4 * 6 * 3, 8 * (4 + 4 + 8) + 4 * (2 + 2)
    size = frames + actions + 4 * (2 * 3 + 5 * 3) + 4 * 4
    for iteration in (1, 2, 3):
        rollouts = [rollout(10 * iteration + i) for i in range(4)]
        assert store(run, f"iteration-{iteration:06d}", rollouts, rewards, JUDGE, scored_bytes=3 * size) == 3 * size
        prune_scored(run, iteration, keep_iterations=2, keep_bytes=10**6)
    kept = stored_places(run, all_rollouts=True)
    assert [place.path.name[:16] for place in kept] == ["iteration-000002", "iteration-000003"]
    assert [len(place.ids) for place in kept] == [3, 3]
    on_disk = sum(file.stat().st_size for file in kept[0].path.rglob("*") if file.is_file())
    prune_scored(run, 3, keep_iterations=2, keep_bytes=2 * on_disk - 1)
    assert [place.path.name[:16] for place in stored_places(run, all_rollouts=True)] == ["iteration-000003"]


def test_rollouts_that_could_not_be_judged_are_kept_up_to_a_limit(tmp_path: Path) -> None:
    run = folder_of_a_run(tmp_path / "run")
    for iteration in (1, 2, 3):
        store(run, f"iteration-{iteration:06d}", [rollout(iteration)], [ASLEEP], JUDGE)
    store(run, "evaluation-before", [rollout(9)], [ASLEEP], JUDGE)
    iterations = [place.path for place in stored_places(run) if place.path.name.startswith("iteration")]
    size = sum(file.stat().st_size for path in iterations for file in path.rglob("*") if file.is_file())
    assert prune_unscored(run, size) == 0
    assert prune_unscored(run, size - 1) == 1
    names = [place.path.name[:16] for place in stored_places(run)]
    assert names == ["evaluation-befor", "iteration-000002", "iteration-000003"]
    assert prune_unscored(run, 0) == 2


def test_damage_is_named(tmp_path: Path) -> None:
    run = folder_of_a_run(tmp_path / "run")
    store(run, "iteration-000001", [rollout(0)], [ASLEEP], JUDGE)
    (place,) = stored_places(run)
    tensors = next(place.path.rglob("*.safetensors"))
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-8])
    with pytest.raises((DataError, CheckpointError), match="damaged"):
        stored_places(run)[0].load()
    tensors.write_bytes(content)
    next(place.path.rglob("*.json")).write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        stored_places(run)
    (run / "rollouts/unscored/half-written").mkdir()
    next(place.path.rglob("*.json")).unlink()
    assert stored_places(run) == []
    with pytest.raises(DataError, match="not a run folder"):
        stored_places(tmp_path / "nothing")


@pytest.fixture
def failed(gymnast: Command, tmp_path: Path, parts: Any) -> Path:
    """A run of two iterations; a third of its rollouts could not be judged."""
    run = tmp_path / "run"
    parts.Judge.fail = lambda rollout: rollout.task.id == "task-7"
    code, _, err = gymnast(*parts.training(run, "loop.iterations=2", "loop.rescore=0"))
    assert code == 0, err
    parts.Judge.fail, parts.Judge.calls = (lambda rollout: False), []
    return run


def results(run: Path) -> list[Rescored]:
    return [row for path in run.glob("rescored/*/results.jsonl") for row in RowFile(path, Rescored).rows]


def test_a_training_keeps_what_could_not_be_judged(failed: Path) -> None:
    unscored = [item for place in stored_places(failed) for item in zip(*place.load(), strict=True)]
    assert unscored and all(rollout.task.id == "task-7" for rollout, _ in unscored)
    assert {reward.error for _, reward in unscored} == {"the judge is asleep"}
    metrics = [dict(zip(*pair, strict=True)) for pair in _csv(failed / "metrics.csv")]
    assert len(unscored) == sum(float(row["unscored"]) for row in metrics)
    scored = [place for place in stored_places(failed, all_rollouts=True) if place.path.parent.name == "scored"]
    assert scored and all(place.path.name.startswith("iteration-000002") for place in scored)  # the newest one only
    assert sum(len(place.ids) for place in scored) == 24 - float(metrics[1]["unscored"])


def _csv(path: Path) -> list[tuple[list[str], list[str]]]:
    head, *lines = path.read_text().splitlines()
    return [(head.split(","), line.split(",")) for line in lines]


def test_an_evaluation_keeps_what_could_not_be_judged(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    parts.Judge.fail = lambda rollout: rollout.task.id == "task-7"
    run = tmp_path / "run"
    code, _, err = gymnast(
        "evaluate", "policy=line", "worlds.a=line", "worlds.b=line", "rewards.a=line",
        "rewards.b={name: line, args: {rule: left}}", "tasks=line-tasks", "horizon=4", "batch_size=2", "rescore=0",
        f"output={run}",
    )  # fmt: skip
    assert code == 0, err
    assert [(place.judge.args, len(place.ids)) for place in stored_places(run)] == [({}, 1), ({"rule": "left"}, 1)]
    parts.Judge.fail = lambda rollout: False
    code, out, err = gymnast("rescore", run)
    assert code == 0, err
    assert [found["newly_scored"] for found in json.loads(out)["rescored"]] == [1, 1]  # each world's own judge


def test_rescoring_what_could_not_be_judged(gymnast: Command, failed: Path, parts: Any) -> None:
    before = {path: path.read_bytes() for path in failed.rglob("*") if path.is_file()}
    code, out, err = gymnast("rescore", failed)
    assert code == 0, err
    (found,) = json.loads(out)["rescored"]
    count = sum(len(place.ids) for place in stored_places(failed))
    assert (found["rollouts"], found["newly_scored"], found["unscored"]) == (count, count, 0)
    assert found["agreement"] is None and found["cost_usd"] == 0.5 * count and "cost $" in err
    assert all(row.first_value is None and row.first_error == "the judge is asleep" for row in results(failed))
    assert sum(parts.Judge.calls) == count and sum(n for n, _ in parts.Judge.announced[-1:]) == count
    assert all(path.read_bytes() == content for path, content in before.items())
    parts.Judge.calls = []
    assert gymnast("rescore", failed)[0] == 0 and parts.Judge.calls == []  # nothing is paid for twice


def test_another_judge_and_how_far_it_agrees(gymnast: Command, failed: Path, parts: Any) -> None:
    code, out, err = gymnast("rescore", failed, "--all", "reward_model.args.rule=left")
    assert code == 0, err
    (found,) = json.loads(out)["rescored"]
    rows = results(failed)
    both = [(row.first_value, row.value) for row in rows if row.first_value is not None]
    assert found["agreement"]["n"] == len(both) > 0
    assert found["agreement"]["same"] == pytest.approx(sum(a == b for a, b in both) / len(both))
    assert found["agreement"]["mean_difference"] == pytest.approx(sum(b - a for a, b in both) / len(both))
    assert sum(cell["n"] for cell in found["agreement"]["table"]) == len(both)
    assert not any(a == b == 1.0 for a, b in both)  # right is not left
    code, out, err = gymnast("rescore", failed, "--all")
    assert code == 0 and json.loads(out)["rescored"][0]["agreement"]["same"] == 1.0
    assert len(list((failed / "rescored").iterdir())) == 2


def test_scores_are_a_mean_reward_and_agree_with_no_success(gymnast: Command, failed: Path, parts: Any) -> None:
    code, out, err = gymnast("rescore", failed, "--all", "reward_model=distance")
    assert code == 0, err
    (found,) = json.loads(out)["rescored"]
    values = [row.value for row in results(failed) if row.value is not None]
    assert "success" not in found and found["agreement"] is None
    assert found["mean reward by distance"]["mean"] == pytest.approx(sum(values) / len(values))
    low, high = found["mean reward by distance"]["interval"]
    assert low < found["mean reward by distance"]["mean"] < high and "reward" in err
    assert {(row.first_kind, row.reward_kind) for row in results(failed)} == {("success", "score")}


def test_a_judge_that_still_fails_stops_and_goes_on_later(gymnast: Command, failed: Path, parts: Any) -> None:
    parts.Judge.fail = lambda rollout: True
    code, _, err = gymnast("rescore", failed)
    assert code == 2 and f"When it works again: gymnast rescore {failed}" in err and "Traceback" not in err
    parts.Judge.fail = lambda rollout: False
    code, out, err = gymnast("rescore", failed)
    assert code == 0, err
    assert json.loads(out)["rescored"][0]["unscored"] == 0


def test_users_mistakes(gymnast: Command, failed: Path, tmp_path: Path, parts: Any) -> None:
    for line, message in (
        ([tmp_path / "none"], "is not a run folder"),
        ([failed, "loop.horizon=3"], "'loop.horizon=3' cannot be overridden here"),
        ([failed, "reward_model=lien"], "Did you mean 'line'?"),
        ([failed, "reward_model.args.rull=left"], "Did you mean 'rule'?"),
    ):
        code, _, err = gymnast("rescore", *line)
        assert code == 2 and message in err and "Traceback" not in err, err
    empty = folder_of_a_run(tmp_path / "empty")
    code, _, err = gymnast("rescore", empty)
    assert code == 2 and "keeps no rollouts that could not be judged (--all takes the others, too)" in err


def test_imagined_rollouts_meet_reality_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Tasks that are read from a disk must find their simulator, though nothing has imported it."""
    from gymnast_tabletop.clips import TabletopClips
    from gymnast_tabletop.datasets import TabletopTasks

    (task,) = TabletopTasks(TabletopTasks.Config(split="reporting", count=1, image_size=32)).tasks()
    clips = TabletopClips(TabletopClips.Config(count=1, image_size=32, success_share=1.0)).episodes()
    assert clips[0].id.rpartition("/")[2] == str(task.start.seed)  # the expert's first attempt
    made = rollout(
        0, task=task, frames_TVHWC=clips[0].frames_TVHWC, cameras=clips[0].cameras, outcome_S=None, proprio_TP=None,
        actions_NLA=clips[0].actions_TA.reshape(4, 4, 2),
    )  # fmt: skip
    run = folder_of_a_run(tmp_path / "run")
    store(run, "iteration-000001", [made], [Reward(0.0)], JUDGE, scored_bytes=10**6)
    command = [sys.executable, "-m", "gymnast_core.cli", "rescore", str(run), "--all", "reward_model=environment"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["rescored"]
    assert found["success"]["mean"] == 1.0 and found["agreement"]["table"] == [{"first": 0.0, "now": 1.0, "n": 1}]


def test_a_killed_rescoring_goes_on_where_it_stopped(gymnast: Command, tmp_path: Path) -> None:
    """A real process over a server on this machine, killed while requests are in flight."""
    import judging

    from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer

    run = folder_of_a_run(tmp_path / "run")
    with LoopbackServer(Behaviour(latency_s=0.05)) as server:
        args = {"model": "m", "base_url": server.openai_url, "cache": str(tmp_path / "vlm.sqlite"), "votes": 1,
                "concurrency": 2, "frames": {"size": 16}}  # fmt: skip
        judge = ComponentConfig("openai-compatible", args)
        rollouts, truth = judging.make_rollouts(3 * PART)
        for i in range(3):
            part = [replace(one, group=i) for one in rollouts[i * PART : (i + 1) * PART]]
            store(run, "iteration-000001", part, [ASLEEP] * PART, judge)
        process = Launched(["rescore", run], tmp_path)
        end = time.monotonic() + 60
        while len(results(run)) < PART and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert PART <= len(results(run)) < 3 * PART
        code, _, err = gymnast("rescore", run)
        assert code == 0, err
        rows = results(run)
        assert len(rows) == len({row.id for row in rows}) == 3 * PART
        assert [row.value for row in sorted(rows, key=lambda row: int(row.task[5:]))] == truth
        # Only what was under way when the process died was asked twice.
        assert len(server.log) <= 3 * PART + 2


def test_half_a_letter_of_a_foreign_judge_is_written_and_read(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Row:
        text: str

    file = RowFile(tmp_path / "rows.jsonl", Row)
    file.append([Row("half \ud83d"), Row("a\u2028b")])
    file.replace([*file.rows, Row("\ud800")])
    read = RowFile(tmp_path / "rows.jsonl", Row).rows
    assert [row.text for row in read] == ["half \ud83d", "a\u2028b", "\ud800"]
    (tmp_path / "rows.jsonl").write_text('["no object"]\n')
    with pytest.raises(DataError, match="line 1"):
        RowFile(tmp_path / "rows.jsonl", Row)


def test_rollouts_of_a_group_are_known_as_well_as_their_starts() -> None:
    """Two of four tasks always succeed, 32 rollouts of each; of the others, the first judge believed one."""
    rows = [
        Rescored(f"{task}-{i}", f"t{task}", "x", float(task < 3), None, float(task < 2), None, None, "", 0.0)
        for task in range(4)
        for i in range(32)
    ]

    def of_four(*means: float) -> tuple[float, float]:
        found = stats.bootstrap((means,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0))
        return pytest.approx(tuple(found.confidence_interval))

    found = summarise(rows, "environment")
    assert found["success"] == {"mean": 0.5, "interval": of_four(1, 1, 0, 0), "tasks": 4}
    agreed = found["agreement"]
    assert (agreed["n"], agreed["tasks"], agreed["same"], agreed["mean_difference"]) == (128, 4, 0.75, -0.25)
    assert agreed["same_interval"] == of_four(1, 1, 0, 1)
    assert agreed["mean_difference_interval"] == of_four(0, 0, -1, 0)
    assert agreed["table"] == [
        {"first": 0.0, "now": 0.0, "n": 32}, {"first": 1.0, "now": 0.0, "n": 32}, {"first": 1.0, "now": 1.0, "n": 64},
    ]  # fmt: skip
    apart = summarise([replace(row, task=row.id) for row in rows], "environment")
    assert apart["success"]["interval"] == pytest.approx((0.4146, 0.5854), abs=1e-4)  # Wilson's of 64 in 128
    scores = summarise([replace(row, reward_kind="score", first_kind="score") for row in rows], "progress")
    assert scores["mean reward by progress"]["interval"] == of_four(1, 1, 0, 0)
