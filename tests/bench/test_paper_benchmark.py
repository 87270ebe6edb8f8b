"""benchmarks/paper.py on tiny models, killed and run again; and what it says of numbers that are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small import Models, save_models

from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, run_config
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper  # noqa: E402


def test_every_arm_is_a_training_that_can_be_built() -> None:
    options = paper.parse(["--seeds", "2"])
    names = list(paper.arms(1, 64))
    matrix = {key: value for key, value in paper.matrix(names, [1, 2], options).items() if key != "kind"}
    cells = cells_of(typed(BenchConfig, matrix))
    assert len(cells) == 2 * len(names) == 14
    starts, reported = {}, set()
    for cell in cells:
        config = run_config(cell)
        tasks = registries().datasets.build(config.tasks.name, config.tasks.args).tasks()
        starts[cell.labels["arm"], cell.seed] = {tasks[index].start.seed for index in range(8)}
        assert len(tasks) == (4096 if cell.labels["arm"] == "+ more tasks" else 64)
        assert config.evaluation.tasks is not None
        reported.add((config.evaluation.tasks.args["split"], config.evaluation.tasks.args["first"]))
        assert (config.loop.iterations == 0) == (cell.labels["arm"] == "sft")
        is_simulator = cell.labels["arm"] == "simulator with a gap"
        assert (config.world_model.name, config.reward_model.name) == (
            ("gymnasium", "environment") if is_simulator else ("worldgym", "success-classifier")
        )
        assert (tasks[0].start.args.get("gap") == paper.GAP) == is_simulator
    assert reported == {("reporting", 400_400), ("reporting", 400_800)}
    # Arms of one seed meet the same starts; seeds meet others.
    assert len({frozenset(starts[arm, 1]) for arm in names}) == 1
    assert not starts["sft", 1] & starts["sft", 2]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("paper")
    models: Models = save_models(folder / "models")
    train = [item for item in models.overrides() if not item.startswith("output=")]
    evaluate = [
        f"worlds.imagination.args.checkpoint={models.world}", f"rewards.imagination.args.checkpoint={models.judge}",
        "horizon=4", "tasks.args.horizon=4",
    ]  # fmt: skip
    return [
        "--seeds", "1", "--episodes", "3", "--jobs", "2", "--arms", "sft", "world model", "--sets", "as they are",
        "--output", str(folder / "out"), "--results", str(folder / "results"), "--train", *train,
        "--evaluate", *evaluate,
    ]  # fmt: skip


def test_it_runs_and_runs_again_without_work(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    paper.main(options)
    results = Path(options[options.index("--results") + 1])
    data = json.loads((results / "paper.json").read_text())
    assert set(data["rates"]) == {"sft", "world model"}
    assert all(len(values) == 1 for row in data["rates"].values() for values in row["as they are"].values())
    assert data["cost"]["trials"] == 2 * 2 * 3 and data["cost"]["unscored"] == 0
    assert (results / "paper.md").read_text() == paper.page(data)
    output = Path(options[options.index("--output") + 1])
    trials = (output / "evaluation-1-as-they-are/results.jsonl").read_bytes()
    cells = {path: path.read_bytes() for path in output.glob("bench/cells/*/result.json")}
    assert len(cells) == 2
    # As a kill after the training leaves it.
    (output / "evaluation-1-as-they-are/results.jsonl").write_bytes(trials[: len(trials) // 2])
    paper.main(options)
    assert sorted((output / "evaluation-1-as-they-are/results.jsonl").read_bytes().splitlines()) == sorted(
        trials.splitlines()
    )
    assert {path: path.read_bytes() for path in cells} == cells
    assert json.loads((results / "paper.json").read_text())["rates"] == data["rates"]


def known(better: list[float], worse: list[float]) -> dict[str, Any]:
    return {
        "a": {"as they are": {"simulator": better, "imagination": better}},
        "b": {"as they are": {"simulator": worse, "imagination": worse}},
    }


def test_a_claim_shows_only_if_its_interval_leaves_zero() -> None:
    claim = paper.Claim("a", "b", "as they are", "")
    shown = paper.verdict(claim, known([0.5, 0.6, 0.7], [0.4, 0.5, 0.58]))
    # Differences 0.1, 0.1, 0.12: mean 0.1067, error 0.00667, t(0.975, 2) = 4.303.
    assert shown["mean"] == pytest.approx(0.32 / 3) and shown["standard_error"] == pytest.approx(0.02 / 3)
    assert shown["interval"] == pytest.approx([0.32 / 3 - 4.3027 * 0.02 / 3, 0.32 / 3 + 4.3027 * 0.02 / 3], abs=1e-4)
    assert shown["verdict"] == "shows here"
    assert paper.verdict(claim, known([0.4, 0.5, 0.58], [0.5, 0.6, 0.7]))["verdict"] == "the contrary shows here"
    assert paper.verdict(claim, known([0.5, 0.6], [0.4, 0.61]))["verdict"] == "not resolved"
    assert paper.verdict(claim, known([0.5], [0.4]))["verdict"] == "one seed: not tested"


@pytest.mark.skipif(not (ROOT / "benchmarks/results/paper.json").exists(), reason="the benchmark has not been run here")
def test_the_page_says_what_the_numbers_say() -> None:
    data = json.loads((ROOT / "benchmarks/results/paper.json").read_text())
    assert (ROOT / "benchmarks/results/paper.md").read_text() == paper.page(data)
    for claim in data["claims"]:
        fields = {key: claim[key] for key in ("better", "worse", "on", "source")}
        assert claim == {
            **fields,
            "differences": claim["differences"],
            **paper.verdict(paper.Claim(**fields), data["rates"]),
        }
