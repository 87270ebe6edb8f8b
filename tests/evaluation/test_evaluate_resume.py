"""`gymnast evaluate --resume`, and who may work in a folder."""

from __future__ import annotations

import fcntl
import signal
import time
from pathlib import Path

import pytest
from evaluation_parts import SINGLE, Command, Judge, arguments, policy, summary
from launching import Launched

from gymnast_evaluation.trials import read_trials


def test_killed_with_signal_9_it_goes_on_as_if_never_stopped(gymnast: Command, tmp_path: Path) -> None:
    line = ("temperature=1.0", "batch_size=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert gymnast(*arguments(whole, *line))[0] == 0
    process = Launched(arguments(killed, *line))
    rows = killed / "results.jsonl"
    while process.poll() is None and (not rows.exists() or rows.read_text().count("\n") < 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = rows.read_text()
    assert 3 <= done.count("\n") < 20 and not (killed / "summary.json").exists()
    rows.write_text(done + '{"policy": "first", "wor')  # as a kill in the middle of a write leaves it
    assert gymnast("evaluate", "--resume", str(killed))[0] == 0
    for name in ("results.jsonl", "summary.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert rows.read_text().startswith(done)


def test_nothing_is_rolled_out_twice(gymnast: Command, tmp_path: Path, judge: type[Judge]) -> None:
    run = tmp_path / "run"
    judge.answers = [1.0] * 5
    assert gymnast(*arguments(run, *SINGLE))[0] == 0
    judge.answers = [0.0] * 5
    code, _, err = gymnast("evaluate", "--resume", str(run), f"policies.other={policy(1)}")
    assert code == 0, err
    trials = read_trials(run / "results.jsonl")
    assert [(t.policy, t.value) for t in trials] == [("openvla-oft", 1.0)] * 5 + [("other", 0.0)] * 5
    (row,) = summary(run)["comparisons"]
    assert (row["difference"], row["only_first"], row["p_value"]) == (-1.0, 5, pytest.approx(2 / 32))
    assert gymnast("evaluate", "--resume", str(run))[0] == 0  # both are in its config now
    assert len(read_trials(run / "results.jsonl")) == 10


@pytest.mark.parametrize("change", ["seed=1", "horizon=2", f"policies.first={policy(7)}", "episodes=4"])
def test_trials_of_two_experiments_are_not_mixed(gymnast: Command, tmp_path: Path, change: str) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=1", "videos=0"))[0] == 0
    before = (run / "results.jsonl").read_bytes()
    code, _, err = gymnast("evaluate", "--resume", str(run), change)
    assert code == 2 and f"cannot change {change.partition('=')[0]}" in err and "start a new run" in err
    assert (run / "results.jsonl").read_bytes() == before


def test_what_stopped_before_the_first_trial_can_be_corrected(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # Found out when policies are built, in the folder, and not from the config alone.
    assert gymnast(*arguments(run, "episodes=1", "device=cuda:99"))[0] == 2
    code, _, err = gymnast("evaluate", "--resume", str(run), "device=cpu")
    assert code == 0, err
    assert len(read_trials(run / "results.jsonl")) == 4


def test_a_judge_that_refuses_leaves_no_folder(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    nowhere = f"rewards.simulator={{name: success-classifier, args: {{checkpoint: {tmp_path}/nowhere}}}}"
    assert gymnast(*arguments(run, "episodes=1", nowhere))[0] == 2
    assert not run.exists()


def test_a_policy_cannot_be_dropped_from_its_folder(gymnast: Command, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.yaml"
    assert gymnast(*arguments(run, "episodes=1", "videos=0"))[0] == 0
    lines = (run / "config.yaml").read_text().replace("  second:", "  third:")
    other.write_text(lines)
    code, _, err = gymnast("evaluate", str(other), "--resume", str(run))
    assert code == 2 and "cannot change policies.second" in err


def test_two_evaluations_do_not_work_in_one_folder(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=1", "videos=0"))[0] == 0
    code, _, err = gymnast(*arguments(run, "episodes=1", "videos=0"))
    assert code == 2 and "already holds a run" in err and "--resume" in err
    with (run / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        code, _, err = gymnast("evaluate", "--resume", str(run))
    assert code == 2 and "Another process works in" in err


def test_sigterm_ends_an_evaluation_which_then_goes_on(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = Launched(arguments(run, "batch_size=1", "trials=4"))
    rows = run / "results.jsonl"
    while process.poll() is None and (not rows.exists() or not rows.read_text().count("\n")):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in said
    done = rows.read_text()
    assert 1 <= done.count("\n") < 80
    assert gymnast("evaluate", "--resume", str(run))[0] == 0
    assert rows.read_text().startswith(done) and rows.read_text().count("\n") == 80


def test_labels_that_begin_alike_are_different_parts(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=1", "videos=0"))[0] == 0
    code, _, err = gymnast("evaluate", "--resume", str(run), f"policies={{first.5: {policy(3)}}}")
    assert code == 0, err
    assert "first.5" in summary(run)["results"]


def test_a_damaged_row_is_named(tmp_path: Path, gymnast: Command) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=1", "videos=0"))[0] == 0
    rows = (run / "results.jsonl").read_text().splitlines()
    (run / "results.jsonl").write_text("\n".join([rows[0], "{}", *rows[2:]]) + "\n")
    code, _, err = gymnast("evaluate", "--resume", str(run))
    assert code == 2 and "results.jsonl, line 2: policy is missing" in err and "Delete that line" in err
