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
from gymnast_core.config.load import parse_overrides
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries
from gymnast_tabletop.datasets import TabletopTasks
from gymnast_tabletop.instructions import HELD_OUT, parse

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper  # noqa: E402


def test_every_arm_is_a_training_that_can_be_built() -> None:
    options = paper.parse(["--seeds", "2"])
    names = list(paper.arms(1, 64))
    matrix = {key: value for key, value in paper.matrix(names, [1, 2], options).items() if key != "kind"}
    cells = cells_of(typed(BenchConfig, matrix))
    assert len(cells) == 2 * len(names) == 18
    starts, reported = {}, set()
    for cell in cells:
        config = run_config(cell)
        tasks = registries().datasets.build(config.tasks.name, config.tasks.args).tasks()
        starts[cell.labels["arm"], cell.seed] = {tasks[index].start.seed for index in range(8)}
        assert len(tasks) == {"+ more tasks": 4096}.get(cell.labels["arm"], 64)
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


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_new_is_in_neither_demonstrations_nor_training(seed: int) -> None:
    """The arms that claims compare on a set, and the set's tasks: which instructions, how many blocks."""
    reported = {
        name: TabletopTasks(TabletopTasks.Config(split="reporting", count=6, image_size=8, **changes)).tasks()
        for name in paper.SETS
        for changes in [paper.changes_of(name, seed)]
    }
    asked = {name: {parse(task.instruction) for task in tasks} for name, tasks in reported.items()}
    assert len(asked["new instruction"]) == 1 and asked["new instruction"] < set(HELD_OUT)
    assert asked["held-out pairs"] <= set(HELD_OUT) and not asked["as they are"] & set(HELD_OUT)
    assert {task.start.args["n_blocks"] for task in reported["third block"] if task.start} == {3}
    overrides, trained, blocks = paper.arms(seed, 32), {}, {}
    for arm in ("world model", "+ new instruction", "+ third block"):
        part = parse_overrides(overrides[arm])["tasks"]
        tasks = registries().datasets.build(part["name"], part["args"]).tasks()
        trained[arm] = {parse(task.instruction) for task in tasks} & set(HELD_OUT)
        blocks[arm] = [task.start.args["n_blocks"] for task in tasks if task.start]
    assert not trained["world model"] and not trained["+ third block"]
    assert len(trained["+ new instruction"]) == 1 and not trained["+ new instruction"] & asked["new instruction"]
    assert blocks["+ third block"] == [2] * 22 + [3] * 10 and set(blocks["+ new instruction"]) == {2}


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


def known(**rates: list[float]) -> dict[str, Any]:
    """Measured on the tasks as they are, in the simulator, by arm."""
    return {arm.replace("_", " "): {"as they are": {"simulator": values}} for arm, values in rates.items()}


def test_claims_are_corrected_for_their_number() -> None:
    found = paper.settled(known(sft=[0.4, 0.5, 0.58], world_model=[0.5, 0.6, 0.7]))
    # Differences 0.1, 0.1, 0.12: mean 0.1067, error 0.00667, t(0.975, 2) = 4.303; t = 16, p = 0.0039.
    assert [(row["better"], row["worse"]) for row in found] == [("world model", "sft")]
    assert found[0]["mean"] == pytest.approx(0.32 / 3) and found[0]["standard_error"] == pytest.approx(0.02 / 3)
    assert found[0]["interval"] == pytest.approx([0.32 / 3 - 4.3027 * 0.02 / 3, 0.32 / 3 + 4.3027 * 0.02 / 3], abs=1e-4)
    assert found[0]["p"] == pytest.approx(0.0039, abs=1e-4) and found[0]["verdict"] == "shows here"
    # Beside two other claims, three times 0.0039 is no longer below 0.01.
    found = paper.settled(
        known(**{"sft": [0.4, 0.5, 0.58], "iter-sft": [0.5, 0.6, 0.58], "world_model": [0.5, 0.6, 0.7]})
    )
    assert [row["verdict"] for row in found] == ["not resolved"] * 3
    assert found[1]["corrected"] == pytest.approx(3 * 0.0039, abs=1e-4)
    assert paper.settled({}) == []


def test_a_pilot_looks_at_other_tasks_and_stays_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = known(sft=[0.4, 0.5], world_model=[0.5, 0.7])
    planned = {"plan": paper.plan({name: values for name, (_, values) in paper.claims_in(arms).items()}, 5)}
    assert planned["plan"]["world model > sft on as they are"]["standard_deviation"] == pytest.approx(0.0707, abs=1e-4)
    options = paper.parse(["--pilot"])
    cells = paper.matrix(["sft"], [101], options)["adjust"][0]["overrides"]
    assert any('"split": "choosing"' in override for override in cells)
    run = json.loads((ROOT / "benchmarks/results/paper.json").read_text())
    monkeypatch.setattr(paper, "run", lambda options: {"pilot": planned["plan"]} if options.pilot else run)
    for mode in (["--pilot"], [], ["--pilot"]):
        paper.main(["--results", str(tmp_path), *mode])
    assert json.loads((tmp_path / "paper.json").read_text()) == {**run, "pilot": planned["plan"]}
    assert paper.page(run) + "\n" == (tmp_path / "paper.md").read_text()[: len(paper.page(run)) + 1]


def test_a_seed_trains_on_one_new_pair_and_is_asked_for_the_other() -> None:
    assert paper.new_pairs(1) == ("blue-left", "yellow-top") and paper.new_pairs(2) == ("yellow-top", "blue-left")


@pytest.mark.skipif(not (ROOT / "benchmarks/results/paper.json").exists(), reason="the benchmark has not been run here")
def test_the_page_says_what_the_numbers_say() -> None:
    data = json.loads((ROOT / "benchmarks/results/paper.json").read_text())
    assert (ROOT / "benchmarks/results/paper.md").read_text() == paper.page(data)
    assert data["claims"] == paper.settled(data["rates"])
