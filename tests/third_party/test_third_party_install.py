"""A plugin package of its own, installed by pip, has the rights of the default plugins."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    # Built from a copy: setuptools leaves its build folder beside the sources.
    source = shutil.copytree(SOURCE, tmp_path_factory.mktemp("source") / "plugin")
    target = tmp_path_factory.mktemp("site-packages")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def gymnast(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    return subprocess.run(command, env=environment, cwd=installed, capture_output=True, text=True)


def test_it_is_listed_with_its_distribution(installed):
    done = gymnast(installed, "plugins")
    rows = {tuple(line.split("\t")[:2]): line.split("\t") for line in done.stdout.splitlines()}
    expected = ["world model", "null", "gymnast-null 0.3.0", "gymnast_null.world:NullWorld", "ok"]
    assert [*rows["world model", "null"][:4], rows["world model", "null"][-1]] == expected
    assert rows["world model", "null"][4] == "Shows the start frame, darker by `fade` levels an action."
    assert rows["world model", "null-again"][-1] == "ok"
    assert rows["hooks", "null"][-1] == "ok"
    assert rows["world model", "worldgym"]


def test_its_preset_is_listed(installed):
    assert "nothing\tgymnast train\tgymnast-null\tLearn nothing from nothing" in gymnast(installed, "presets").stdout


def test_it_is_built_with_typed_args_and_keeps_the_contract(installed):
    for arguments in (["fade=3"], ["cameras=2"]):
        done = gymnast(installed, "check", "null", *arguments)
        assert done.returncode == 0, done.stderr
        assert "The world model 'null' keeps its contract." in done.stdout
    hooks = gymnast(installed, "check", "hooks", "null")
    assert "it registers the world model 'null-again'" in hooks.stdout, hooks.stderr
    wrong = gymnast(installed, "check", "null", "fad=3")
    assert wrong.returncode == 2
    assert "world_model.args.fad: No key 'fad'. Did you mean 'fade'?" in wrong.stderr


def test_a_policy_of_api_1_is_refused_with_the_page_to_read(installed):
    done = gymnast(installed, "check", "policy", "old")
    assert done.returncode == 2
    assert "The policy 'old' of gymnast-null 0.3.0 (gymnast_null.old:OldPolicy)" in done.stderr
    assert "as plugins of API 1 did; this gymnast has 2" in done.stderr
    assert "docs/api-2.md" in done.stderr
    assert "`api_version = 2`" in done.stderr
