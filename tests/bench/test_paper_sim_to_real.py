"""benchmarks/paper_sim_to_real.py: the gaps, what is trained and measured, and what it says of known numbers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import cells_of, run_config
from gymnast_core.config.typed import typed
from gymnast_core.plugins.compose import registries
from gymnast_evaluation.config import EvaluateConfig
from gymnast_tabletop.gap import STANDARD, Gap

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper  # noqa: E402
import paper_sim_to_real as curve  # noqa: E402


def test_gaps_grow_from_none_to_twice_that_of_the_paper() -> None:
    assert Gap(**curve.scaled(0)) == STANDARD
    assert curve.scaled(1) == paper.GAP
    double, half = Gap(**curve.scaled(2)), curve.scaled(0.5)
    assert_allclose(double.camera_shift, [0.02, -0.02])
    found = (double.camera_zoom, double.hue, double.brightness, double.friction)
    assert found == pytest.approx((1.21, 30.0, 0.7225, 0.09))
    assert half["friction"] == pytest.approx(0.547723, abs=1e-6) and half["hue"] == 7.5
    with pytest.raises(ValueError, match="0 or more"):
        curve.scaled(-0.5)


def test_every_arm_can_be_built(tmp_path: Path) -> None:
    options = curve.parse(["--seeds", "2", "--output", str(tmp_path)])
    arms = [*map(curve.gap_arm, options.factors), curve.WORLD]
    matrix = curve.matrix(arms, [1, 2], tmp_path / "bench", options)
    cells = cells_of(typed(BenchConfig, {key: value for key, value in matrix.items() if key != "kind"}))
    assert len(cells) == 12
    starts = {}
    for cell in cells:
        config, arm = run_config(cell), cell.labels["arm"]
        tasks = registries().datasets.build(config.tasks.name, config.tasks.args).tasks()
        starts[arm, cell.seed] = tasks[0].start.seed
        assert len(tasks) == 4096 and config.evaluation.tasks is None
        assert (config.loop.iterations, config.loop.tasks_per_iteration) == (12, 48)
        is_world = arm == curve.WORLD
        assert config.world_model.name == ("worldgym" if is_world else "gymnasium")
        assert config.reward_model.name == ("success-classifier" if is_world else "environment")
        gap = tasks[0].start.args.get("gap", {})
        wanted = {} if is_world else Gap(**curve.scaled(float(arm.split()[1]))).changes()
        assert gap == wanted and (not gap) == (arm in ("gap 0", curve.WORLD))
    # Arms of a seed meet the same starts, seeds others, and none those of benchmarks/paper.py.
    assert len({starts[arm, 1] for arm in arms}) == 1 and starts["gap 0", 1] + 4096 == starts["gap 0", 2]
    assert starts["gap 0", 1] > 100 * paper.MANY


def test_policies_are_measured_without_a_gap(tmp_path: Path) -> None:
    options = curve.parse(["--output", str(tmp_path)])
    paths = {curve.SHIPPED: "a", "gap 0.5": "b", curve.WORLD: "c"}
    told = curve.evaluation(paths, 3, options)
    config = typed(EvaluateConfig, {key: value for key, value in told.items() if key != "kind"})
    assert list(config.policies) == ["shipped", "gap-0.5", "world-model"] and config.temperature == 0
    tasks = registries().datasets.build("tabletop", config.tasks.args).tasks()
    assert len(tasks) == 1000 and "gap" not in tasks[0].start.args
    assert config.tasks.args["split"] == "reporting"
    options.pilot = True
    assert curve.evaluation(paths, 3, options)["tasks"]["args"]["split"] == "choosing"


@pytest.mark.parametrize("wrong", [["--factors", "1"], ["--factors", "1", "0"], ["--factors", "-1", "0"]])
def test_factors_that_make_no_curve_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        curve.parse(wrong)


def test_where_the_curves_cross() -> None:
    factors = [0.0, 0.5, 1.0]
    assert curve.crossing([0.2, 0.1, -0.1], factors) == pytest.approx(0.75)
    assert curve.crossing([0.3, -0.1, -0.2], factors) == pytest.approx(0.375)
    assert curve.crossing([0.2, 0.1, 0.01], factors) == math.inf
    assert curve.crossing([-0.01, -0.1, -0.2], factors) == -math.inf
    # Up and down again by noise: the mean of what is out of order counts (0.1 and 0.3 -> 0.2, twice).
    assert curve.crossing([0.1, 0.3, -0.2], factors) == pytest.approx(0.75)


def rates(world: list[float], **arms: list[float]) -> dict[str, list[float]]:
    return {**{f"gap {name[1:].replace('_', '.')}": row for name, row in arms.items()}, curve.WORLD: world}


def test_what_is_said_of_the_crossing() -> None:
    factors = [0.0, 1.0, 2.0]
    found = rates([0.6, 0.6], g0=[0.7, 0.72], g1=[0.65, 0.65], g2=[0.55, 0.55])
    assert curve.crossings(found, factors) == {
        "at": "1.50", "interval": ["1.50", "1.50"],
        "said": "crosses between the gaps 1 and 2, at 1.50 (95 %: 1.50 to 1.50)",
    }  # fmt: skip
    never = rates([0.6, 0.6], g0=[0.5, 0.72], g1=[0.5, 0.5], g2=[0.4, 0.4])
    said = curve.crossings(rates([0.6], g0=[0.7], g1=[0.7], g2=[0.65]), factors)
    assert said["interval"] is None and said["said"].startswith(
        "does not cross in what was tried: RL in the simulator is better"
    )
    wide = curve.crossings(never, factors)  # the means: 0.01 ahead, then 0.1 behind; one seed alone: never ahead
    assert wide["at"] == "0.09" and wide["interval"][0] == "none, below from 0 on"


def test_claims_have_their_signs_and_the_page_says_them() -> None:
    factors = [0.0, 1.0, 2.0]
    found = {
        curve.SHIPPED: [0.4, 0.41, 0.39],
        **rates([0.66, 0.67, 0.65], g0=[0.7, 0.72, 0.7], g1=[0.65, 0.64, 0.66], g2=[0.5, 0.48, 0.51]),
    }
    differences = curve.differences(found, factors)
    # Least squares through three equidistant points: the slope over the range is last minus first.
    assert_allclose(differences[curve.FALLS], [0.2, 0.24, 0.19])
    assert_allclose(differences[curve.BEATS], [0.16, 0.19, 0.14])
    data = {
        "settings": {"factors": factors, "episodes": 1000}, "seeds": [1, 2, 3], "rates": found,
        "claims": curve.settle(differences, smallest=curve.SMALLEST), "crossing": curve.crossings(found, factors),
        "pilot": curve.plan(differences, 5), "cost": {"cells": 12, "cell_minutes": 30.0},
    }  # fmt: skip
    page = curve.page(data)
    assert "The curve crosses between the gaps 0 and 1, at 0.82" in page
    assert "| gap 2 | 20, 1.21, 30, 0.722, 0.09 | 49.7 ± 0.9 |" in page
    assert "| not trained (shipped) |  | 40.0 ± 0.6 |" in page


def test_the_pilot_plans_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def train(arms: list[str], seeds: list[int], options: object) -> dict:
        asked.extend([arms, seeds])
        return {}

    found = rates([0.66, 0.67, 0.65], g0=[0.7, 0.72, 0.7], g2=[0.5, 0.48, 0.51])
    monkeypatch.setattr(curve, "train", train)
    monkeypatch.setattr(curve, "measure", lambda trained, seeds, options: found)
    curve.main(["--pilot", "--output", str(tmp_path)])
    assert asked == [["gap 0", "gap 2", curve.WORLD], [51, 52, 53]]
    plan = json.loads((tmp_path / "pilot.json").read_text())
    assert plan[curve.BEATS]["smallest"] == 0.1
    assert plan[curve.BEATS]["standard_deviation"] == pytest.approx(0.025166, abs=1e-6)  # of 0.16, 0.19, 0.14
    assert f"{plan[curve.BEATS]['needed']} (" in capsys.readouterr().out


@pytest.mark.skipif(
    not (ROOT / "benchmarks/results/paper_sim_to_real.json").exists(), reason="the benchmark has not been run here"
)
def test_the_page_is_that_of_the_numbers() -> None:
    data = json.loads((ROOT / "benchmarks/results/paper_sim_to_real.json").read_text())
    assert (ROOT / "benchmarks/results/paper_sim_to_real.md").read_text() == curve.page(data)
    factors = data["settings"]["factors"]
    assert data["claims"] == curve.settle(curve.differences(data["rates"], factors), smallest=curve.SMALLEST)
    assert data["crossing"] == curve.crossings(data["rates"], factors)
