"""Installed by pip on top of gymnast, from the command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
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
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    return subprocess.run(command, env=environment, cwd=installed, capture_output=True, text=True, timeout=120)


def test_it_is_listed(installed):
    lines = [line.split("\t") for line in gymnast(installed, "plugins").stdout.splitlines()]
    rows = [[*cells[:4], cells[-1]] for cells in lines]  # without the sentence about it
    assert ["world model", "cosmos", "gymnast-cosmos 0.1.0", "gymnast_cosmos.world_model:Cosmos", "ok"] in rows


def test_a_missing_checkpoint_ends_with_one_error(installed):
    done = gymnast(installed, "check", "cosmos", "checkpoint=/nowhere/at/all", "layout=native")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "There is no folder /nowhere/at/all" in done.stderr
