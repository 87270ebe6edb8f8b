"""From trials to summary.json."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from gymnast_evaluation.summary import Scores, brief, summarise
from gymnast_evaluation.trials import Trial


def trial(policy: str, index: int, value: float | None, world: str = "w", **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "policy": policy, "world": world, "index": index, "task": f"t{index}", "instruction": "push", "trial": 0,
        "seed": 0, "batch": 0, "value": value, "partial": None, "outcome": None,
        "error": None if value is not None else "503", "rationale": "", "cost_usd": 0.0,
    }  # fmt: skip
    return Trial(**{**fields, **changes})


def of(values: dict[str, list[float | None]], **options: Any) -> dict[str, Any]:
    trials = [trial(policy, index, value) for policy, row in values.items() for index, value in enumerate(row)]
    return summarise(Scores(trials, list(values), ["w"], "instruction"), **options)


def test_an_unscored_trial_is_never_a_zero() -> None:
    found = of({"a": [1.0, None, 1.0, None], "b": [None] * 4})
    a, b = found["results"]["a"]["w"], found["results"]["b"]["w"]
    assert (a["rate"], a["n"], a["unscored"]) == (1.0, 2, 2)
    assert (b["rate"], b["interval"], b["bootstrap"], b["n"], b["unscored"]) == (None, None, None, 0, 4)
    assert found["unscored"] == 6
    assert found["comparisons"] == [] and found["rankings"] == {"w": None}  # no trial was judged for both
    assert brief(found)["results"]["b"]["w"]["rate"] is None


def test_pairs_are_corrected_for_how_many_there_are() -> None:
    found = of({"a": [1.0] * 12 + [0.0] * 8, "b": [0.0] * 20, "c": [1.0] * 5 + [0.0] * 15, "d": [1.0] * 20})
    rows = found["comparisons"]
    assert [(row["first"], row["second"]) for row in rows] == [
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"),
    ]  # fmt: skip
    assert rows[0]["p_value"] == pytest.approx(2 * 0.5**12) and rows[0]["difference"] == pytest.approx(-0.6)
    expected = multipletests([row["p_value"] for row in rows], method="holm")[1]
    assert [row["p_holm"] for row in rows] == pytest.approx(expected)
    assert all(row["p_holm"] >= row["p_value"] for row in rows)


def test_graded_scores_and_partial_credit_have_their_own_tests() -> None:
    graded = of({"a": [0.5, 0.25, 1.0, 0.75], "b": [0.25, 0.0, 0.75, 0.5]})["comparisons"][0]
    assert graded["test"] == "paired permutation" and graded["p_value"] == pytest.approx(2 / 16)
    trials = [trial(p, i, 1.0, partial=0.9 - gap * 0.1) for gap, p in enumerate("ab") for i in range(6)]
    found = summarise(Scores(trials, ["a", "b"], ["w"], "instruction"))
    row = found["comparisons"][0]
    assert (row["difference"], row["p_value"], row["test"]) == (0.0, 1.0, "exact McNemar")
    assert row["partial"]["difference"] == pytest.approx(-0.1) and row["partial"]["p_value"] == pytest.approx(2 / 64)
    assert found["results"]["a"]["w"]["partial"]["mean"] == pytest.approx(0.9)
    assert of({"a": [1.0]})["results"]["a"]["w"]["partial"] is None


def test_tasks_are_instructions_or_ids() -> None:
    trials = [trial("a", i, float(i > 1), instruction=("lift", "push")[i % 2]) for i in range(4)]
    by_words = summarise(Scores(trials, ["a"], ["w"], "instruction"))["results"]["a"]["w"]["tasks"]
    assert {task: (cell["rate"], cell["n"]) for task, cell in by_words.items()} == {"lift": (0.5, 2), "push": (0.5, 2)}
    by_id = summarise(Scores(trials, ["a"], ["w"], "task"))["results"]["a"]["w"]["tasks"]
    assert {task: cell["rate"] for task, cell in by_id.items()} == {"t0": 0, "t1": 0, "t2": 1, "t3": 1}


def test_intervals_of_repeated_starts_are_over_starts() -> None:
    once = [trial("a", i, float(i % 2), task=f"t{i}") for i in range(6)]
    often = [trial("a", 6 * k + i, float(i % 2), task=f"t{i}", trial=k) for k in range(5) for i in range(6)]
    cells = [summarise(Scores(t, ["a"], ["w"], "instruction"))["results"]["a"]["w"] for t in (once, often)]
    assert cells[0]["interval"] == cells[0]["wilson"]
    assert cells[1]["interval"] == cells[1]["bootstrap"] == pytest.approx(cells[0]["bootstrap"])
    assert cells[1]["tasks"]["push"]["interval"] == cells[1]["interval"]
    assert (cells[1]["n"], cells[1]["starts"]) == (30, 6)


@pytest.mark.parametrize("trials", [1, 5, 10])
def test_repeating_a_start_proves_nothing_about_others(trials: int) -> None:
    """Of 10 starts one policy solves 7 and the other the 3 others, however often: p = 0.34, that of 7 in 10."""

    def rows(policy: str, solved: range) -> list[Trial]:
        return [trial(policy, i, float(i % 10 in solved), task=f"t{i % 10}", trial=i // 10) for i in range(10 * trials)]

    found = Scores([*rows("a", range(7)), *rows("b", range(7, 10))], ["a", "b"], ["w"], "instruction")
    row = summarise(found)["comparisons"][0]
    assert row["p_value"] == pytest.approx(binomtest(7, 10).pvalue) == pytest.approx(0.34375)
    assert row["test"] == ("exact McNemar" if trials == 1 else "paired permutation of starts")
    assert (row["n"], row["starts"]) == (10 * trials, 10)
    assert (row["only_first"], row["only_second"]) == (7 * trials, 3 * trials)


def test_a_start_that_is_judged_more_often_than_others_is_one_start() -> None:
    """Six starts, the first of them twelve times more: flips of whole starts, 2 of 2⁶ of which are as large."""
    starts = [0] * 12 + list(range(6))
    rows = [trial(p, i, float(p == "b"), task=f"t{start}") for p in "ab" for i, start in enumerate(starts)]
    row = summarise(Scores(rows, ["a", "b"], ["w"], "instruction"))["comparisons"][0]
    assert row["p_value"] == pytest.approx(2 / 2**6) and row["starts"] == 6


def test_trials_of_one_start_alone_are_tested_as_what_they_are() -> None:
    rows = [trial(p, i, float(p == "b"), task="t") for p in "ab" for i in range(10)]
    row = summarise(Scores(rows, ["a", "b"], ["w"], "instruction"))["comparisons"][0]
    assert row["test"] == "exact McNemar" and row["p_value"] == pytest.approx(2 / 2**10) and row["starts"] == 1


def test_the_truth_is_the_world_that_knows_outcomes() -> None:
    trials = [trial("a", 0, 1.0, "dream"), trial("a", 0, 0.0, "robot", outcome=0.0), trial("a", 0, 1.0, "other")]
    scores = Scores(trials, ["a"], ["dream", "robot", "other"], "instruction")
    assert summarise(scores)["agreement"].keys() == {"dream", "other"}
    assert summarise(scores, reference="other")["agreement"].keys() == {"dream", "robot"}
    silent = Scores([trials[0], trials[2]], ["a"], ["dream", "other"], "instruction")
    assert summarise(silent)["reference"] == "other"
    assert summarise(scores)["agreement"]["dream"]["mean_difference"]["value"] == 1.0


def test_policies_that_tie_have_no_order() -> None:
    found = of({"a": [1.0, 0.0] * 4, "b": [1.0, 0.0] * 4})["rankings"]["w"]
    assert found["kendall_tau"] is None and found["same_order"] is None
    assert found["rank_probability"] == [[0.5, 0.5], [0.5, 0.5]]
