"""benchmarks/paper_adaptation.py: what it runs, on tiny models, and what it says of numbers that are known."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small import CommandLine, save_models

from gymnast_adapt.config import AdaptConfig
from gymnast_core.cli import config_from
from gymnast_core.plugins.compose import registries

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper_adaptation as pa  # noqa: E402


def test_every_adaptation_can_be_built_and_no_task_is_met_twice(tmp_path: Path) -> None:
    options = pa.parse(["--output", str(tmp_path)])
    wanted = pa.units(options)
    assert len(wanted) == 100 and len({unit.folder(options) for unit in wanted}) == 100
    firsts = sorted(unit.first for unit in wanted)
    assert all(after - before >= 1 + options.others for before, after in itertools.pairwise(firsts))
    for unit in (wanted[0], wanted[-1]):
        for arm in pa.ARMS:
            config = config_from(AdaptConfig, tuple(pa.adaptation(unit, arm, options)), None)
            assert config.target is not None and config.target.args["split"] == "reporting"
            assert config.target.args["first"] == unit.first and config.retention is None
            assert config.loop.iterations == 3 and config.seed == unit.number
            protect = config.protect
            assert (protect.kl_coefficient, protect.share) == ((0.05, 0.5) if arm == "protected" else (0.0, 0.0))
            assert protect.tasks is None or protect.tasks.args["split"] == "training"
        part = pa.evaluation(unit, {"name": "openvla-oft", "args": {}}, options)["tasks"]
        tasks = registries().datasets.build(part["name"], part["args"]).tasks()
        target = registries().datasets.build("tabletop", {"split": "reporting", "first": unit.first, "count": 1})
        assert len(tasks) == 61 and tasks[0].id == target.tasks()[0].id
    assert {unit.split for unit in pa.units(pa.parse(["--pilot"]))} == {"choosing"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Commands run in this process, one after another; the arguments of those that were run."""
    command_line, ran = CommandLine(monkeypatch, capsys), []

    def run(commands: Sequence[tuple[Sequence[str], Path]], jobs: int) -> None:
        for arguments, _ in commands:
            done = command_line(*arguments)
            assert done.code == 0, done.err
            ran.append(list(arguments))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pa, "gymnast_at_once", run)
    return ran


def test_it_plans_runs_and_goes_on(here: list[list[str]], tmp_path: Path) -> None:
    models = save_models(tmp_path / "models")
    small = [
        f"world_model.args.checkpoint={models.world}", f"policy.args.checkpoint={models.policy}",
        "policy.args.chunk_length=2", f"reward_model.args.checkpoint={models.judge}", "optimizer.args.group_size=2",
        "optimizer.args.minibatch_size=4", "loop.iterations=1", "loop.tasks_per_iteration=2", "loop.horizon=4",
        "target.args.horizon=4", "trials=3", "batch_size=4",
    ]  # fmt: skip
    arguments = [
        "--seeds", "1", "--scenes", "1", "--others", "3", "--pilot-scenes", "2", "--jobs", "1", "--output", "out",
        "--results", "results", "--adapt", *small, "--evaluate", "horizon=4", "tasks.args.horizon=4",
        "--protecting", json.dumps({"horizon": 4}),
    ]  # fmt: skip
    pa.main(arguments)
    assert [words[0] for words in here] == ["adapt", "adapt", "evaluate"]
    data = json.loads(Path("results/paper_adaptation.json").read_text())
    assert data["pilot"] is None and len(data["units"]) == 1
    unit = data["units"][0]
    folder = Path("out/reporting/1-00")
    rows = [json.loads(line) for line in (folder / "greedy/results.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * (1 + 3) and unit["instruction"] == rows[0]["instruction"]
    values = [row["value"] for row in rows if row["policy"] == "plain" and row["index"] > 0]
    assert unit["others"]["plain"] == sum(values) / 3
    plain = json.loads((folder / "plain/summary.json").read_text())["target"]["environment"]
    assert unit["target"]["plain"] == plain["after"]["rate"] and plain["after"]["n"] == 3
    # The scene that was adapted to is the first that is measured.
    first = json.loads((folder / "plain/target/results.jsonl").read_text().splitlines()[0])
    assert first["task"] == next(row["task"] for row in rows if row["index"] == 0)
    assert not (folder / "plain/training/snapshots").exists()

    # As a kill in the middle leaves it: what is done is not done again.
    shutil.rmtree(folder / "greedy")
    (folder / "protected/summary.json").unlink()
    here.clear()
    pa.main(arguments)
    assert [words[:2] for words in here] == [
        ["adapt", "--resume"],
        ["evaluate", str(tmp_path / folder / "evaluate.yaml")],
    ]
    assert json.loads(Path("results/paper_adaptation.json").read_text()) == data
    with pytest.raises(SystemExit, match="others 3, now 4"):
        pa.main([*arguments, "--others", "4"])


def rows(changes: Sequence[tuple[float, float, float, float]]) -> list[dict[str, Any]]:
    """Units of which the target rises by so much, plain and protected, and other tasks change by so much."""
    return [
        {
            "seed": 1 + i % 2, "scene": i, "instruction": "", "updates": {"plain": 9 * (i > 0), "protected": 6},
            **{
                what: {"before": 0.4, "plain": 0.4 + plain, "protected": 0.4 + protected}
                for what, plain, protected in (("target", a, b), ("imagined", a, b), ("greedy", a, b), ("others", c, d))
            },
        }
        for i, (a, b, c, d) in enumerate(changes)
    ]  # fmt: skip


def test_claims_have_their_signs() -> None:
    found = pa.differences(rows([(0.3, 0.2, -0.2, -0.05)]))
    assert {claim: round(values[0], 9) for claim, values in found.items()} == {
        pa.RISES: 0.3, pa.RISES_PROTECTED: 0.2, pa.FALL: 0.2, pa.KEEPS: 0.15,
    }  # fmt: skip


def test_the_pilot_plans_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    units = rows([(0.3, 0.2, -0.2, 0.0), (0.4, 0.0, -0.1, 0.02), (0.1, -0.1, -0.25, -0.02)])
    monkeypatch.setattr(pa, "adapt_and_measure", lambda wanted, options: None)
    monkeypatch.setattr(pa, "measured", lambda unit, options: units[unit.scene])
    pa.main(["--pilot", "--pilot-scenes", "3", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "pilot.json").read_text())
    assert found == pa.plan(pa.differences(units), 100, smallest=pa.SMALLEST)
    assert found[pa.RISES]["standard_deviation"] == pytest.approx(0.152753, abs=1e-6)  # of 0.3, 0.4, 0.1
    assert "power of 100" in capsys.readouterr().out


def test_the_page_says_what_was_found() -> None:
    units = rows([(0.3, 0.2, -0.2, 0.0), (0.4, 0.0, -0.2, 0.02), (0.35, -0.1, -0.25, -0.02), (0.3, 0.1, -0.22, 0.01)])
    claims = pa.settle(pa.differences(units), smallest=pa.SMALLEST)
    data = {
        "settings": {"others": 60, "trials": 32, "iterations": 3}, "seeds": 2, "scenes": 2, "units": units,
        "claims": claims, "pilot": pa.plan(pa.differences(units), 4, smallest=pa.SMALLEST),
    }  # fmt: skip
    assert {claim: row["verdict"] for claim, row in claims.items()} == {
        pa.RISES: "shows here", pa.RISES_PROTECTED: "not resolved", pa.FALL: "shows here", pa.KEEPS: "shows here",
    }  # fmt: skip
    page = pa.page(data)
    assert "| the target, sampled, in the simulator | 40.0" in page and "| 73.8 ± 2.4 |" in page
    assert f"{pa.RISES} +32.5, +35.0" in page
    assert "plain 6.8 (1 scenes without any), protected 6.0 (0 scenes without any)" in page
    assert "the smallest effect of interest with a power of 0.9 at 0.01 / 4" in page


@pytest.mark.skipif(
    not (ROOT / "benchmarks/results/paper_adaptation.json").exists(), reason="the benchmark has not been run here"
)
def test_the_page_is_that_of_the_numbers() -> None:
    data = json.loads((ROOT / "benchmarks/results/paper_adaptation.json").read_text())
    assert (ROOT / "benchmarks/results/paper_adaptation.md").read_text() == pa.page(data)
    assert data["claims"] == pa.settle(pa.differences(data["units"]), smallest=pa.SMALLEST)
