"""Verdicts on numbers with intervals, and tests that may be looked at after every audit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gymnast_gate.sequential import evidence, lower_bound, upper_bound
from gymnast_gate.verdicts import criterion, mean_interval, share_interval, worst


def judged(value: float, low: float, high: float, n: int, bound: float, **changes: object) -> object:
    given = {"unit": "share", "least_n": 10, "enough": 100, **changes}
    return criterion("x", value, (low, high), n, bound, **given)  # type: ignore[arg-type]


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "n", "verdict", "by_estimate"),
        [
            (0.71, 0.89, 20, "pass", False),
            (0.70, 0.89, 20, "pass", False),
            (0.50, 0.69, 20, "fail", False),
            (0.60, 0.90, 20, "unclear", False),
            (0.60, 0.90, 99, "unclear", False),
            (0.60, 0.90, 100, "pass", True),
            (0.71, 0.89, 9, "not measured", False),
        ],
    )
    def test_the_interval_decides_then_the_estimate(
        self, low: float, high: float, n: int, verdict: str, by_estimate: bool
    ) -> None:
        found = judged((low + high) / 2, low, high, n, 0.7)
        assert (found.verdict, found.by_estimate) == (verdict, by_estimate)  # type: ignore[attr-defined]

    def test_an_estimate_below_fails(self) -> None:
        assert judged(0.69, 0.6, 0.8, 100, 0.7).verdict == "fail"  # type: ignore[attr-defined]
        assert judged(0.70, 0.6, 0.8, 100, 0.7).verdict == "pass"  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("low", "high", "verdict"), [(0.1, 0.3, "pass"), (0.6, 0.9, "fail"), (0.4, 0.6, "unclear")]
    )
    def test_at_most(self, low: float, high: float, verdict: str) -> None:
        found = judged((low + high) / 2, low, high, 50, 0.5, at_least=False)
        assert found.verdict == verdict  # type: ignore[attr-defined]

    def test_an_open_verdict_says_how_many_cases_would_do(self) -> None:
        # Half of the interval reaches 0.2 down, the bound is 0.1 away: four times as many halve the interval.
        assert judged(0.8, 0.6, 0.95, 20, 0.7).needed == 80  # type: ignore[attr-defined]
        # Above the estimate, the upper end is what must come down.
        assert judged(0.6, 0.5, 0.8, 20, 0.7).needed == 80  # type: ignore[attr-defined]
        # At `enough`, the estimate decides in any case.
        assert judged(0.71, 0.6, 0.8, 20, 0.7).needed == 100  # type: ignore[attr-defined]
        assert judged(0.7, 0.6, 0.8, 20, 0.7).needed == 100  # type: ignore[attr-defined]
        assert judged(0.7, 0.6, 0.8, 3, 0.7).needed == 10  # type: ignore[attr-defined]
        none = criterion("x", None, None, 0, 0.7, unit="share", least_n=10, enough=100)
        assert (none.verdict, none.needed) == ("not measured", 10)

    def test_the_worst_counts(self) -> None:
        assert worst(["pass", "unclear", "not measured"]) == "unclear"
        assert worst(["pass", "not measured"]) == "not measured"
        assert worst(["unclear", "fail", "pass"]) == "fail"
        assert worst(["pass", "pass"]) == "pass"
        assert worst([]) == "not measured"

    def test_repeated_starts_are_not_as_many_different_ones(self) -> None:
        values = [True] * 10 + [False] * 10
        apart = share_interval(values, [str(i) for i in range(20)])
        assert apart == pytest.approx((0.2993, 0.7007), abs=1e-4)  # Wilson's of 10 in 20
        repeated = share_interval(values, [str(i // 5) for i in range(20)])
        assert repeated is not None and repeated[1] - repeated[0] > 0.5
        assert share_interval([], []) is None
        assert mean_interval([1.0, -1.0, 0.0, 1.0] * 5, [str(i) for i in range(20)], bounds=(-1.0, 1.0)) is not None


class TestEvidence:
    def test_without_anything_seen_it_is_one(self) -> None:
        assert evidence([], 0.3) == 1.0
        assert evidence([[]], 0.3) == 1.0

    def test_it_is_the_mixture_that_it_says(self) -> None:
        """By hand: stakes (i + ½) / 20 of the largest, half from the first audit on, a sixth from the second."""
        bets = [(i + 0.5) / 20 / 0.4 for i in range(20)]

        def wealth(values: list[float]) -> float:
            return sum(math.prod(1 + bet * (x - 0.4) for x in values) for bet in bets) / 20

        first, second = [1.0, 0.0, 1.0], [1.0, 1.0]
        expected = wealth(first + second) / 2 + wealth(second) / 6 + 1 / 3
        assert evidence([first, second], 0.4) == pytest.approx(expected)

    @pytest.mark.parametrize("bound", [0.3, 0.55])
    def test_false_alarms_are_as_rare_as_stated_however_often_one_looks(self, bound: float) -> None:
        rng = np.random.default_rng(0)
        alarms = 0
        for _ in range(300):
            audits = [list((rng.random(12) < bound).astype(float)) for _ in range(15)]
            alarms += any(evidence(audits[: k + 1], bound) >= 1 / 0.05 for k in range(15))
        assert alarms / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)

    def test_a_judge_that_becomes_wrong_late_is_still_found(self) -> None:
        rng = np.random.default_rng(1)
        good = [list((rng.random(20) < 0.1).astype(float)) for _ in range(15)]
        bad = [list((rng.random(20) < 0.7).astype(float)) for _ in range(4)]
        assert evidence(good, 0.3) < 1.0
        assert evidence(good + bad, 0.3) >= 20

    def test_much_evidence_is_no_overflow(self) -> None:
        assert evidence([[1.0] * 5000], 0.3) > 1e100

    def test_a_bound_holds_the_mean(self) -> None:
        rng = np.random.default_rng(2)
        missed = 0
        for _ in range(200):
            values = list((rng.random(40) < 0.6).astype(float))
            missed += not lower_bound(values, 0.05) <= 0.6 <= upper_bound(values, 0.05)
        assert missed / 200 <= 0.1
        assert lower_bound([1.0] * 200, 0.05) > 0.9 and upper_bound([0.0] * 200, 0.05) < 0.1
        assert (lower_bound([], 0.05), upper_bound([], 0.05)) == (0.0, 1.0)
