"""Installed by pip beside gymnast, without ManiSkill: its presets are listed, and say what is lacking."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
pytest.importorskip("gymnast_core", reason="gymnast is not installed in this interpreter")


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
    return subprocess.run(command, env=environment, cwd=installed, capture_output=True, text=True, timeout=900)


def test_its_presets_are_listed(installed):
    listed = gymnast(installed, "presets").stdout
    for name in ("evaluate-simpler\tgymnast evaluate\tgymnast-simpler", "simpler\tgymnast train\tgymnast-simpler"):
        assert name in listed


@pytest.mark.parametrize(("command", "preset"), [("evaluate", "evaluate-simpler"), ("train", "simpler")])
def test_a_preset_asks_for_the_checkpoint(installed, command, preset):
    done = gymnast(installed, command, preset)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "policy.args.checkpoint=VALUE" in done.stderr


def test_the_starts_to_learn_from_and_those_to_measure_are_all_of_them_and_share_none():
    """`first` and `count` of the preset, beside the starts that ManiSkill has."""
    from gymnast_core.config import load_config
    from gymnast_core.config.schema import RunConfig

    preset = PACKAGE / "gymnast_simpler" / "presets" / "simpler.yaml"
    config = load_config(RunConfig, str(preset), ["policy.args.checkpoint=x"])
    learned, measured = config.tasks.args["environments"], config.evaluation.tasks.args["environments"]
    totals = {"spoon-on-towel": 24, "carrot-on-plate": 24, "stack-cubes": 24, "eggplant-in-basket": 64}
    assert [family["name"] for family in learned] == list(totals)
    for one, other in zip(learned, measured, strict=True):
        assert one["first"] == 0 and other["first"] == one["count"]
        assert one["count"] + other["count"] == totals[one["name"]]
