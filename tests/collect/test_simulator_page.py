"""docs/how-to/simulator.md, block by block, in a folder of its own."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "simulator.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r'(?:^`(?P<file>[\w.-]+)`:\n\n)?^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$',
    flags=re.MULTILINE | re.DOTALL,
)
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder after all blocks were run, and each printed what the page says."""
    folder, printed = tmp_path_factory.mktemp("simulator"), ""
    (folder / "gymnast").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gymnast_core.cli "$@"\n')
    (folder / "gymnast").chmod(0o755)
    variables = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for block in BLOCK.finditer(PAGE):
        if name := block["file"] or block["title"]:
            (folder / name).write_text(block["body"], encoding="utf-8")
        elif block["language"] == "sh":
            command = ["bash", "-euo", "pipefail", "-c", f"export PYTHONPATH=$PWD\n{block['body']}"]
            done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{block['body']}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout
        else:
            assert block["language"] == "text"
            wanted = block["body"]
            assert doctest.OutputChecker().check_output(wanted, printed, LOOSELY), f"{wanted}\n---\n{printed}"
    return folder


def test_every_block_runs_and_prints_what_the_page_says(folder: Path) -> None:
    commands = " ".join(block["body"] for block in BLOCK.finditer(PAGE) if block["language"] == "sh")
    for command in ("check", "collect", "fit", "evaluate"):
        assert f"gymnast {command} " in commands
    assert json.loads((folder / "runs/rollouts/summary.json").read_text())["kept"] == 20


def test_the_environment_has_the_length_that_the_page_says(folder: Path) -> None:
    lines = (folder / "dot_table.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) == pytest.approx(36, abs=2)


def test_the_expert_and_chance_are_told_apart(folder: Path) -> None:
    actors = json.loads((folder / "runs/play/summary.json").read_text())["actors"]
    assert actors["expert"]["success_of_attempts"] > 0.8 > 0.3 > actors["random"]["success_of_attempts"]
