"""How numbers of either kind of reward model read."""

from __future__ import annotations

import pytest
import torch

from gymnast_core.statistics import mean_interval, score_interval
from gymnast_pages.measure import SUCCESS, Measure
from gymnast_pages.video import side_by_side

SCORE = Measure("score", "progress")


def test_success_is_in_per_cent_and_a_reward_is_as_it_is() -> None:
    assert (SUCCESS.title, SCORE.title) == ("Success", "Mean reward by progress")
    assert (SUCCESS.value(0.325), SCORE.value(-12.3456), SCORE.value(None)) == ("32.5 %", "−12.35", "unscored")
    assert (SUCCESS.interval((0.1, 0.2)), SCORE.interval((-1.0, 2.0))) == ("10.0 % to 20.0 %", "−1 to 2")
    assert (SUCCESS.change(0.12), SCORE.change(0.12), SCORE.change(-3.0)) == ("+12.0 points", "+0.12", "−3")
    assert (SUCCESS.changes((-0.1, 0.3)), SCORE.changes((-1.0, 2.0))) == ("−10.0 to +30.0 points", "−1 to +2")
    assert SCORE.changes(None) == "unknown"
    verdicts = [SUCCESS.verdict(value) for value in (1.0, 0.0, 0.5, None)]
    assert verdicts == ["success", "failure", "partial 50.0 %", "unscored"]
    assert [SCORE.verdict(value) for value in (1.0, None)] == ["reward 1", "unscored"]


def test_scores_that_are_all_alike_tell_nothing_of_others() -> None:
    assert score_interval([2.0, 2.0, 2.0]) is None and score_interval([2.0]) is None
    assert score_interval([1.0, 5.0, 1.0, 5.0], ["a", "a", "b", "b"]) is None  # two starts of one mean
    low, high = score_interval([-10.0, 0.0, 30.0, 5.0]) or (0.0, 0.0)
    assert -10.0 <= low < 6.25 < high <= 30.0
    assert mean_interval([1.0, 1.0], "success") == pytest.approx((0.3424, 1.0), abs=1e-4)  # Wilson's
    assert mean_interval([1.0, 1.0], "score") is None


def test_cameras_stand_side_by_side_in_their_order() -> None:
    frames_TVHWC = torch.arange(3, dtype=torch.uint8).reshape(1, 3, 1, 1, 1).expand(2, 3, 4, 5, 3)
    picture_THWC = side_by_side(frames_TVHWC)
    assert picture_THWC.shape == (2, 4, 15, 3)
    assert picture_THWC[1, 2, ::5, 0].tolist() == [0, 1, 2]
