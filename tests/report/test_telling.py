"""What an iteration brought, in words."""

from __future__ import annotations

from gymnast_report.telling import Telling


def test_an_iteration_is_a_sentence_that_remembers_the_first() -> None:
    telling = Telling(12, "success-classifier")
    assert telling.words(1, {"imagined_success": 0.412, "loss": 0.1}) == (
        "iteration 1 of 12: 41 % of imagined rollouts judged successful"
    )
    assert telling.words(3, {"imagined_success": 0.58, "unscored": 3.0}, 0.75) == (
        "iteration 3 of 12: 58 % of imagined rollouts judged successful (was 41 % at first), 3 not judged, "
        "$0.75 spent so far"
    )


def test_a_resumed_run_knows_what_was() -> None:
    telling = Telling(12, "gpt-4o", [{"imagined_success": 0.25}, {"imagined_success": 0.3}])
    assert telling.words(3, {"imagined_success": 0.5}, 0.0) == (
        "iteration 3 of 12: 50 % of imagined rollouts judged successful (was 25 % at first)"
    )


def test_a_cost_that_is_not_known_is_not_called_nothing() -> None:
    words = Telling(12, "gpt-4o").words(1, {"imagined_success": 0.5}, None)
    assert words is not None and words.endswith(", an unknown amount spent so far")


def test_an_iteration_that_taught_nothing_says_so_and_coin_flips_are_named() -> None:
    metrics = {"imagined_success": 1.0, "groups_kept": 0.0, "groups_dropped": 16.0}
    assert Telling(5, "gpt-4o").words(1, metrics) == (
        "iteration 1 of 5: 100 % of imagined rollouts judged successful, nothing learned: none of 16 groups tells good "
        "from bad"
    )
    assert Telling(5, "twice(random)").words(1, {"imagined_success": 0.5, "groups_kept": 3.0}) == (
        "iteration 1 of 5: 50 % of imagined rollouts judged successful by coin flips (twice(random))"
    )


def test_a_mean_reward_is_not_called_success() -> None:
    words = Telling(5, "verified").words(1, {"imagined_reward": -0.1234})
    assert words is not None and "-0.123 in imagination" in words
    assert "success" not in words and "verified" in words


def test_a_step_that_imagined_nothing_has_no_words() -> None:
    assert Telling(5, "").words(1, {"loss": 0.3}) is None
