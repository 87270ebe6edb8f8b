"""benchmarks/algorithms.py: every arm can be built, budgets are equal, and known numbers come out as what they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, run_config
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import algorithms


def cells(*arguments: str):
    options = algorithms.parse(["--seeds", "2", *arguments])
    matrix = {key: value for key, value in algorithms.matrix(options).items() if key != "kind"}
    return cells_of(typed(BenchConfig, matrix))


@pytest.fixture(scope="module")
def configs():
    return {(cell.labels["algorithm"], cell.seed): run_config(cell) for cell in cells()}


def test_every_arm_is_a_training_that_can_be_built(configs) -> None:
    assert {arm for arm, _ in configs} == set(algorithms.ARMS)
    for (_, seed), config in configs.items():
        registries().optimizers.build(config.optimizer.name, config.optimizer.args)
        registries().reward_models.build(config.reward_model.name, config.reward_model.args)
        assert config.evaluation.tasks.args["first"] == 500_000 + seed * 400 and config.evaluation.every == 3
        assert config.tasks.args["seed" if config.tasks.name == "episode-starts" else "first"] in (seed, seed * 4096)
    assert str(Path("runs/algorithms/slow-demos").resolve()) in str(configs["iter-sft", 1].demonstrations)
    assert str(Path("runs/algorithms/play").resolve()) in str(configs["branched", 1].tasks)
    assert configs["branched", 1].evaluation_horizon == configs["grpo", 1].evaluation_horizon == 16


def test_budgets_of_imagined_frames_are_equal(configs) -> None:
    """Within a twentieth, at 55 % of successes for `twice` and three draws for `dapo`."""
    budgets = {}
    for (arm, _), config in configs.items():
        again = {**algorithms.AGAIN, "twice": 0.55}.get(arm, 0.0)
        rollouts = config.loop.iterations * config.loop.tasks_per_iteration * config.optimizer.args["group_size"]
        draws = 3 if arm == "dapo" else 1
        budgets[arm] = rollouts * config.loop.horizon * (1 + again) * draws
        assert (config.loop.max_draws == 1) == (arm != "dapo")
    assert all(budget == pytest.approx(budgets["grpo"], rel=0.05) for budget in budgets.values())


def test_a_share_of_the_batches_leaves_as_many_steps() -> None:
    for cell in cells("--share", "0.125", "--arms", "ppo", "twice", "--train", "loop.iterations=2"):
        config = run_config(cell)
        tasks, minibatch = (6, 12) if cell.labels["algorithm"] == "ppo" else (4, 8)
        assert (config.loop.tasks_per_iteration, config.optimizer.args["minibatch_size"]) == (tasks, minibatch)
        assert config.loop.iterations == 2


def test_success_on_the_way_by_hand() -> None:
    assert algorithms.area([(0.0, 0.2), (4.0, 0.6), (8.0, 0.6)]) == pytest.approx((0.4 + 0.6) / 2)
    assert algorithms.area([(0.0, 0.3)]) == 0.3


@pytest.mark.parametrize(("attempts", "known"), [(1, 90.0), (2, None)])
def test_the_time_of_a_training_is_known_if_it_was_begun_once(
    attempts: int, known: float | None, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"cpu_seconds": 90.0, "seconds": 400.0, "attempts": attempts}))
    assert algorithms.cpu_seconds(tmp_path) == known


def test_the_page_says_what_was_measured() -> None:
    def cell(after: float, called: int, confirmed: int, cpu_seconds: float | None = 600.0) -> dict:
        replay = {"rollouts": 8, "scored": 8, "called_success": called, "confirmed": confirmed, "real": 4}
        return {
            "before": 0.3, "after": after, "gain": after - 0.3, "curve": [], "mean_on_the_way": 0.4, "frames": 73_728,
            "cpu_seconds": cpu_seconds, "replay": replay, "steps": 108, "stated": None,
        }  # fmt: skip

    found = {"grpo": [cell(0.6, 4, 3), cell(0.7, 4, 4, None)], "ppo": [cell(0.7, 0, 0), cell(0.8, 0, 0)]}
    against = {arm: algorithms.against([c["after"] for c in row], [0.6, 0.7]) for arm, row in found.items()}
    settings = {"episodes": 400, "replayed": 8, "train": [], "share": 1.0, "demonstrations": 10}
    text = algorithms.page({"seeds": [1, 2], "settings": settings, "cells": found, "against": against})
    assert "smoke run" in text
    assert "| grpo | 30.0 ± 0.0 | 65.0 ± 5.0 |  | 40.0 ± 0.0 | 87.5 (8) | 73.7 | 108 | 10.0 |" in text
    assert (
        "| ppo | 30.0 ± 0.0 | 75.0 ± 5.0 | +10.0 [+10.0, +10.0] | 40.0 ± 0.0 | none called | 73.7 | 108 | 10.0 |"
        in text
    )
