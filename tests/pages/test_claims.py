"""What headlines may claim, and what stands beside them."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from gymnast_core.config import ComponentConfig
from gymnast_pages.claims import Candidate, Change, accuracy, best, change, first_of, rate
from gymnast_pages.facts import facts_of
from gymnast_pages.measure import SUCCESS, Measure, judge_name

COINS, SCORE = Measure("success", "random"), Measure("score", "progress")


def test_coin_flips_and_mean_rewards_are_never_called_success() -> None:
    for measure in (COINS, SCORE):
        gain = Change(0.25, (0.1, 0.4), 400)
        said = [
            rate(measure, 0.75, (0.3, 0.95), 4), change(measure, 0.25, 0.5, gain), change(measure, 0.25, 0.5, None),
            best(measure, [Candidate("a", 0.5, gain), Candidate("b", 0.4, None)], "before"),
            first_of(measure, "real", [("a", 0.75), ("b", 0.5)], [True]), measure.verdict(1.0), measure.title,
        ]  # fmt: skip
        assert not any("succe" in text.lower() or "%" in text for text in said), said
    assert "coin flip by random" in COINS.title


RANDOM, CLAUDE = {"name": "random", "args": {"probability": 0.5}}, {"name": "claude"}


@pytest.mark.parametrize(
    "part, name, is_chance",
    [
        ({"name": "twice", "args": {"judge": RANDOM}}, "twice(random)", True),
        ({"name": "a", "args": {"judge": {"name": "twice", "args": {"judge": "random"}}}}, "a(twice(random))", True),
        ({"name": "ensemble", "args": {"judges": [RANDOM, RANDOM]}}, "ensemble(random, random)", True),
        ({"name": "first-hit", "args": {"reward_model": RANDOM, "step": 2}}, "first-hit(random)", True),
        (ComponentConfig("twice", {"judge": RANDOM}), "twice(random)", True),
        ({"name": "ensemble", "args": {"judges": [RANDOM, CLAUDE]}}, "ensemble(random, claude)", False),
        ({"name": "twice", "args": {"judge": CLAUDE, "otherwise": "random"}}, "twice(claude)", False),
        ("random", "random", True), (CLAUDE, "claude", False), ({"name": "random-forest"}, "random-forest", False),
        (None, "", False),
    ],
)  # fmt: skip
def test_coin_flips_stay_coin_flips_whatever_is_wrapped_around_them(part: Any, name: str, is_chance: bool) -> None:
    measure = Measure("success", judge_name(part))
    assert measure.judge == name
    assert (measure.is_chance, measure.is_success) == (is_chance, not is_chance)


def test_a_judge_is_right_only_above_what_one_answer_to_everything_gives() -> None:
    judge = Measure("success", "claude")
    assert accuracy(judge, 0.9, (0.85, 0.94), 200, guessing=0.6) == "claude is right about 90.0 % of clips"
    unsure = accuracy(judge, 0.62, (0.55, 0.69), 200, guessing=0.6)
    assert unsure == "claude is not shown to do better than one answer to everything: right about 62.0 % of clips"
    assert "does worse than one answer" in accuracy(judge, 0.4, (0.33, 0.47), 200, guessing=0.6)
    assert accuracy(judge, 1.0, (0.51, 1.0), 4, guessing=0.5) == (
        "claude is right about 51.0 % to 100.0 % of clips (100.0 % of 4 clips)"
    )
    flips = accuracy(Measure("success", "twice(random)"), 0.9, (0.85, 0.94), 200, guessing=0.6)
    assert flips == "twice(random) flips coins: right about 90.0 % of clips"
    scores = accuracy(Measure("score", "distance"), 0.9, (0.85, 0.94), 200, guessing=0.6, threshold=-5)
    assert scores == "A reward above -5 by distance is right about 90.0 % of clips"


def test_few_trials_give_the_interval_first() -> None:
    assert rate(SUCCESS, 0.75, (0.301, 0.954), 4) == "30.1 % to 95.4 % (75.0 % of 4 trials)"
    assert rate(SUCCESS, 0.75, (0.7, 0.8), 400) == "75.0 %"
    assert rate(SUCCESS, None, None, 0) == "unscored"
    assert change(SUCCESS, 0.25, 1.0, Change(0.75, (0.1, 1.0), 4)) == (
        "Task success rose by +10.0 to +100.0 points: from 25.0 % to 100.0 %"
    )


@pytest.mark.parametrize(
    "interval, n, said",
    [
        ((0.05, 0.2), 400, "Task success rose from 30.0 % to 42.0 %"),
        ((-0.2, -0.05), 400, "Task success fell from 30.0 % to 42.0 %"),
        ((-0.01, 0.2), 400, "No change of task success is shown: 30.0 % before, 42.0 % after"),
        (None, 400, "No change of task success is shown: 30.0 % before, 42.0 % after"),
    ],
)
def test_a_change_is_what_its_interval_shows(interval: tuple[float, float] | None, n: int, said: str) -> None:
    assert change(SUCCESS, 0.3, 0.42, Change(0.12, interval, n)) == said


def test_best_is_a_gain_that_is_shown_and_never_the_smaller_loss() -> None:
    def candidate(label: str, mean: float, half: float) -> Candidate:
        return Candidate(label, 0.5 + mean, Change(mean, (mean - half, mean + half)))

    losses = [candidate("a", -0.2, 0.05), candidate("b", -0.1, 0.05)]
    assert best(SUCCESS, losses, "before") == "A loss against before in all 2; the smallest: b, −10.0 points, to 40.0 %"
    assert best(SUCCESS, [*losses, candidate("c", 0.1, 0.05)], "before") == "Best: c, +10.0 points, to 60.0 %"
    # The best of three, chosen after looking, needs more than an interval of its own: 0.1 ± 0.095 becomes ± 0.116.
    unsure = best(SUCCESS, [*losses, candidate("c", 0.1, 0.095)], "before")
    assert unsure == "No gain over before is shown; the largest: c, +10.0 points, to 60.0 %"
    unchanged, unsure_loss = candidate("c", 0.0, 0.3), candidate("c", -0.01, 0.3)
    assert best(SUCCESS, [*losses, unchanged], "before").startswith("No gain over before is shown; the largest: c")
    assert best(SUCCESS, [*losses, unsure_loss], "before").startswith(
        "No gain over before is shown; the smallest loss: c"
    )
    assert best(SUCCESS, [candidate("c", 0.1, 0.095)], "before").startswith("A gain over before: c")
    unknown = [Candidate("a", 0.5, None), Candidate("b", 0.6, None)]
    assert best(SUCCESS, unknown, "before") == "Nothing says what was gained; the highest success: b, 60.0 %"


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_best_of_several_is_held_to_its_few_seeds(seeds: int) -> None:
    """Bounds at the level of all candidates together are those of SciPy's t distribution."""
    values = [0.03, 0.05, 0.04, 0.06, 0.02, 0.05, 0.05, 0.03, 0.07, 0.01][:seeds]

    def interval(level: float) -> tuple[float, float]:
        found = stats.ttest_1samp(values, 0.0).confidence_interval(level)
        return float(found.low), float(found.high)

    mean = sum(values) / seeds
    gain = Change(mean, interval(0.95), degrees=seeds - 1)
    assert gain.among(1) == gain
    among = gain.among(10)
    assert among.interval == pytest.approx(interval(0.995))
    assert (among.mean, among.degrees) == (mean, seeds - 1)
    # What no seeds stand behind keeps a normal's quantiles: 2.807 / 1.960.
    low, high = Change(0.1, (0.0, 0.2)).among(10).interval
    assert (low, high) == pytest.approx((0.1 - 0.1 * 2.807 / 1.96, 0.1 + 0.1 * 2.807 / 1.96), abs=1e-4)


def test_the_first_of_a_ranking_must_beat_every_other() -> None:
    order = [("a", 0.8), ("b", 0.7), ("c", 0.2)]
    assert first_of(SUCCESS, "real", order, [True, True]) == "a succeeds most often in real: 80.0 %"
    assert first_of(SUCCESS, "real", order, [False, True]) == "a is first in real with 80.0 %, but not shown to beat b"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([("a", 0.24), ("b", 0.24)], "a and b tie in real with 24.0 %"),
        ([("a", 0.0), ("b", 0.0), ("c", 0.0)], "All 3 tie in real with 0.0 %"),
        ([("a", 0.5), ("b", 0.5), ("c", 0.1)], "a and b tie in real for the first place with 50.0 %"),
    ],
)
def test_what_ties_has_no_winner(order: list[tuple[str, float | None]], said: str) -> None:
    assert first_of(SUCCESS, "real", order, [False] * (len(order) - 1)) == said


def test_facts_name_where_numbers_are_from_and_where_the_policy_learned() -> None:
    config = """
world_model: {name: worldgym}
policy: {name: openvla-oft}
reward_model: {name: success-classifier}
optimizer: {name: grpo}
evaluation: {world: {name: gymnasium}, reward_model: {name: environment}, tasks: {name: tabletop}}
"""
    assert dict(facts_of(config).but(n="400 trials").items) == {
        "judge": "environment", "world": "gymnasium", "policy": "openvla-oft", "algorithm": "grpo", "n": "400 trials",
        "learned in": "worldgym, judged by success-classifier",
    }  # fmt: skip
    # Without tasks an evaluation never runs: its parts measured nothing.
    alone = dict(facts_of(config.replace("tasks: {name: tabletop}", "tasks: null")).items)
    assert (alone["judge"], alone["world"]) == ("success-classifier", "worldgym") and "learned in" not in alone
    several = "kind: evaluate\npolicies: {old: {name: openvla}, new: openvla-oft}\nworld_model: gymnasium\n"
    facts = dict(facts_of(several).items)
    assert facts["policy"] == "old (openvla), new (openvla-oft)" and facts["algorithm"].startswith("none")
    assert facts["judge"] == "unknown" and facts["n"] == "nothing measured"
