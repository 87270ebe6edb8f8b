"""What the systems around World-Gymnast need, by a package from outside: a critic, a judge with the run's own world
model, three cameras with proprioception. It is installed by pip, and trained, killed and resumed as users do."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import Launched
from safetensors.torch import load_file

SOURCE = Path(__file__).parent / "peers"
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
PARTS = {"policy": "policy/model.safetensors", "critic": "optimizer/critic.safetensors"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools leaves its build folder beside the sources.
    source = shutil.copytree(SOURCE, tmp_path_factory.mktemp("source") / "peers")
    target = tmp_path_factory.mktemp("site-packages")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def start(installed: Path, *arguments: object) -> Launched:
    return Launched(arguments, environment={"PYTHONPATH": str(installed)})


def finish(process: Launched) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "refused" not in err and "failed" not in err, err
    return out


def kill_after(process: Launched, run: Path, iteration: int) -> None:
    deadline = time.monotonic() + 200
    while not (run / f"snapshots/step-{iteration:09d}").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = {}
    for part, file in PARTS.items():
        found |= {f"{part}.{name}": tensor for name, tensor in load_file(run / file).items()}
    return found


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    finish(start(installed, "train", "rail", f"output={run}"))
    return run


def test_a_critic_learns_beside_the_policy(alone: Path) -> None:
    found = rows(alone)
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    assert float(found[-1]["value_loss"]) < float(found[0]["value_loss"])
    assert float(found[-1]["imagined_success"]) > float(found[0]["imagined_success"])
    assert set(weights(alone)) >= {"critic.weight", "critic.bias", "policy.head.weight"}


def test_it_goes_on_identically_after_a_kill(installed: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill_after(start(installed, "train", "rail", f"output={run}"), run, 2)
    finish(start(installed, "train", "--resume", run))
    expected, found = weights(alone), weights(run)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    timed = {"seconds_imagining", "seconds_updating", "rollouts_per_second"}
    for mine, theirs in zip(rows(run), rows(alone), strict=True):
        assert {key: mine[key] for key in mine if key not in timed} == {k: theirs[k] for k in theirs if k not in timed}


def test_two_processes_make_the_updates_of_one_and_go_on_after_a_kill(
    installed: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kill_after(start(installed, "train", "rail", *TWO, f"output={run}"), run, 2)
    finish(start(installed, "train", "--resume", run))
    expected, found = weights(alone), weights(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    for mine, theirs in zip(rows(run), rows(alone), strict=True):
        for key in ("imagined_success", "rollouts", "groups_kept", "loss", "value_loss", "entropy"):
            assert float(mine[key]) == pytest.approx(float(theirs[key]), rel=1e-3, abs=1e-5), key


def test_a_judge_asks_the_runs_own_world_model(installed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    out = finish(start(installed, "train", "rail", "reward_model=expert-in-world", f"output={run}"))
    found = rows(run)
    # A score is no success, and is not called so.
    assert "imagined_success" not in found[0]
    assert -1.0 < float(found[0]["imagined_reward"]) < float(found[-1]["imagined_reward"]) < 0.0
    assert "success" not in json.dumps(json.loads(out[out.index("{") : out.rindex("}") + 1]))
    # The world imagined for the policy and for the judge: 4 iterations of 32 rollouts of 8 actions, each twice.
    newest = max((run / "snapshots").glob("step-*")) / "state.json"
    components = json.loads(newest.read_text())["components"]
    assert components["world_model"]["imagined"] == 2 * 4 * 32 * 8
    assert components["reward_model"]["scored"] == 4 * 32


def test_its_parts_keep_their_contracts(installed: Path) -> None:
    for kind, name in (
        ("world-model", "three-cameras"),
        ("policy", "rail-policy"),
        ("reward-model", "rail-end"),
        ("optimizer", "actor-critic"),
        ("dataset", "rail-tasks"),
    ):
        tasks = ["--tasks", "rail-tasks"] if kind in ("world-model", "policy", "reward-model") else []
        out, err = start(installed, "check", kind, name, *tasks).communicate(timeout=200)
        assert "keeps its contract" in out, (kind, out, err)


def test_a_policy_that_needs_what_the_world_lacks_is_refused_with_both_names(installed: Path, tmp_path: Path) -> None:
    arguments = ["tabletop", "policy=rail-policy", "evaluation.tasks=null", f"output={tmp_path / 'run'}"]
    process = start(installed, "train", *arguments)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    for said in ("rail-policy", "wrist", "worldgym", "camera"):
        assert said in err
    assert not (tmp_path / "run").exists()
