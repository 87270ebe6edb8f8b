"""benchmarks/paper_parts.py on numbers that are known; and what paper_dyna.py would run, without running it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gymnast_core.config import RunConfig, load_config
from gymnast_core.plugins.compose import registries

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import paper_dyna  # noqa: E402
import paper_parts  # noqa: E402
import paper_statistics  # noqa: E402
from paper_parts import Claim  # noqa: E402

CLAIM = Claim("a", "b", "why")


def trials(a1: list[int], a2: list[int]) -> dict[tuple[str, int], np.ndarray]:
    """`b` never succeeds; `a` does on these tasks, in the seeds 7 and 8."""
    zeros = np.zeros(len(a1))
    return {("a", 7): np.array(a1, float), ("b", 7): zeros, ("a", 8): np.array(a2, float), ("b", 8): zeros}


def test_rates_and_claims_go_by_seed() -> None:
    found = paper_parts.rates(trials([1, 1, 0, 0], [1, 0, 0, 0]))
    assert found == {"a": [0.5, 0.25], "b": [0.0, 0.0]}
    claims = paper_parts.judged([CLAIM, Claim("a", "absent", "left out")], found)
    assert list(claims) == ["why: a > b"] and claims["why: a > b"]["differences"] == [0.5, 0.25]
    assert claims["why: a > b"]["p"] == pytest.approx(stats.ttest_1samp([0.5, 0.25], 0).pvalue)


def test_later_seeds_go_on_from_what_the_results_have(tmp_path: Path) -> None:
    options = paper_dyna.parse(["--from-seed", "3", "--seeds", "3", "--results", str(tmp_path)])
    assert paper_parts.seeds_of(options) == [3]
    new = {
        "settings": {"episodes": 4, "at": (1, 2)},
        "seeds": [3],
        "rates": {"a": [0.5], "b": [0.25]},
        "steps": {"a": [7]},
    }
    path = tmp_path / "paper_dyna.json"
    with pytest.raises(SystemExit, match=r"goes on from the seeds \[1, 2\] in .*, which holds none"):
        paper_parts.with_earlier(new, "paper_dyna", [CLAIM], options)
    old = {"settings": {"episodes": 4, "at": [1, 2]}, "seeds": [1, 2], "rates": {"a": [0.75, 1.0], "b": [0.0, 0.5]}}
    path.write_text(json.dumps({**old, "steps": {"a": [5, 6]}}))
    found = paper_parts.with_earlier(new, "paper_dyna", [CLAIM], options)
    assert (found["seeds"], found["steps"]) == ([1, 2, 3], {"a": [5, 6, 7]})
    assert found["rates"] == {"a": [0.75, 1.0, 0.5], "b": [0.0, 0.5, 0.25]}
    assert found["claims"]["why: a > b"]["differences"] == [0.75, 0.5, 0.25]
    for other in ({"seeds": [1]}, {"settings": {"episodes": 5, "at": [1, 2]}}):
        path.write_text(json.dumps({**old, **other}))
        with pytest.raises(SystemExit, match="goes on from"):
            paper_parts.with_earlier(new, "paper_dyna", [CLAIM], options)


def test_a_pilot_separates_what_more_tasks_reduce_from_what_they_do_not() -> None:
    # Rates 0.5 and 0.25 on 4 tasks: variance 1/32 over seeds; within: mean of 1/3 and 1/4 (n - 1) = 7/24.
    found = paper_parts.pilot([CLAIM], trials([1, 1, 0, 0], [1, 0, 0, 0]), planned=5, smallest=0.2)
    assert found["pooled"] == pytest.approx(math.sqrt(1 / 32)) and found["within"] == pytest.approx(7 / 24)
    # 1/32 is less than 7/24/4: nothing is left between seeds, and 400 tasks leave 7/24/400.
    row = found["needed"][1]
    assert row["tasks"] == 400
    assert row["seeds"] == paper_statistics.needed(math.sqrt(7 / 24 / 400), 0.2, alpha=0.01)
    # chi2 with one degree of freedom: its 20 % point is 0.06418.
    assert found["pooled_upper"] == pytest.approx(math.sqrt(1 / 32 / 0.06418475), rel=1e-5)
    assert found["plan"]["why: a > b"]["planned"] == 5
    with pytest.raises(ValueError, match="two seeds"):
        paper_parts.pilot([CLAIM], {key: value for key, value in trials([1], [0]).items() if key[1] == 7}, planned=5)


@pytest.mark.parametrize(
    ("variance", "within", "tasks", "n", "expected"),
    [(0.01, 0.4, 100, 100, 0.1), (0.01, 0.4, 100, 400, math.sqrt(0.007)), (0.001, 0.4, 100, 400, math.sqrt(0.001))],
)
def test_deviation_on_other_numbers_of_tasks(
    variance: float, within: float, tasks: int, n: int, expected: float
) -> None:
    assert paper_parts.deviation_at(variance, within, tasks, n) == pytest.approx(expected)


def test_pilot_and_run_share_a_page_in_either_order(tmp_path: Path) -> None:
    found = paper_parts.rates(trials([1, 1, 0, 0], [1, 0, 0, 0]))
    run = {
        "settings": {"episodes": 4}, "seeds": [7, 8], "rates": found, "claims": paper_parts.judged([CLAIM], found)
    }  # fmt: skip
    pilot = {"pilot": paper_parts.pilot([CLAIM], trials([1, 1, 0, 0], [1, 0, 0, 0]), planned=5)}
    assert "No pilot" in paper_parts.save("x", tmp_path / "one", "T", "about", run)
    first = paper_parts.save("x", tmp_path / "one", "T", "about", pilot)
    paper_parts.save("x", tmp_path / "two", "T", "about", pilot)
    assert paper_parts.save("x", tmp_path / "two", "T", "about", run) == first
    assert "| a | 37.5 ± 12.5 | 50.0, 25.0 |" in first and "| 400 |" in first
    assert set(json.loads((tmp_path / "one/x.json").read_text())) == {*run, "pilot"}


def test_runs_with_other_settings_do_not_mix(tmp_path: Path) -> None:
    folder = paper_parts.begin(tmp_path / "out", {"iterations": 8, "pair": (1, 2)})
    assert paper_parts.begin(tmp_path / "out", {"iterations": 8, "pair": (1, 2)}) == folder
    with pytest.raises(SystemExit, match="iterations"):
        paper_parts.begin(tmp_path / "out", {"iterations": 9, "pair": (1, 2)})


def test_every_arm_of_dyna_can_be_built_and_differs_in_its_world_alone(tmp_path: Path) -> None:
    options = paper_dyna.parse(["--output", str(tmp_path)])
    config = paper_dyna.rounds(2, options)
    assert config.rounds == 2 and config.begin == "collect" and config.seed == 20
    # What the robot shows is what policies practise from, are looked at and measured on; the old play has no gap.
    robot = config.collect["environments"][0] if config.collect else {}
    parts = [robot["args"], config.train["tasks"]["args"], config.evaluate["tasks"]["args"]]
    assert all(part["gap"] == paper_dyna.GAP for part in parts)
    assert all(abs(1 - value) > 0.1 for key, value in paper_dyna.GAP.items() if isinstance(value, float))
    assert config.world is not None and config.world.earlier is not None and config.judge is not None
    assert config.world.earlier.args["path"] == str(tmp_path / "old/episodes")
    halves = {name: value for step in paper_dyna.halves(config, tmp_path / "s") for name, value in step.items()}
    path = tmp_path / "config.yaml"
    for name, half in halves.items():
        path.write_text(paper_dyna.to_yaml(half))
        again = load_config(RunConfig, str(path))  # as `gymnast train` reads it
        assert float(again.optimizer.args["learning_rate"]) == 1.5e-4, name
        assert again.loop == half.loop and again.loop.iterations == options.iterations
        registries().datasets.build(again.tasks.name, again.tasks.args)
    # Second halves draw alike, in the old world or in that of round 1, and go on from their own first half.
    assert halves["old-2"].seed == halves["one-2"].seed != halves["old-1"].seed
    assert halves["old-1"].world_model == halves["old-2"].world_model == config.world_model
    assert halves["one-2"].world_model.args["checkpoint"] == str(tmp_path / "s/dyna/round-1/world_model/checkpoint")
    assert halves["one-2"].policy.args["checkpoint"] == str(tmp_path / "s/dyna/round-1/train/policy")
    assert halves["old-2"].policy.args["checkpoint"] == str(tmp_path / "s/old-1/policy")
    arms = paper_dyna.policies(config, tmp_path / "s")
    assert {arm for claim in paper_dyna.CLAIMS for arm in (claim.better, claim.worse)} <= set(arms)
    assert arms["two rounds"] == tmp_path / "s/dyna/round-2/train/policy"
