"""Intervals and differences against independent sources, by property and by simulation."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymnast_core.errors import DataError
from gymnast_evaluation.statistics import (
    EpisodeResult,
    Evaluation,
    evaluation_from_json,
    paired_difference,
    success_interval,
)

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


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


def test_nothing_shared_is_an_error() -> None:
    with pytest.raises(DataError, match="'first' and 'second' have no judged task in common"):
        paired_difference(evaluation({"a": 1.0, "b": None}, "first"), evaluation({"a": None, "b": 1.0}, "second"))


def test_an_evaluation_survives_json() -> None:
    original = evaluation({"a": 1.0, "b": None, "c": 0.25})
    assert evaluation_from_json(json.loads(json.dumps(asdict(original)))) == original


def test_a_difference_does_not_depend_on_the_hashes_of_a_process() -> None:
    """The bootstrap draws by position, so the order of the tasks must be the same in every process."""
    script = (
        "from test_statistics import *; values = [1.0, 0.0, 0.25, 0.5, 0.0, 1.0, 1.0]; "
        "print(paired_difference(evaluation(tasks(values)), evaluation(tasks(values[::-1]))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
