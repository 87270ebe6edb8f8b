"""Intervals and differences against independent sources, by property and by simulation."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, proportion

from gymnast_core.errors import DataError
from gymnast_core.statistics import (
    biased_interval,
    bootstrap_interval,
    cluster_index,
    holm,
    mcnemar,
    mean_interval,
    percentiles,
    resampled_means,
    score_interval,
    sign_flip_test,
    success_interval,
    wilson_interval,
)
from gymnast_evaluation.results import EpisodeResult, Evaluation, evaluation_from_json, paired_difference

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
BINARY = st.sampled_from([0.0, 1.0])


def evaluation(values: dict[str, float | None], label: str = "a") -> Evaluation:
    scored = [value for value in values.values() if value is not None]
    return Evaluation(
        label=label, iteration=0, world="gymnasium", reward_model="environment", temperature=0.0, horizon=4, seed=0,
        n=len(scored), unscored=len(values) - len(scored), rate=float(np.mean(scored)) if scored else math.nan,
        interval=success_interval(scored), seconds=0.0,
        episodes=tuple(EpisodeResult(task, "push", value, None, None) for task, value in values.items()),
    )  # fmt: skip


def tasks(values: Sequence[float | None]) -> dict[str, float | None]:
    return {f"task-{index}": value for index, value in enumerate(values)}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """E. B. Wilson, Probable inference, JASA 22 (1927), eq. 4, with z = 1.959964."""
    z, p = 1.959963984540054, successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_rates_have_wilson_intervals(n: int, share: float) -> None:
    successes = round(share * n)
    interval = success_interval([1.0] * successes + [0.0] * (n - successes))
    assert interval == pytest.approx(wilson(successes, n), abs=1e-9)
    assert -1e-12 <= interval[0] <= successes / n <= interval[1] <= 1 + 1e-12


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_intervals_are_those_of_statsmodels(n: int, share: float) -> None:
    successes = round(share * n)
    theirs = proportion.proportion_confint(successes, n, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("n", "least"), [(20, 0.92), (50, 0.93), (200, 0.94)])
def test_wilson_intervals_cover(n: int, least: float) -> None:
    """Exact coverage by the binomial distribution, at rates from 5 to 95 %."""
    hits = np.array([wilson_interval(k, n) for k in range(n + 1)])
    for rate in np.linspace(0.05, 0.95, 19):
        inside = (hits[:, 0] <= rate) & (rate <= hits[:, 1])
        coverage = float(stats.binom.pmf(np.arange(n + 1), n, rate)[inside].sum())
        assert least - 0.02 < coverage < 0.99
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_intervals_of_a_published_table() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        interval = success_interval([1.0] * successes + [0.0] * (n - successes))
        assert interval == pytest.approx((low, high), abs=5e-5)


@given(values=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40))
def test_more_episodes_of_the_same_rate_shrink_the_interval(values: list[float]) -> None:
    (low, high), (lower, higher) = success_interval(values * 4), success_interval(values)
    assert high - low < higher - lower


@settings(max_examples=20, deadline=None)
@given(values=st.lists(SCORES, min_size=1, max_size=12))
def test_intervals_of_partial_credit(values: list[float]) -> None:
    low, high = success_interval(values)
    mean = float(np.mean(values))
    assert -1e-9 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1 + 1e-9
    assert low < high
    assert success_interval(values) == (low, high)


def test_nothing_is_known_without_episodes() -> None:
    assert success_interval([]) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 5, 50])
def test_equal_values_are_no_certainty(n: int) -> None:
    """All half right: the bound on what was not seen is Wilson's, spread to both ends."""
    unseen = wilson(0, n)[1]
    assert success_interval([0.5] * n) == pytest.approx((0.5 - 0.5 * unseen, 0.5 + 0.5 * unseen))
    same = paired_difference(evaluation(tasks([1.0] * n)), evaluation(tasks([1.0] * n)))
    assert same.mean == 0.0 and same.interval == pytest.approx((-unseen, unseen))
    better = paired_difference(evaluation(tasks([0.0] * n)), evaluation(tasks([1.0] * n)))
    assert better.interval == pytest.approx((1 - 2 * unseen, 1.0))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """100 experiments of 40 paired episodes: a 95 % interval misses about 5 times; 13 would be p < 0.001."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        before, gain = rng.random(40) < 0.4, rng.random(40)
        after = np.where(before, gain > 0.1, gain < 0.3)
        truth = 0.6 * 0.3 - 0.4 * 0.1
        first, second = (evaluation(tasks([float(v) for v in side])) for side in (before, after))
        low, high = paired_difference(first, second).interval
        missed += not low <= truth <= high
    assert 1 <= missed <= 12


@settings(max_examples=20, deadline=None)
@given(pairs=st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=10), seed=st.integers(0, 99))
def test_differences_are_paired_by_task_in_any_order(pairs: list[tuple[float, float]], seed: int) -> None:
    before, after = (evaluation(tasks([pair[side] for pair in pairs])) for side in (0, 1))
    found = paired_difference(before, after)
    assert found.mean == pytest.approx(np.mean([second - first for first, second in pairs]))
    assert found.n == len(pairs)
    assert found.interval[0] <= found.mean + 1e-9 and found.mean - 1e-9 <= found.interval[1]
    assert -1 - 1e-9 <= found.interval[0] <= found.interval[1] <= 1 + 1e-9
    order = np.random.default_rng(seed).permutation(len(pairs))
    values = [pairs[index][1] for index in order]
    shuffled = evaluation({f"task-{index}": value for index, value in zip(order, values, strict=True)})
    assert paired_difference(before, shuffled) == found


def test_pairing_is_worth_it() -> None:
    """The same rates, on the same tasks or on unrelated ones."""
    before = [1.0, 0.0] * 30
    agreeing = paired_difference(evaluation(tasks(before)), evaluation(tasks([*before[:-1], 1.0]))).interval
    unrelated = paired_difference(evaluation(tasks(before)), evaluation(tasks([0.0, 1.0] * 29 + [1.0, 1.0]))).interval
    assert agreeing[1] - agreeing[0] < 0.5 * (unrelated[1] - unrelated[0])


def test_an_unscored_episode_is_left_out_on_both_sides() -> None:
    before = evaluation({"a": 1.0, "b": None, "c": 0.0, "only-before": 1.0})
    after = evaluation({"a": 0.0, "b": 1.0, "c": None, "only-after": 1.0})
    found = paired_difference(before, after)
    assert (found.mean, found.n) == (-1.0, 1)


def test_a_task_that_occurs_twice_is_paired_in_order_and_never_dropped() -> None:
    """Two episodes of each of two names: gains of 1, 1, 0, 0. By name alone the first two would be lost."""
    names = ["episodes/000000", "episodes/000001"] * 2
    sides = [
        replace(evaluation({}), n=4, episodes=tuple(EpisodeResult(*pair, None, None) for pair in rows))
        for rows in (
            [(name, "", value) for name, value in zip(names, [0.0, 0.0, 1.0, 1.0], strict=True)],
            [(name, "", 1.0) for name in names],
        )
    ]
    found = paired_difference(*sides)
    assert (found.mean, found.n, found.method) == (0.5, 4, "paired BCa bootstrap over tasks")
    # Both tasks gain 0.5 in the mean: what is known is what two cases tell, Wilson's share of what was not seen.
    unseen = wilson(0, 2)[1]
    assert found.interval == pytest.approx((0.5 - 1.5 * unseen, 0.5 + 0.5 * unseen))


def test_success_of_repeated_starts_is_known_as_well_as_those_starts() -> None:
    """Two of four tasks always succeed, 32 rollouts each: SciPy's bootstrap of the four."""
    values, starts = [1.0] * 64 + [0.0] * 64, [f"t{i // 32}" for i in range(128)]
    four = stats.bootstrap(
        ([1.0, 1.0, 0.0, 0.0],), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval  # fmt: skip
    assert success_interval(values, starts) == pytest.approx(tuple(four)) == (0.0, 1.0)
    assert mean_interval(values, "success", starts) == (0.0, 1.0)
    low, high = score_interval(values, starts)
    assert (low, high) == mean_interval(values, "score", starts) and high - low > 0.5
    assert success_interval(values, list(range(128))) == success_interval(values) == wilson(64, 128)
    assert success_interval(values, ["t"] * 128) == wilson(64, 128)  # of one start alone, trials are the evidence


def test_nothing_shared_is_an_error() -> None:
    with pytest.raises(DataError, match="'first' and 'second' have no judged task in common"):
        paired_difference(evaluation({"a": 1.0, "b": None}, "first"), evaluation({"a": None, "b": 1.0}, "second"))


def test_an_evaluation_survives_json() -> None:
    original = evaluation({"a": 1.0, "b": None, "c": 0.25})
    assert evaluation_from_json(json.loads(json.dumps(asdict(original)))) == original


def test_a_difference_does_not_depend_on_the_hashes_of_a_process() -> None:
    """The bootstrap draws by position, so the order of the tasks must be the same in every process."""
    script = (
        "from gymnast_evaluation.results import *; "
        "made = lambda values: Evaluation('a', 0, 'w', 'r', 0.0, 4, 0, 7, 0, 0.0, (0.0, 1.0), 0.0, tuple("
        "EpisodeResult(f'task-{i}', 'push', value, None, None) for i, value in enumerate(values))); "
        "values = [1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.0]; print(paired_difference(made(values), made(values[::-1])))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1 and "method='paired BCa" in said.copy().pop()


@settings(max_examples=15)
@given(values=st.lists(SCORES, min_size=2, max_size=12), seed=st.integers(0, 9))
def test_bootstrap_intervals_are_those_of_scipy(values: list[float], seed: int) -> None:
    if len(set(values)) < 2:
        return
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(seed))
    ours = bootstrap_interval(values, bounds=(0.0, 1.0), seed=seed)
    # Another order of the same draws: equal up to the noise of 10,000 resamples.
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


def test_repeating_every_start_is_no_evidence_about_others() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    starts = [f"start-{index}" for index in range(8)]
    once = bootstrap_interval(values, starts, bounds=(0.0, 1.0))
    assert bootstrap_interval(values * 5, starts * 5, bounds=(0.0, 1.0)) == pytest.approx(once)
    naive = bootstrap_interval(values * 5, bounds=(0.0, 1.0))
    assert naive[1] - naive[0] < 0.6 * (once[1] - once[0])


def test_repeats_of_a_single_start_are_trials() -> None:
    """The one start is all there is to know about; its repeats still vary, so the interval has a width."""
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    same = bootstrap_interval(values, ["only"] * 5, bounds=(0.0, 1.0))
    assert same == bootstrap_interval(values, bounds=(0.0, 1.0)) and same[1] - same[0] > 0.4


def test_clusters_are_numbered_as_they_appear() -> None:
    assert cluster_index(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert cluster_index(["a", "a", "a"]).tolist() == [0, 1, 2]


@settings(max_examples=40)
@given(pairs=st.lists(st.tuples(BINARY, BINARY), min_size=1, max_size=60))
def test_mcnemar_is_that_of_statsmodels(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    table = [[((first == a) & (second == b)).sum() for b in (1, 0)] for a in (1, 0)]
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (table[0][1], table[1][0])
    if found.only_first + found.only_second:
        assert found.p_value == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)
    else:
        assert found.p_value == 1.0


@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=9))
def test_the_sign_flip_test_counts_all_flips(pairs: list[tuple[float, float]]) -> None:
    differences = np.array([b - a for a, b in pairs])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    means = np.abs((signs * differences).mean(axis=1))
    share = float((means >= abs(differences.mean()) - 1e-12).mean())
    assert sign_flip_test(differences) == pytest.approx(share)


def test_random_sign_flips_come_near_all_of_them() -> None:
    differences = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], size=60, p=[0.2, 0.45, 0.35])
    discordant = differences[differences != 0]
    exact = stats.binomtest(int((discordant > 0).sum()), len(discordant)).pvalue
    assert 0.01 < exact < 0.9
    assert sign_flip_test(differences, seed=1) == pytest.approx(exact, abs=0.02)


def test_sign_flips_by_cluster() -> None:
    """Five repeats of four starts cannot be more significant than four starts: p >= 2 / 2**4."""
    differences, starts = [0.5] * 20, [0, 1, 2, 3] * 5
    assert sign_flip_test(differences, starts) == pytest.approx(2 / 16)
    assert sign_flip_test(differences) < 0.001


@settings(max_examples=60)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    with mock.patch("gc.collect"):  # which theirs calls every time
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
    assert holm([]) == []


def test_holm_keeps_false_alarms_rare() -> None:
    """Ten true null hypotheses: the chance of any rejection at 5 % stays near 5 %, without correction it is 40 %."""
    drawn = np.random.default_rng(0).random((2000, 10))
    corrected = np.mean([min(holm(row)) < 0.05 for row in drawn.tolist()])
    assert corrected == pytest.approx(0.05, abs=0.015) and (drawn.min(axis=1) < 0.05).mean() > 0.35


def test_resampled_means_draw_whole_clusters_within_their_strata() -> None:
    sums, counts, strata = np.array([[0.0, 2.0, 5.0]]), np.array([[1.0, 2.0, 5.0]]), [0, 0, 1]
    means = resampled_means(sums, counts, strata, seed=0, resamples=4000)
    # Both of the first stratum are drawn with replacement, the second stratum is always there.
    expected = {5 / 7: 0.25, 7 / 8: 0.5, 9 / 9: 0.25}
    for value, share in expected.items():
        assert np.isclose(means, value).mean() == pytest.approx(share, abs=0.03)
    assert (means == resampled_means(sums, counts, strata, seed=0, resamples=4000)).all()


def test_bootstrap_intervals_of_graded_scores_cover() -> None:
    """150 experiments of 30 trials with scores of three levels; 95 % ± 3.5 standard errors."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(150):
        low, high = success_interval(rng.choice([0.0, 0.5, 1.0], size=30, p=[0.5, 0.3, 0.2]).tolist())
        covered += low <= 0.35 <= high
    assert covered / 150 > 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / 150)


def test_an_interval_of_a_biased_statistic_holds_it_and_both_of_its_bootstraps() -> None:
    samples = np.linspace(0.6, 0.8, 1001)
    low, high = percentiles(samples)
    assert (low, high) == pytest.approx((0.605, 0.795))
    assert biased_interval(0.9, samples, (-1.0, 1.0)) == pytest.approx((low, 1.0))
    assert biased_interval(0.7, samples, (-1.0, 1.0)) == pytest.approx((low, high))
    assert math.isnan(biased_interval(0.7, np.array([math.nan]), (-1.0, 1.0))[0])
