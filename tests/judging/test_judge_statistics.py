"""The numbers of a measured judge, against sources outside this project."""

from __future__ import annotations

import math

import pytest
import torch

from gymnast_judging.statistics import Confusion, Share, calibration
from gymnast_judging.votes import pair_agreement, vote_agreement
from gymnast_success_classifier.metrics import calibration_error

FLEISS_1971 = [
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
]  # fmt: skip
"""Ten subjects, fourteen raters, five categories: the worked example of the article "Fleiss' kappa" of Wikipedia."""


def expand(counts: tuple[int, ...]) -> list[float]:
    return [float(category) for category, count in enumerate(counts) for _ in range(count)]


def test_fleiss_kappa_of_the_worked_example() -> None:
    found = vote_agreement([expand(counts) for counts in FLEISS_1971])
    assert found is not None and found.kappa is not None
    assert round(found.mean, 3) == 0.378 and round(found.kappa, 3) == 0.210  # as printed there
    assert (found.items, found.votes, found.unanimous) == (10, 140, 1)
    assert [round(share, 3) for share in found.pairwise[:3]] == [1.0, 0.253, 0.308]


def test_fleiss_kappa_as_another_library_has_it() -> None:
    other = pytest.importorskip("statsmodels.stats.inter_rater")
    generator = torch.Generator().manual_seed(0)
    counts = [
        tuple(torch.bincount(torch.randint(3, (5,), generator=generator), minlength=3).tolist()) for _ in range(9)
    ]
    found = vote_agreement([expand(row) for row in counts])
    assert found is not None and found.kappa == pytest.approx(other.fleiss_kappa(counts))


def test_agreement_where_votes_are_missing_or_alike() -> None:
    assert vote_agreement([[], [1.0]]) is None
    alike = vote_agreement([[1.0, 1.0], [1.0, 1.0, 1.0], [0.0]])
    assert alike is not None and (alike.mean, alike.kappa, alike.items) == (1.0, None, 2)
    assert pair_agreement([1.0, 1.0, 0.0]) == pytest.approx(1 / 3)


def test_rates_and_their_intervals() -> None:
    verdicts = [True] * 60 + [False] * 40
    truths = [True] * 45 + [False] * 15 + [True] * 5 + [False] * 35
    found = Confusion.count(verdicts, truths)
    assert (found.true_positive, found.false_positive, found.false_negative, found.true_negative) == (45, 15, 5, 35)
    assert found.accuracy.value == 0.80 and found.precision.value == 0.75 and found.recall.value == 0.90
    assert found.false_positive_rate.value == 0.30 and found.guessing == 0.5
    # E. B. Wilson's interval for 15 of 50, by hand: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    z, p, n = 1.959963985, 0.3, 50
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    assert found.false_positive_rate.interval == pytest.approx(((middle - half) / scale, (middle + half) / scale))


def test_intervals_as_another_library_has_them() -> None:
    other = pytest.importorskip("statsmodels.stats.proportion")
    for part, n in ((0, 7), (7, 7), (3, 20), (190, 200)):
        assert Share(part, n).interval == pytest.approx(other.proportion_confint(part, n, method="wilson"), abs=1e-9)


def test_a_rate_without_cases_is_no_number() -> None:
    found = Confusion.count([False, False], [True, True])
    assert found.precision.value is None and found.precision.interval is None
    assert found.false_positive_rate.value is None and found.recall.value == 0.0
    assert Confusion.count([], []).guessing == 0.0


def test_calibration_by_hand() -> None:
    found = calibration([0.1, 0.1, 0.9, 0.9, 1.0], [False, True, True, True, False], bins=5)
    assert found is not None
    assert [(one.n, one.successes) for one in found.bins] == [(2, 1), (3, 2)]
    assert found.bins[1].high == 1.0 and found.bins[1].score == pytest.approx(2.8 / 3)
    assert found.expected_error == pytest.approx((0.8 + 0.8) / 5)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 1.0) / 5)
    assert found.brier_of_base_rate == pytest.approx(0.24)
    assert calibration([], []) is None


def test_calibration_of_scores_that_are_probabilities() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(4000, generator=generator)
    truths = torch.rand(4000, generator=generator) < scores
    found = calibration(scores.tolist(), truths.tolist())
    assert found is not None
    assert found.expected_error == pytest.approx(calibration_error(scores, truths), abs=1e-5)
    assert found.expected_error < 0.03
    # A calibrated score s has the expected Brier score E[s(1 - s)] = 1/6 for uniform s.
    assert found.brier_interval[0] < 1 / 6 < found.brier_interval[1]
    inside = sum(one.interval[0] <= (one.low + one.high) / 2 <= one.interval[1] for one in found.bins)
    assert inside >= 8
