"""An evaluation that two real processes share: the trials, numbers and videos of one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench_parts import install
from launching import gymnast

from gymnast_evaluation.during import forget_after
from gymnast_evaluation.results import Evaluation


def train(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """`gymnast train` of no iterations: what is left is an evaluation before, and one after."""
    return gymnast("train", *words, folder=folder, environment=environment)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with the run of one process, `run-1`, and that of two, `run-2`; 4 tasks in batches of 3."""
    folder = tmp_path_factory.mktemp("shared")
    environment = install(folder)
    options = ("loop.iterations=0", "loop.imagine_batch_size=3", "evaluation.videos=2", "trainer.strategy=ddp")
    for count in (1, 2):
        done = train(folder, environment, "line.yaml", *options, f"trainer.devices={count}", f"output=run-{count}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("2 paired episodes") == 0 and done.stdout.count("4 paired episodes") == 1
    return folder, environment


def evaluation(run: Path, label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"evaluations/{label}.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def test_the_numbers_are_those_of_one_process(runs: tuple[Path, dict[str, str]]) -> None:
    folder, _ = runs
    for label in ("before", "after"):
        assert evaluation(folder / "run-2", label) == evaluation(folder / "run-1", label)
    # The policy has not changed in between.
    before, after = (evaluation(folder / "run-2", label) for label in ("before", "after"))
    assert before["episodes"] == after["episodes"] and len(before["episodes"]) == 4
    summaries = [json.loads((folder / run / "summary.json").read_text()) for run in ("run-1", "run-2")]
    assert summaries[0]["after"] == summaries[1]["after"] and summaries[0]["difference"] == summaries[1]["difference"]


def test_too_late_for_what_was_before_a_training(runs: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """A measurement that is gone is not replaced by one of the policy that has learned since."""
    folder, environment = runs
    run, options = tmp_path / "run", ("trainer.strategy=ddp", "evaluation.videos=0")
    done = train(folder, environment, "line.yaml", *options, "loop.iterations=1", f"output={run}")
    assert done.returncode == 0, done.stderr
    before, after = evaluation(run, "before"), evaluation(run, "after")
    (run / "evaluations/before.json").unlink()
    done = train(folder, environment, "--resume", str(run), "loop.iterations=2")
    assert done.returncode == 0, done.stderr
    assert "After 1 iterations it is too late" in done.stderr and not (run / "evaluations/before.json").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert "before" not in summary and "difference" not in summary["after"]
    assert evaluation(run, "after")["iteration"] == 2 and (before["iteration"], after["iteration"]) == (0, 1)


def test_what_was_measured_of_policies_that_a_run_has_given_up_is_measured_again(tmp_path: Path) -> None:
    """The run went on to iteration 4, was cut off, and goes on from the snapshot of iteration 2."""
    folder = tmp_path / "evaluations"
    folder.mkdir()
    of = {"before": 0, "iteration-000002": 2, "iteration-000003": 3, "iteration-000004": 4, "after": 4}
    for label, iteration in of.items():
        numbers = {"temperature": 0.0, "horizon": 4, "seed": 0, "n": 0, "unscored": 0, "rate": 0.0, "interval": None}
        names = {"label": label, "iteration": iteration, "world": "w", "reward_model": "r"}
        found = Evaluation(**names, **numbers, seconds=1.0, episodes=())
        (folder / f"{label}.json").write_text(json.dumps(asdict(found)))
    (folder / "iteration-000001.json").write_text("{")
    forget_after(tmp_path, 2)
    # What cannot be read is told when it is needed.
    left = {"before.json", "iteration-000002.json", "iteration-000001.json"}
    assert {path.name for path in folder.iterdir()} == left


def test_the_leader_films_the_same_tasks_before_and_after(runs: tuple[Path, dict[str, str]]) -> None:
    shown = []
    for run in ("run-1", "run-2"):
        clips = json.loads((runs[0] / run / "videos/index.json").read_text())
        shown.append(
            {label: [clip["task"] for clip in clips if clip["phase"] == label] for label in ("before", "after")}
        )
    assert shown[0] == shown[1] and shown[0]["before"] == shown[0]["after"] and len(shown[0]["before"]) == 2


def test_two_processes_do_not_repeat_what_is_there(runs: tuple[Path, dict[str, str]]) -> None:
    folder, environment = runs
    file = folder / "run-2/evaluations/before.json"
    before = file.read_bytes()
    (folder / "run-2/evaluations/after.json").unlink()
    # Other batches than before: the filmed tasks stay the leader's.
    done = train(folder, environment, "--resume", "run-2", "loop.imagine_batch_size=1", "loop.tasks_per_iteration=2")
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before
    clips = json.loads((folder / "run-2/videos/index.json").read_text())
    tasks = [[clip["task"] for clip in clips if clip["phase"] == label] for label in ("before", "after")]
    assert tasks[0] == tasks[1]
