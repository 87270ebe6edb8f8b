"""benchmarks/paper_statistics.py against numbers that are known from elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import paper_statistics as ps


def test_paired_is_students_t_test() -> None:
    # Student's own sleep data (Biometrika 6, 1908): t = 4.0621, df = 9, p = 0.002833, 95 %: 0.7001 to 2.4599.
    sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    found = ps.paired(sleep)
    assert found["mean"] == pytest.approx(1.58) and found["mean"] / found["standard_error"] == pytest.approx(
        4.0621, abs=1e-4
    )
    assert found["interval"] == pytest.approx([0.7001, 2.4599], abs=1e-4)
    assert found["p"] == pytest.approx(0.002833, abs=1e-6)


@pytest.mark.parametrize("values", [[0.2], [0.2, 0.2, 0.2], [0.0, 0.0]])
def test_without_a_spread_nothing_is_claimed(values: list[float]) -> None:
    found = ps.paired(values)
    assert found["interval"] is None and found["p"] == 1.0
    assert ps.judgement(found["mean"], found["interval"], found["p"]) == "not resolved"
    with pytest.raises(ValueError, match="no differences"):
        ps.paired([])


def test_units_needed_are_those_of_the_books() -> None:
    # R: power.t.test(delta = .5, sd = 1, sig.level = .05, power = .8, type = "paired") says 33.367, for
    # delta = 1, power = .9, sig.level = .01 it says 17.66 (both rounded up, G*Power as well).
    assert ps.needed(1.0, 0.5, power=0.8, alpha=0.05) == 34
    assert ps.needed(1.0, 1.0, power=0.9, alpha=0.01) == 19
    assert ps.needed(0.0, 0.1) == 2
    with pytest.raises(ValueError, match="effect of 0"):
        ps.needed(1.0, 0.0)
    with pytest.raises(ValueError, match="More than"):
        ps.needed(1.0, 1e-6)


def test_power_is_how_often_the_test_finds_it() -> None:
    samples = np.random.default_rng(0).normal(0.1, 0.15, (20_000, 12))
    share = float((stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean())
    assert ps.power_of(12, 0.15, 0.1, alpha=0.05) == pytest.approx(share, abs=0.01)
    assert ps.power_of(200, 0.05, 0.5) == pytest.approx(1.0)


def test_what_a_result_says() -> None:
    said = ps.judgement
    assert said(0.1, [0.05, 0.15], 0.001) == "shows here"
    assert said(-0.1, [-0.15, -0.05], 0.001) == "the contrary shows here"
    assert said(0.01, [-0.02, 0.04], 0.5) == "does not"
    assert said(0.01, [-0.04, 0.06], 0.5) == "not resolved"
    assert said(0.01, [-0.04, 0.06], 0.5, smallest=0.07) == "does not"
    assert said(0.1, [0.01, 0.19], 0.02) == "not resolved"  # below 0.05, but not below alpha
    assert said(0.1, [0.01, 0.19], 0.02, alpha=0.05) == "shows here"


def test_claims_of_a_page_are_corrected_together() -> None:
    strong, weak = [0.1, 0.11, 0.12, 0.1, 0.13], [0.1, 0.02, 0.12, 0.05, 0.11]
    alone, both = ps.settle({"weak": weak}), ps.settle({"weak": weak, "strong": strong, "none": [0.01, -0.01, 0.0]})
    assert alone["weak"]["corrected"] == alone["weak"]["p"] < 0.05
    assert both["strong"]["corrected"] == pytest.approx(3 * both["strong"]["p"])
    assert both["weak"]["corrected"] == pytest.approx(2 * both["weak"]["p"])
    assert [row["verdict"] for row in both.values()] == ["not resolved", "shows here", "does not"]


def test_a_pilot_says_how_large_the_run_must_be() -> None:
    values = [0.0, 0.1, 0.2, 0.3, 0.4]
    found = ps.plan({"a": values, "b": [2 * value for value in values]}, 20, smallest={"a": 0.1, "b": 0.2})
    a, b = found["a"], found["b"]
    assert a["mean"] == pytest.approx(0.2) and a["standard_deviation"] == pytest.approx(0.158114, abs=1e-6)
    # The 20 % quantile of chi² with 4 degrees of freedom is 1.6488 (tables).
    assert a["upper"] == pytest.approx(0.158114 * (4 / 1.6488) ** 0.5, abs=1e-4)
    assert a["needed"] == b["needed"] == ps.needed(a["standard_deviation"], 0.1, alpha=0.005)
    assert a["needed_at_upper"] > a["needed"] > 20 and a["power"] < 0.9
    lines = ps.plan_table(found, "scenes")
    assert f"| {a['needed']} ({a['needed_at_upper']}) |" in lines[-2] and "0.01 / 2" in lines[0]
    assert ps.plan_table(None, "scenes") == ["No pilot was run before (`--pilot`)."]


def test_runs_of_other_settings_are_not_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "out/settings.json"
    ps.same_settings(file, {"scenes": 3, "train": ["a=1"]})
    ps.same_settings(file, {"scenes": 3, "train": ["a=1"]})
    with pytest.raises(SystemExit, match="scenes 3, now 4"):
        ps.same_settings(file, {"scenes": 4, "train": ["a=1"]})


def test_differences_are_told_in_points() -> None:
    assert ps.change([0.1, 0.12, 0.14]) == "+12.0 (+7.0 to +17.0)"  # 2 ± 4.3027 * 2 / sqrt(3)
    assert ps.change([-0.1]) == "-10.0"
