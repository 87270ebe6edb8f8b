"""How well one world foretells another: against scipy, statsmodels, published numbers and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa as their_kappa

from gymnast_core.statistics import biased_interval, merged_strata, percentiles, resampled_means
from gymnast_evaluation.agreement import (
    agreement,
    cohens_kappa,
    correlations,
    fisher_interval,
    mean_maximum_rank_violation,
    outcome_table,
)

RATES = st.sampled_from([0.0, 0.1, 0.3, 0.1 + 0.2, 0.45, 0.8, 1.0])
PAIRS = st.lists(st.tuples(RATES, RATES), min_size=3, max_size=9)

SIMPLER = {
    # Success in simulation and on the robot of six policies, MMRV and Pearson's r: SIMPLER (arXiv 2405.05941), table I.
    "pick coke can": (
        [0.787, 0.857, 0.710, 0.567, 0.027, 0.170], [0.907, 0.853, 0.920, 0.760, 0.133, 0.293], 0.031, 0.976,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLER)
def test_the_numbers_that_simpler_published(name: str) -> None:
    simulated, real, violation, pearson = SIMPLER[name]
    assert mean_maximum_rank_violation(simulated, real) == pytest.approx(violation, abs=5e-4)
    assert correlations(np.array([simulated]), np.array([real]))[0] == pytest.approx(pearson, abs=1e-3)


@settings(max_examples=80)
@given(pairs=PAIRS)
def test_correlations_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    first, second = np.round(np.array(pairs).T, 12)
    rows = (first[None], second[None])
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(correlations(*rows)[0]) and math.isnan(correlations(*rows, spearman=True)[0])
        return
    assert correlations(*rows)[0] == pytest.approx(stats.pearsonr(first, second).statistic)
    assert correlations(*rows, spearman=True)[0] == pytest.approx(stats.spearmanr(first, second).statistic)


@settings(max_examples=30)
@given(pairs=PAIRS, missing=st.integers(0, 2))
def test_pairs_with_an_unknown_side_do_not_count(pairs: list[tuple[float, float]], missing: int) -> None:
    first, second = np.array(pairs).T
    kept = np.arange(len(first)) != missing
    first[missing] = np.nan
    for spearman in (False, True):
        ours = correlations(first[None], second[None], spearman=spearman)
        theirs = correlations(first[None, kept], second[None, kept], spearman=spearman)
        assert ours == pytest.approx(theirs, nan_ok=True)


@given(n=st.integers(4, 60), r=st.floats(-0.99, 0.99))
def test_fishers_interval_is_that_of_scipy(n: int, r: float) -> None:
    x = np.arange(n) - (n - 1) / 2
    noise = np.random.default_rng(0).normal(size=n)
    noise -= noise.mean() + x * (noise @ x) / (x @ x)
    y = r * x / np.linalg.norm(x) + math.sqrt(1 - r * r) * noise / np.linalg.norm(noise)
    theirs = stats.pearsonr(x, y)
    assert theirs.statistic == pytest.approx(r)
    assert fisher_interval(r, n) == pytest.approx(tuple(theirs.confidence_interval(0.95)), abs=1e-9)


def test_fishers_interval_covers_other_policies() -> None:
    """4,000 draws of ten policies with a true correlation of .8; Spearman's of .786 (6/π asin(r/2))."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 10))
    y = 0.8 * x + 0.6 * rng.normal(size=x.shape)
    for spearman, truth in ((False, 0.8), (True, 6 / math.pi * math.asin(0.4))):
        found = [fisher_interval(r, 10, spearman=spearman) for r in correlations(x, y, spearman=spearman)]
        covered = np.mean([low <= truth <= high for low, high in filter(None, found)])
        assert covered == pytest.approx(0.95, abs=0.02)
    assert fisher_interval(0.5, 3) is None and fisher_interval(math.nan, 10) is None
    assert fisher_interval(1.0, 10) is None and fisher_interval(-1.0, 10, spearman=True) is None


def test_the_interval_over_trials_covers_where_the_percentile_interval_does_not() -> None:
    """120 experiments of 8 policies on 100 starts, rates that differ by 5 points between the worlds."""
    rng = np.random.default_rng(0)
    real = np.linspace(0.2, 0.8, 8)
    imagined = real + np.array([0.05, -0.05, 0.04, 0.0, -0.06, 0.05, -0.03, 0.02])
    truth = stats.pearsonr(imagined, real).statistic
    ours = theirs = 0
    for _ in range(120):
        sides = [(rng.random((8, 100)) < rate[:, None]).astype(float) for rate in (imagined, real)]
        value = correlations(*(side.mean(axis=1)[None] for side in sides))[0]
        drawn = [resampled_means(side, np.ones_like(side), np.zeros(100), seed=1, resamples=200) for side in sides]
        samples = correlations(*drawn)
        low, high = biased_interval(value, samples, (-1.0, 1.0))
        ours += low <= truth <= high
        theirs += percentiles(samples)[0] <= truth <= percentiles(samples)[1]
    assert ours >= 112 and theirs < 100


@settings(max_examples=60)
@given(pairs=PAIRS)
def test_rank_violations_by_the_definition(pairs: list[tuple[float, float]]) -> None:
    imagined, real = (list(map(float, np.round(side, 12))) for side in np.array(pairs).T)
    worst = []
    for i in range(len(real)):
        violations = [0.0]
        for j in range(len(real)):
            if (imagined[i] < imagined[j]) != (real[i] < real[j]):
                violations.append(abs(real[i] - real[j]))
        worst.append(max(violations))
    assert mean_maximum_rank_violation(imagined, real) == pytest.approx(sum(worst) / len(worst))


def test_the_same_ranking_violates_nothing() -> None:
    assert mean_maximum_rank_violation([0.1, 0.2, 0.9], [0.5, 0.6, 0.7]) == 0.0
    assert mean_maximum_rank_violation([0.9, 0.1], [0.2, 0.8]) == pytest.approx(0.6)


@settings(max_examples=40)
@given(counts=st.lists(st.integers(0, 20), min_size=4, max_size=4))
def test_kappa_is_that_of_statsmodels(counts: list[int]) -> None:
    names = ("success", "failure", "unscored")
    table = {row: dict.fromkeys(names, 3) for row in names}
    for index, count in enumerate(counts):
        table[names[index // 2]][names[index % 2]] = count
    square = np.array(counts, dtype=float).reshape(2, 2)
    if max(counts[0], counts[3]) == sum(counts):  # no trial, or all of one outcome in both worlds
        assert cohens_kappa(table) is None
        return
    assert cohens_kappa(table) == pytest.approx(their_kappa(square).kappa)


def test_unscored_trials_are_counted_apart() -> None:
    nan = math.nan
    imagined, real = np.array([[1.0, 0.0, nan, 0.6, nan]]), np.array([[1.0, 1.0, 0.0, nan, nan]])
    table = outcome_table(imagined, real)
    assert table == {
        "success": {"success": 1, "failure": 0, "unscored": 1},
        "failure": {"success": 1, "failure": 0, "unscored": 0},
        "unscored": {"success": 0, "failure": 1, "unscored": 0},
    }


def worlds(policies: int = 6, starts: int = 60, gap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    rates = np.linspace(0.1, 0.8, policies)[:, None]
    real = (rng.random((policies, starts)) < rates).astype(float)
    changed = rng.random(real.shape) < gap
    return np.where(changed, 1 - real, real), real


def test_a_perfect_world() -> None:
    imagined, real = worlds()
    found = agreement([f"p{i}" for i in range(6)], imagined, real, np.arange(60), np.arange(60) % 3)
    assert found is not None
    assert found.pearson.value == pytest.approx(1) and found.pearson.over_trials == pytest.approx((1, 1))
    assert found.pearson.over_policies is None
    assert found.pearson_by_task is not None and found.pearson_by_task.n == 18
    assert found.pearson_by_task.over_policies is None  # cells of one policy are no independent draws
    assert found.mean_maximum_rank_violation.value == 0 and found.mean_difference.value == 0
    assert found.same_outcome == 1 and found.kappa == 1
    assert found.reference == pytest.approx(tuple(real.mean(axis=1)))


def test_agreement_is_about_trials_judged_in_both_worlds() -> None:
    imagined, real = worlds(gap=0.1)
    imagined[0, :30] = np.nan
    real[1] = np.nan
    names = [f"p{i}" for i in range(6)]
    found = agreement(names, imagined, real, np.arange(60), np.zeros(60))
    assert found is not None and found.policies == ("p0", "p2", "p3", "p4", "p5")
    assert found.trials == 30 + 4 * 60
    assert found.imagined[0] == pytest.approx(imagined[0, 30:].mean())
    assert found.reference[0] == pytest.approx(real[0, 30:].mean())
    both = ~np.isnan(imagined) & ~np.isnan(real)
    assert found.mean_difference.value == pytest.approx((imagined - real)[both].mean())
    low, high = found.mean_difference.over_trials
    assert low < found.mean_difference.value < high
    assert found.pearson_by_task is None and found.tasks == ("0.0",)
    rates = (np.array(found.imagined), np.array(found.reference))
    assert found.pearson.value == pytest.approx(stats.pearsonr(*rates).statistic)
    assert found.pearson.over_policies == pytest.approx(tuple(stats.pearsonr(*rates).confidence_interval(0.95)))
    assert agreement(names, imagined, real, np.arange(60), np.zeros(60)) == found


def test_rates_by_task_are_means_of_that_task() -> None:
    imagined, real = worlds(policies=3, starts=12, gap=0.3)
    tasks = np.array(["push", "pull", "lift"] * 4)
    found = agreement(["a", "b", "c"], imagined, real, np.arange(12), tasks)
    assert found is not None and found.tasks == ("lift", "pull", "push")
    for row, policy in enumerate(real):
        assert found.reference_by_task[row] == pytest.approx([policy[tasks == task].mean() for task in found.tasks])


def test_starts_that_are_tasks_of_their_own_vary_as_starts_do() -> None:
    """group_by=task: every stratum holds one start. Drawn within those, the interval would have no width."""
    imagined, real = worlds(starts=12, gap=0.2)
    names, starts = [f"p{i}" for i in range(6)], np.arange(12)
    found = agreement(names, imagined, real, starts, starts)
    assert found is not None
    # Numbers by the definition: starts drawn with replacement, the same ones in both worlds and for all policies.
    drawn = np.random.default_rng(1).integers(12, size=(4000, 12))
    value = stats.pearsonr(imagined.mean(axis=1), real.mean(axis=1)).statistic
    samples = correlations(imagined[:, drawn].mean(axis=2).T, real[:, drawn].mean(axis=2).T)
    assert found.pearson.over_trials == pytest.approx(biased_interval(value, samples, (-1.0, 1.0)), abs=0.05)
    low, high = found.mean_maximum_rank_violation.over_trials
    assert low < found.mean_maximum_rank_violation.value < high
    # A cell's rate rests on one start: nothing says how another one would be.
    assert found.pearson_by_task is not None and found.pearson_by_task.value is not None
    assert found.pearson_by_task.over_trials is None and found.spearman_by_task.over_trials is None
    assert (found.tasks_of_one_start, found.policies_of_one_start) == (12, ())
    # Tasks of several starts keep their strata, and their cells vary.
    grouped = agreement(names, imagined, real, starts, starts % 3)
    assert grouped is not None and grouped.pearson_by_task.over_trials is not None and not grouped.tasks_of_one_start


@pytest.mark.parametrize(
    "strata, merged",
    [
        ([0, 1, 2, 3], [0, 0, 0, 0]),  # every start its own task
        ([5, 5, 6, 6, 7, 8], [0, 0, 1, 1, 2, 2]),  # two tasks of one start are drawn from together
        ([5, 5, 6, 6, 7], [0, 0, 0, 0, 0]),  # one alone could only be drawn as itself
        ([1, 1, 2, 2], [0, 0, 1, 1]),
        ([3], [0]),
    ],
)
def test_strata_of_a_single_start_are_merged(strata: list[int], merged: list[int]) -> None:
    found = merged_strata(strata)
    same = found[:, None] == found[None]
    assert np.array_equal(same, np.equal.outer(merged, merged))


def test_a_policy_that_was_judged_on_one_start_has_no_interval_over_starts() -> None:
    imagined, real = worlds(gap=0.1)
    imagined[2, 1:] = np.nan
    found = agreement([f"p{i}" for i in range(6)], imagined, real, np.arange(60), np.zeros(60))
    assert found is not None and found.pearson.value is not None and found.pearson.over_trials is None
    assert found.mean_maximum_rank_violation.over_trials is None and found.policies_of_one_start == ("p2",)


def test_nothing_judged_in_both_is_no_agreement() -> None:
    nothing = np.full((2, 3), np.nan)
    assert agreement(["a", "b"], nothing, np.ones((2, 3)), np.arange(3), np.zeros(3)) is None
