"""`gymnast fit` in two processes: the same training, one voice, one end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import killing
import pytest
import torch
import toy
from launching import forkserver
from safetensors.torch import load_file

from gymnast_core.errors import GymnastError
from gymnast_core.training.together import ending_together
from gymnast_fit.batches import SeededBatches
from gymnast_fit.processes import ADVICE

Fit = Callable[..., Path]
Ranks = Callable[..., list[int | None]]
Command = Callable[..., "Running"]
PATIENCE = 150
"""Seconds after which something hangs, however busy the machine."""
TWO = "trainer={accelerator: cpu, devices: 2, strategy: ddp}"
TOY = ["fit", "episodes=toy-episodes", "validation=toy-episodes", "reward_model.name=toy"]
LOOP = (
    "fit={steps: 8, batch_size: 8, microbatches: 4, learning_rate: 0.01, warmup_steps: 2, ema: 0.9, checkpoint_every: 2"
    ", log_every: 3, validate_every: 4}"
)
LAYER_NORM = "reward_model.args.batch_norm=false"
"""Running statistics are the leader's, as ever in data-parallel training; everything else is compared."""


@dataclass
class Running:
    """`gymnast ARGUMENTS` in a session of its own; Lightning starts the second process."""

    process: ForkServerProcess
    output: Path

    def alive(self) -> list[str]:
        """The processes of the session that have not ended."""
        command = ["ps", "-axo", "pgid=,stat=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line.split(maxsplit=2) for line in listing.splitlines()]
        return [args for pgid, state, args in lines if int(pgid) == self.process.pid and not state.startswith("Z")]

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            assert self.process.is_alive() and time.monotonic() < deadline, self.written()
            time.sleep(0.05)

    def ends_with_all(self) -> tuple[int | None, str, str]:
        """Exit code and output, once no process is left behind."""
        self.process.join(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not self.alive()
        return self.process.exitcode, *self.written()

    def written(self) -> tuple[str, str]:
        out, err = (self.output.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return out, err


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        process = forkserver().Process(target=killing.run_in_session, args=(arguments, tmp_path / "output"))
        process.start()
        started.append(Running(process, tmp_path / "output"))
        return started[-1]

    yield start
    for running in started:
        if running.alive():
            os.killpg(running.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def two(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    assert ranks([*TOY, LAYER_NORM, TWO, LOOP, f"output={folder}"]) == [0, 0]
    return folder


def log(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{k: float(v or "nan") for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_close(first: Path, second: Path) -> None:
    ours, theirs = toy.checkpoint(first), toy.checkpoint(second)
    assert ours.keys() == theirs.keys()
    for name, weights in ours.items():
        torch.testing.assert_close(weights, theirs[name], rtol=0, atol=1e-5, msg=name)


def test_two_processes_train_what_one_trains(fit: Fit, two: Path) -> None:
    one = fit(
        "validation=toy-episodes", LAYER_NORM, steps=8, microbatches=4, warmup_steps=2, decay="cosine", ema=0.9,
        log_every=3, validate_every=4,
    )  # fmt: skip
    assert_close(one, two)
    assert not toy.same(fit(LAYER_NORM, steps=8, warmup_steps=2, decay="cosine", ema=0.9), one)
    ours, theirs = log(one), log(two)
    assert [row["step"] for row in theirs] == [3, 4, 6, 8]
    for mine, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(mine, rel=1e-4, nan_ok=True)
    assert json.loads((two / "summary.json").read_text())["steps"] == 8


def test_two_processes_train_a_world_model(ranks: Ranks, tmp_path: Path) -> None:
    size = "image_size: [16, 16], patch_size: 8, dim: 32, layers: 1, heads: 2, action_dim: 3, robot_action_dim: 2"
    episodes = "name: toy-episodes, args: {count: 6, size: 16, length: 6, action_dim: 2}"
    arguments = [
        "fit", f"world_model={{name: worldgym, args: {{{size}, window: 4, device: cpu}}}}", f"episodes={{{episodes}}}",
        "fit={steps: 3, batch_size: 4, microbatches: 2, warmup_steps: 0, optimizer: muon, log_every: 1}",
    ]  # fmt: skip
    assert ranks([*arguments, TWO, f"output={tmp_path / 'two'}"]) == [0, 0]
    server = forkserver()
    alone = server.Process(target=killing.run, args=([*arguments, f"output={tmp_path / 'one'}"],))
    alone.start()
    alone.join(120)
    assert alone.exitcode == 0
    assert_close(tmp_path / "one", tmp_path / "two")
    began = load_file(str(tmp_path / "one/checkpoint/model.safetensors"))["blocks.0.s_block.ffwd.0.weight"]
    assert began.isfinite().all()


def test_two_processes_killed_and_resumed(ranks: Ranks, two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first, second = ranks([*TOY, LAYER_NORM, TWO, LOOP, "fit.workers=1", f"output={folder}"], "in a step")
    assert first == -signal.SIGKILL and second not in (0, None)
    assert not (folder / "checkpoint").exists()
    assert ranks(["fit", "--resume", str(folder)]) == [0, 0]
    assert toy.same(folder, two)
    assert str(log(folder)) == str(log(two))


def test_a_loss_that_explodes_ends_both_processes(ranks: Ranks, tmp_path: Path) -> None:
    arguments = [*TOY, "reward_model.args.explode_at=6", TWO, LOOP, f"output={tmp_path / 'run'}"]
    assert ranks(arguments) == [2, 2]
    assert [folder.name for folder in (tmp_path / "run/snapshots").iterdir()] == ["step-000000002"]


def test_sigterm_ends_all_processes_with_a_snapshot(command: Command, ranks: Ranks, two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = command(*TOY, LAYER_NORM, "reward_model.args.seconds=0.3", TWO, LOOP, f"output={folder}")
    running.wait_for(folder / "snapshots/step-000000002")
    running.process.terminate()
    code, out, err = running.ends_with_all()
    assert code == 143 and "Traceback" not in err, err
    assert f"gymnast fit --resume {folder}" in err and out == ""
    assert ranks(["fit", "--resume", str(folder)]) == [0, 0]
    assert toy.same(folder, two)


@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_ends_processes_and_workers(devices: int, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trainer = TWO.replace("devices: 2", f"devices: {devices}") if devices > 1 else "trainer={accelerator: cpu}"
    running = command(*TOY, "reward_model.args.seconds=0.3", trainer, LOOP, "fit.workers=1", f"output={folder}")
    running.wait_for(folder / "snapshots/step-000000002")
    os.killpg(running.process.pid, signal.SIGINT)
    code, out, err = running.ends_with_all()
    assert code == 130 and "Traceback" not in err, err
    assert err.count("Interrupted") == 1 and out == ""
    if devices == 1:  # whatever was done is kept, however long ago the last snapshot was
        assert "Stopped after step" in err and "with a snapshot" in err
        done = json.loads((folder / "state.json").read_text())["step"]
        assert (folder / f"snapshots/step-{done:09d}").exists()


def test_an_episode_that_only_the_second_process_reads_is_one_error(command: Command, tmp_path: Path) -> None:
    first, second = list(SeededBatches(20, 8, seed=0, start=0, steps=2))
    bad = next(index for index in second[4:] if index not in first)
    running = command(
        *TOY,
        f"episodes.args.bad=[{bad}]",
        "validation=null",
        TWO,
        LOOP,
        "fit.workers=1",
        f"output={tmp_path / 'run'}",
        "reward_model.args.seconds=3",  # the leader is still in its step, and is not killed there
    )
    code, _, err = running.ends_with_all()
    assert code == 2 and "Traceback" not in err, err
    assert err.count("Error: ") == 1 and f"Episode {bad} is torn" in err


def test_a_step_of_which_nothing_can_be_learned_is_one_error(command: Command, tmp_path: Path) -> None:
    dark = ("reward_model.args={batch_norm: false, weighed: true}", "episodes.args.dark=true", "validation=null")
    code, _, err = command(*TOY, *dark, TWO, LOOP, f"output={tmp_path / 'run'}").ends_with_all()
    assert code == 2 and "Traceback" not in err, err
    assert err.count("Error: ") == 1 and "Nothing can be learned from any episode of step 0" in err


def test_a_process_that_is_killed_is_named_and_the_others_end() -> None:
    dying = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    waiting = subprocess.Popen(["sleep", "600"])
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[waiting, dying])))
    message = rf"{dying.pid} was killed \(SIGKILL\).*fit.microbatches.*--resume"
    with pytest.raises(GymnastError, match=message), ending_together(trainer, ADVICE):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert waiting.wait(PATIENCE) == -signal.SIGKILL
