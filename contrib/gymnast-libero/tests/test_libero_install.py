"""Installed by pip beside gymnast, without LIBERO: its presets are listed, and say what is lacking."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
pytest.importorskip("gymnast_core", reason="gymnast is not installed in this interpreter")

from gymnast_core.config import load_config  # noqa: E402
from gymnast_core.config.schema import RunConfig  # noqa: E402
from gymnast_evaluation.config import EvaluateConfig  # noqa: E402

from gymnast_libero.random_policy import write_random_policy  # noqa: E402
from gymnast_libero.suites import HORIZONS, STATES, TASKS  # noqa: E402

EVALUATIONS = {
    "evaluate-libero": "libero_spatial",
    "evaluate-libero-object": "libero_object",
    "evaluate-libero-goal": "libero_goal",
    "evaluate-libero-10": "libero_10",
    "evaluate-libero-90": "libero_90",
}


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
    for name in EVALUATIONS:
        assert f"{name}\tgymnast evaluate\tgymnast-libero" in listed
    assert "libero\tgymnast train\tgymnast-libero" in listed


@pytest.mark.parametrize(("command", "preset"), [("evaluate", "evaluate-libero"), ("train", "libero")])
def test_a_preset_asks_for_the_checkpoint(installed, command, preset):
    done = gymnast(installed, command, preset)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "policy.args.checkpoint=VALUE" in done.stderr


def test_without_libero_the_error_says_how_to_install_it(installed, tmp_path):
    if importlib.util.find_spec("libero") is not None:
        pytest.skip("LIBERO is installed in this interpreter")
    write_random_policy(tmp_path / "policy")
    done = gymnast(installed, "evaluate", "evaluate-libero", f"policy.args.checkpoint={tmp_path / 'policy'}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "gymnast-libero[environment]" in done.stderr and "hosting.python" in done.stderr


def test_the_presets_hold_every_task_and_differ_in_nothing_else():
    loaded = {name: _loaded(EvaluateConfig, name) for name in EVALUATIONS}
    for name, suite in EVALUATIONS.items():
        families = loaded[name].tasks.args["environments"]
        assert [family["args"] for family in families] == [{"suite": suite, "task": i} for i in range(TASKS[suite])]
        assert {family["count"] for family in families} == {STATES}
        # An episode ends by itself at its horizon; whole chunks of 8 reach it.
        assert 0 <= loaded[name].horizon - HORIZONS[suite] < 8 and loaded[name].horizon % 8 == 0
        assert loaded[name].policy.args["unnorm_key"] == f"{suite}_no_noops"
    first, *others = loaded.values()
    assert all(other.world_model == first.world_model and other.seed == first.seed for other in others)


def test_states_to_learn_from_and_states_to_measure_are_all_fifty_and_share_none():
    config = _loaded(RunConfig, "libero")
    learned, measured = config.tasks.args["environments"], config.evaluation.tasks.args["environments"]
    assert [family["args"] for family in learned] == [family["args"] for family in measured]
    assert {(family["first"], family["count"]) for family in learned} == {(0, 40)}
    assert {(family["first"], family["count"]) for family in measured} == {(40, 10)}


def _loaded(schema, name: str):
    preset = PACKAGE / "gymnast_libero" / "presets" / f"{name}.yaml"
    return load_config(schema, str(preset), ["policy.args.checkpoint=x"])
