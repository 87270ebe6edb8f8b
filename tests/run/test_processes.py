"""`gymnast train` in two processes on this machine: the same weights, one voice, one end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launching import Launched, gymnast
from safetensors.torch import load_file
from small import Models

from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_report.group_view import read_filmed
from gymnast_report.groups import IterationRow, read_groups

TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


def start(models: Models, folder: Path, *overrides: str) -> Launched:
    folder.mkdir(parents=True, exist_ok=True)
    small = [item for item in models.overrides() if not item.startswith("reward_model")]
    small += ["loop.iterations=2", "loop.imagine_batch_size=2", "optimizer.args.minibatch_size=3"]
    # Coin flips make groups differ, so that every iteration learns.
    small += ["reward_model.name=random", "reward_model.args.seed=3", "optimizer.args.learning_rate=1e-3"]
    return Launched(["train", "tabletop", *small, *overrides], folder)


def finish(process: Launched) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "run" / "policy" / "model.safetensors")


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.endswith("attn.qkv.bias"):
            # A key's bias adds the same to all of a query's logits: its gradient is rounding, which Adam makes large.
            for part in (0, 2):
                torch.testing.assert_close(actual[name].chunk(3)[part], tensor.chunk(3)[part], atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(actual[name], tensor, atol=1e-6, rtol=0, msg=name)


@pytest.fixture(scope="module")
def alone(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    finish(start(models, folder))
    return folder


def test_two_processes_make_the_update_of_one(models: Models, alone: Path, tmp_path: Path) -> None:
    out, _ = finish(start(models, tmp_path, *TWO))
    one, two = weights(alone), weights(tmp_path)
    assert_same(two, one)
    start_weights = load_file(models.policy / "model.safetensors")
    assert any((one[name] - start_weights[name]).abs().max() > 1e-4 for name in one)
    # One process speaks and writes.
    assert out.count("Run folder:") == 1
    summary = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert summary["iterations"] == 2
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    expected = (alone / "run" / "metrics.csv").read_text().splitlines()
    assert rows[0] == expected[0]
    assert len(rows) == len(expected) == 3
    loss = rows[0].split(",").index("loss")
    for row, other in zip(rows[1:], expected[1:], strict=True):
        assert float(row.split(",")[loss]) == pytest.approx(float(other.split(",")[loss]), abs=1e-5)


def groups(folder: Path) -> list[IterationRow]:
    """What the run of that folder says it learned from, each iteration's groups by their numbers."""
    rows = read_groups(folder / "run")
    return [replace(row, groups=sorted(row.groups, key=lambda group: group.label)) for row in rows]


def test_all_groups_are_told_whoever_made_them(models: Models, alone: Path, tmp_path: Path) -> None:
    """What was learned from, its shares of the whole and the films, whichever process has the frames."""
    finish(start(models, tmp_path, *TWO))
    one, two = groups(alone), groups(tmp_path)
    assert [row.iteration for row in two] == [row.iteration for row in one] == [1, 2]
    for row, other in zip(two, one, strict=True):
        assert len(row.groups) == len(other.groups) == 2 and row.horizon == other.horizon
        for group, same in zip(row.groups, other.groups, strict=True):
            assert (group.label, group.task, group.learned) == (same.label, same.task, same.learned)
            assert (group.values, group.actions) == (same.values, same.actions)
            assert group.influence == pytest.approx(same.influence, abs=1e-3)
    made = {group.label for row in two for group in row.groups}
    filmed = read_filmed(tmp_path / "run/videos")
    assert [(film.iteration, film.label) for film in filmed] == [
        (film.iteration, film.label) for film in read_filmed(alone / "run/videos")
    ]
    assert filmed and all((tmp_path / f"run/videos/{file}.mp4").is_file() for film in filmed for file in film.files)
    page = (tmp_path / "run/report.html").read_text()
    assert "<summary>All 2</summary>" in page and len(made) == 4


def test_two_processes_go_on_where_they_were_killed(models: Models, alone: Path, tmp_path: Path) -> None:
    process = start(models, tmp_path, *TWO)
    snapshots = tmp_path / "run" / "snapshots"
    deadline = time.monotonic() + 200
    while not list(snapshots.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    state = load_latest_snapshot(snapshots)
    assert state is not None
    process.communicate()
    resumed = gymnast("train", "--resume", "run", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(weights(tmp_path), weights(alone))


def test_an_error_in_one_process_is_one_message(models: Models, tmp_path: Path) -> None:
    """The second process finds no checkpoint: the first one must not wait for it for half an hour."""
    script = tmp_path / "gymnast_without_second.py"
    script.write_text(
        "import os, sys\n"
        "from gymnast_core.cli import main\n"
        "if os.environ.get('LOCAL_RANK') == '1':\n"
        "    sys.argv = [a.replace(sys.argv[-1], 'policy.args.checkpoint=gone') for a in sys.argv]\n"
        "main()\n"
    )
    arguments = [*models.overrides(), "loop.imagine_batch_size=2", *TWO, f"policy.args.checkpoint={models.policy}"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), "train", "tabletop", *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode != 0
    assert time.monotonic() - began < 200
    assert done.stderr.count("Error: ") == 1
    assert "gone" in done.stderr
    assert "Traceback" not in done.stderr
