"""A run owns its folder, and what was asked for, what was done and what is written down are the same."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import Launched
from small import CommandLine, Models

from gymnast_core.config import RunConfig, load_config
from gymnast_core.plugins.hooks import hookimpl, plugin_manager
from gymnast_core.runs.folder import read_resumes

CHANCE = ["reward_model={name: random, args: {probability: 0.5}}", "evaluation.tasks=null"]


def arguments(models: Models, *more: str) -> list[str]:
    kept = [item for item in models.overrides() if not item.startswith(("reward_model", "evaluation.tasks", "output"))]
    return ["tabletop", *kept, *CHANCE, *more]


def start(folder: Path, *options: str) -> Launched:
    return Launched(["train", *options], folder)


def wait_for(condition: Callable[[], bool], process: Launched) -> None:
    deadline = time.monotonic() + 200
    while not condition() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def steps(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_what_a_resume_asks_for_is_recorded_and_gone_on_with(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    longer = ["--resume", "run", "loop.iterations=3", "optimizer.args.learning_rate=0.001"]
    assert gymnast("train", *longer).code == 0
    config = load_config(RunConfig, "run/config.yaml")
    assert config.loop.iterations == 3
    assert config.optimizer.args["learning_rate"] == 0.001
    (resumed,) = read_resumes(Path("run"))
    assert resumed["changes"]["loop.iterations"] == [1, 3]
    assert resumed["changes"]["optimizer.args.learning_rate"][1] == 0.001
    assert "optimizer.args.learning_rate" in Path("run/report.html").read_text()
    # A plain resume goes on with what was asked for last: here, there is nothing left to do.
    done = gymnast("train", "--resume", "run")
    assert done.code == 0
    assert steps(Path("run")) == [1, 2, 3]
    assert json.loads(Path("run/summary.json").read_text())["iterations"] == 3
    assert [item["changes"] for item in read_resumes(Path("run"))][1:] == [{}]


def test_the_summary_counts_the_whole_run(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    first = json.loads(Path("run/summary.json").read_text())
    assert gymnast("train", "--resume", "run", "loop.iterations=2").code == 0
    second = json.loads(Path("run/summary.json").read_text())
    assert second["rollouts"] > first["rollouts"] > 0
    assert second["seconds"] > first["seconds"] * 0.5
    assert second["groups_kept"] + second["groups_dropped"] >= first["groups_kept"] + first["groups_dropped"]


@pytest.mark.parametrize(
    "change",
    [
        "loop.horizon=8",
        "optimizer.args.group_size=3",
        "optimizer=rloo",
        "seed=5",
        "tasks.args.count=9",
        "policy.args.train.lora_rank=4",
        "world_model=gymnasium",
    ],
)
def test_what_a_run_is_cannot_change(change: str, gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    before = Path("run/config.yaml").read_text()
    message = gymnast.error("train", "--resume", "run", change)
    assert "A resumed run cannot change" in message
    assert change.partition("=")[0].partition(".args")[0] in message
    assert Path("run/config.yaml").read_text() == before
    assert not Path("run/resumed.json").exists()


def test_of_two_resumes_one_is_refused(gymnast: CommandLine, models: Models, tmp_path: Path) -> None:
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    pair = [start(Path.cwd(), "--resume", "run", "loop.iterations=12") for _ in range(2)]
    ended = [process.communicate(timeout=240) for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 2]
    refused = next(err for process, (_, err) in zip(pair, ended, strict=True) if process.returncode == 2)
    assert "Another process works in run" in refused
    assert "Traceback" not in refused
    assert steps(Path("run")) == list(range(1, 13))


def test_runs_of_one_second_have_a_folder_each_and_say_so_when_they_start(models: Models, tmp_path: Path) -> None:
    endless = "loop.iterations=10000"
    pair = [start(tmp_path, *arguments(models, endless, f"seed={seed}")) for seed in (1, 2)]
    for process in pair:
        wait_for(lambda process=process: "Run folder" in process.said(), process)
        first = next(line for line in process.said().splitlines() if "Run folder" in line)
        assert process.poll() is None
        assert (tmp_path / first.partition(": ")[2].strip() / "config.yaml").exists()
    for process in pair:
        process.send_signal(signal.SIGTERM)
    for process in pair:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 143, err
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert sorted(load_config(RunConfig, str(folder / "config.yaml")).seed for folder in folders) == [1, 2]


def test_a_start_that_failed_stands_in_nobodys_way(gymnast: CommandLine, models: Models) -> None:
    wrong = [item for item in arguments(models, "output=run") if not item.startswith("world_model.args.checkpoint")]
    assert "gone" in gymnast.error("train", *wrong, "world_model.args.checkpoint=gone")
    assert not Path("run").exists()

    def broken(event: object) -> None:
        raise ValueError("the robot is not plugged in")

    plugin_manager().add(plugin := SimpleNamespace(gymnast_evaluate=broken), "robot")
    try:
        with pytest.raises(ValueError, match="not plugged in"):
            gymnast("train", *arguments(models, "output=run"))
    finally:
        plugin_manager().unregister(plugin)
    # Nothing had been done in the folder that this start had named.
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    assert "already holds a run" in gymnast.error("train", *arguments(models, "output=run"))


def test_sigterm_ends_with_143_and_the_way_on(gymnast: CommandLine, models: Models, tmp_path: Path) -> None:
    process = start(tmp_path, *arguments(models, "loop.iterations=500", "checkpoint_every=1", "output=run"))
    wait_for((tmp_path / "run/snapshots/step-000000002").exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "gymnast train --resume run" in err
    assert "Traceback" not in err
    run = tmp_path / "run"
    done = gymnast("train", "--resume", str(run), f"loop.iterations={len(steps(run)) + 1}")
    assert done.code == 0, done.err


def test_what_a_kill_left_of_a_snapshot_is_removed(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", *arguments(models, "output=run")).code == 0
    half = Path("run/snapshots/.step-000000002.4711.tmp")
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"x" * 100)
    assert gymnast("train", "--resume", "run", "loop.iterations=2").code == 0
    assert not half.exists()
    assert not list(Path("run").rglob(".step-*"))


def test_a_disk_that_is_full_is_one_error(models: Models, tmp_path: Path) -> None:
    script = tmp_path / "small_disk.py"
    script.write_text(
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from gymnast_core.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, str(script), "train", *arguments(models, "output=run")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error: ") == 1


def test_hooks_of_strangers_wrap_measure_and_are_told(
    gymnast: CommandLine, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    halves: list[str] = []

    @hookimpl(wrapper=True)
    def gymnast_run_done(event):  # type: ignore[no-untyped-def]
        halves.append(f"first, {event.folder}")
        result = yield
        halves.append("second")
        return result

    def gymnast_evaluate(event):  # type: ignore[no-untyped-def]
        return {"my_robot_score": 0.5}

    plugin = SimpleNamespace(gymnast_run_done=gymnast_run_done, gymnast_evaluate=gymnast_evaluate)
    plugin_manager().add(plugin, "stranger")
    try:
        done = gymnast("train", *arguments(models, "output=run"))
    finally:
        plugin_manager().unregister(plugin)
    assert done.code == 0
    assert halves == ["first, run", "second"]
    assert json.loads(Path("run/summary.json").read_text())["after"] == {"my_robot_score": 0.5}


class TestDamage:
    """One damaged file in a run folder is one clear error, or harmless."""

    @pytest.fixture
    def run(self, gymnast: CommandLine, models: Models) -> Path:
        assert gymnast("train", *arguments(models, "output=run")).code == 0
        return Path("run")

    @staticmethod
    def state(run: Path) -> Path:
        return max((run / "snapshots").glob("step-*")) / "state.json"

    @pytest.mark.parametrize(
        "text",
        ["[]", "{}", "[" * 100_000, '{"iteration": "x"}', '{"iteration": -1}', '{"iteration": 1' + "0" * 30 + "}"],
        ids=["list", "empty", "nested", "text", "negative", "huge"],
    )
    def test_of_the_whole_state(self, text: str, run: Path, gymnast: CommandLine) -> None:
        self.state(run).write_text(text)
        assert "step-000000001" in gymnast.error("train", "--resume", "run", "loop.iterations=2")

    @pytest.mark.parametrize("key", ["iteration", "policy", "updater", "order", "components", "record"])
    def test_of_a_part_of_it(self, key: str, run: Path, gymnast: CommandLine) -> None:
        state = json.loads(self.state(run).read_text())
        for damage in ({k: v for k, v in state.items() if k != key}, {**state, key: {}}, {**state, key: None}):
            self.state(run).write_text(json.dumps(damage))
            message = gymnast.error("train", "--resume", "run", "loop.iterations=2")
            assert "step-000000001" in message

    def test_of_its_tensors(self, run: Path, gymnast: CommandLine) -> None:
        self.state(run).write_text(self.state(run).read_text().replace('".policy.', '".polixy.'))
        assert "is damaged" in gymnast.error("train", "--resume", "run", "loop.iterations=2")

    def test_of_its_folders(self, run: Path, gymnast: CommandLine) -> None:
        import shutil

        shutil.rmtree(run / "policy")
        (run / "policy").write_text("x")
        assert "policy cannot be written" in gymnast.error("train", "--resume", "run", "loop.iterations=2")
        shutil.rmtree(run / "snapshots")
        (run / "snapshots").write_text("x")
        assert "not a folder of snapshots" in gymnast.error("train", "--resume", "run", "loop.iterations=2")
