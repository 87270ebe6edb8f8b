"""The tutorial, block by block, in an environment and a folder of its own."""

from __future__ import annotations

import csv
import doctest
import json
import os
import re
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import gymnast_core

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    body: str


BLOCKS = [Block(*found) for found in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder after all blocks were run, and each printed what the page says."""
    folder = tmp_path_factory.mktemp("tutorial")
    environment = make_environment(folder / "venv")
    printed = ""
    for block in BLOCKS:
        if block.language == "python":
            (folder / block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", block.body]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout
        else:
            assert block.language == "text"
            assert doctest.OutputChecker().check_output(block.body, printed, LOOSELY), f"{block.body}\n---\n{printed}"
    return folder


def make_environment(venv: Path) -> dict[str, str]:
    """Environment variables of a virtual environment that sees what is installed here, and installs offline."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = (venv / "lib").glob("python*/site-packages")
    sources = Path(gymnast_core.__file__).parents[1]
    shared = [*site.getsitepackages(), str(sources), str(sources / "plugins")]
    (packages / "shared.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
    for script, module in (("pip", "pip"), ("gymnast", "gymnast_core.cli")):
        path = venv / "bin" / script
        path.write_text(f'#!/bin/sh\nexec "{venv}/bin/python" -m {module} "$@"\n')
        path.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # "No build isolation: no" is how pip spells its option --no-build-isolation as a variable.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{venv}/bin{os.pathsep}{kept['PATH']}"
    return {**kept, **pip, "PATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def test_every_block_runs_and_prints_what_the_page_says(folder: Path) -> None:
    commands = " ".join(block.body for block in BLOCKS if block.language == "sh")
    for command in ("new", "check", "judge", "train", "rescore", "evaluate"):
        assert f"gymnast {command} " in commands


def test_the_judge_is_as_good_as_the_page_says(folder: Path) -> None:
    rates = json.loads((folder / "runs/judged/summary.json").read_text())["rates"]
    assert rates["accuracy"]["value"] == pytest.approx(59 / 60)


def test_two_iterations_were_trained_with_it(folder: Path) -> None:
    with (folder / "runs/coloured/metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [row["rollouts"] for row in metrics] == ["32.0", "32.0"]
    assert all(float(row["unscored"]) == 0 for row in metrics)
    assert "image widths" in (folder / "runs/coloured/report.html").read_text(), "the judge's rationales"


def test_the_simulator_was_asked_about_every_rollout(folder: Path) -> None:
    (found,) = [path for path in (folder / "runs/coloured/rescored").iterdir() if path.name.startswith("environment")]
    agreement = json.loads((found / "summary.json").read_text())["agreement"]
    assert sum(row["n"] for row in agreement["table"]) == agreement["n"] == 32
    assert {row["first"] for row in agreement["table"]} == {0.0, 1.0}


def test_the_comparison_proves_nothing(folder: Path) -> None:
    summary = json.loads((folder / "runs/compared/summary.json").read_text())
    for comparison in summary["comparisons"]:
        assert comparison["interval"][0] <= 0 <= comparison["interval"][1]
