"""Numbers that say how good a judge is."""

from __future__ import annotations

import math

import pytest
import torch

from gymnast_success_classifier.metrics import calibration_error, judge_quality


def test_quality_counts_hits_and_false_alarms() -> None:
    probability_M = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.1])
    quality = judge_quality(probability_M, torch.tensor([1, 1, 0, 1, 0]), threshold=0.5)
    assert quality["accuracy"] == pytest.approx(3 / 5)
    assert quality["precision"] == quality["recall"] == pytest.approx(2 / 3)
    assert quality["false_positive_rate"] == 0.5
    assert quality["success_rate"] == quality["judged_success_rate"] == 0.6


def test_what_has_no_cases_is_nan() -> None:
    quality = judge_quality(torch.tensor([0.1]), torch.tensor([0]), threshold=0.5)
    assert math.isnan(quality["precision"]) and math.isnan(quality["recall"]) and quality["accuracy"] == 1.0
    assert math.isnan(judge_quality(torch.zeros(0), torch.zeros(0), threshold=0.5)["accuracy"])


def test_calibration_error_is_the_mean_gap_between_confidence_and_frequency() -> None:
    certain = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert calibration_error(certain, torch.tensor([1, 1, 0, 0])) == 0.0
    assert calibration_error(certain, torch.tensor([1, 0, 0, 0])) == pytest.approx(0.25)
    half = torch.full((4,), 0.55)
    assert calibration_error(half, torch.tensor([1, 1, 0, 0])) == pytest.approx(0.05, abs=1e-6)
