"""Installed by pip on top of gymnast, listed, selectable, and light to import."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gymnast_core.testing.hooks import check_hooks

from gymnast_wovr import hooks

PACKAGE = Path(__file__).parents[1]
PLUGINS = {
    "co-evolving": ("world model", "gymnast_wovr.co_evolving:CoEvolvingWorld"),
    "first-hit": ("reward model", "gymnast_wovr.first_hit:FirstHit"),
    "masked-grpo": ("optimizer", "gymnast_wovr.masked_grpo:MaskedGRPO"),
    "keyframe-tasks": ("dataset", "gymnast_wovr.keyframe_tasks:KeyframeTasks"),
    "wovr": ("hooks", "gymnast_wovr.hooks"),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: setuptools leaves its build folder beside the sources.
    ignored = shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package", ignore=ignored)
    target = tmp_path_factory.mktemp("site-packages")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def gymnast(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    return subprocess.run(command, env=variables, cwd=installed, capture_output=True, text=True, timeout=120)


def test_its_parts_are_listed_and_load(installed: Path):
    done = gymnast(installed, "plugins", "--load")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    rows = [[*cells[:4], cells[-1]] for cells in lines]  # without the sentence about it
    for name, (kind, target) in PLUGINS.items():
        assert [kind, name, "gymnast-wovr 0.1.0", target, "ok"] in rows, done.stdout + done.stderr


def test_an_installed_training_uses_all_of_them(installed: Path, models: Path, tmp_path: Path):
    fit = "world: {fit: {fit: {steps: 1, batch_size: 2, warmup_steps: 0}}}"
    world = "world_model: {name: worldgym, args: {checkpoint: " + str(models / "world") + "}}"
    judge = "reward_model: {name: random, args: {probability: 0.4}}"
    done = gymnast(
        installed,
        "train",
        "tabletop",
        f"world_model={{name: co-evolving, args: {{{world}, at: [0], rollouts: 2, {fit}}}}}",
        f"reward_model={{name: first-hit, args: {{{judge}, every: 2}}}}",
        "optimizer={name: masked-grpo, args: {group_size: 4, minibatch_size: 8, accuracy_bounds: [0.01, 0.99]}}",
        f"policy.args.checkpoint={models / 'policy'}",
        "policy.args.chunk_length=2",
        "tasks={name: tabletop, args: {count: 4, horizon: 4, image_size: 32}}",
        "loop={iterations: 1, tasks_per_iteration: 2, horizon: 4}",
        "evaluation.tasks=null",
        f"output={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/refinements/iteration-000000/refinement.json").exists()
    with (tmp_path / "run/metrics.csv").open() as file:
        assert "after_first_hit" in file.readline()


def test_two_processes_mask_what_one_masks(installed: Path, models: Path, tmp_path: Path):
    judge = "reward_model: {name: random, args: {probability: 0.3}}"
    arguments = [
        "train", "tabletop", f"reward_model={{name: first-hit, args: {{{judge}, every: 2}}}}",
        "optimizer={name: masked-grpo, args: {group_size: 4, minibatch_size: 8, accuracy_bounds: [0.01, 0.99]}}",
        f"world_model.args.checkpoint={models / 'world'}", f"policy.args.checkpoint={models / 'policy'}",
        "policy.args.chunk_length=2", "policy.args.dtype=float32",
        "tasks={name: tabletop, args: {count: 4, horizon: 4, image_size: 32}}",
        "loop={iterations: 1, tasks_per_iteration: 4, horizon: 4, imagine_batch_size: 8}", "evaluation.tasks=null",
    ]  # fmt: skip
    rows = []
    for name, extra in (("one", []), ("two", ["trainer.devices=2", "trainer.strategy=ddp"])):
        done = gymnast(installed, *arguments, *extra, f"output={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        with (tmp_path / name / "metrics.csv").open() as file:
            rows.append(next(csv.DictReader(file)))
    one, two = rows
    assert float(one["after_first_hit"]) > 0 and one["after_first_hit"] == two["after_first_hit"]
    assert float(two["policy_loss"]) == pytest.approx(float(one["policy_loss"]), abs=1e-5)


def test_the_hooks_keep_their_contract_and_import_nothing_heavy():
    assert check_hooks(hooks)
