"""benchmarks/metaworld_table.py: seeds that were run elsewhere join those that are here, and known numbers come out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import pearsonr
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from metaworld import GAINS, NOISES, Bench, agreement, best_policy
from metaworld_table import write_results

from gymnast_core.config import load_config
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.trials import Trial

FAMILIES = ("door-close", "door-open")


def run(folder: Path, after: str, before: str | None = None) -> None:
    """A finished training on tasks of two families in turn; "1" is a success, "?" could not be judged."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    for name, outcomes in (("after", after), ("before", before)):
        if outcomes is None:
            continue
        episodes = [
            {"task": f"{FAMILIES[place % 2]}/{place}", "value": None if one == "?" else float(one)}
            for place, one in enumerate(outcomes)
        ]
        (folder / "evaluations" / f"{name}.json").write_text(json.dumps({"episodes": episodes}))


def written(output: Path, results: Path, preset: str = "a") -> dict:
    write_results(output, results, ["door-close"], preset)
    return json.loads((results / "metaworld.json").read_text())


def written_page(folder: Path) -> str:
    return write_results(folder / "runs", folder, ["door-close"], "a")


def test_rates_intervals_and_tests_are_those_of_statsmodels(tmp_path: Path) -> None:
    run(tmp_path / "runs/imagination-1", after="1111101011", before="1000100000")
    run(tmp_path / "runs/simulator-1", after="111?101010")
    data = written(tmp_path / "runs", tmp_path)
    imagined = data["all"]["arms"]["imagination"]
    assert imagined["rate"] == 0.8 and imagined["n"] == 10
    assert imagined["interval"] == pytest.approx(proportion_confint(8, 10, method="wilson"))
    assert data["all"]["arms"]["SFT"]["rate"] == 0.2
    assert data["all"]["arms"]["simulator"]["n"] == 9
    against = data["all"]["against imagination"]["SFT"]
    assert against["difference"] == pytest.approx(0.6)
    assert against["p_value"] == pytest.approx(mcnemar([[2, 6], [0, 2]], exact=True).pvalue)
    # Places 0, 2, ... are of the family that was trained on: 1 1 1 1 1 after, 1 0 1 0 0 before.
    assert data["trained"]["arms"]["imagination"]["rate"] == 1.0
    assert data["trained"]["arms"]["SFT"]["rate"] == 0.4


def test_seeds_that_were_run_elsewhere_are_kept(tmp_path: Path) -> None:
    run(tmp_path / "here/imagination-1", after="1100", before="1000")
    run(tmp_path / "there/imagination-2", after="1111", before="0000")
    run(tmp_path / "there/simulator-1", after="1110")
    run(tmp_path / "both/imagination-1", after="1100", before="1000")
    run(tmp_path / "both/imagination-2", after="1111", before="0000")
    run(tmp_path / "both/simulator-1", after="1110")
    written(tmp_path / "here", tmp_path / "results")
    joined = written(tmp_path / "there", tmp_path / "results")
    assert joined == written(tmp_path / "both", tmp_path / "other results")
    assert joined["all"]["arms"]["imagination"]["by seed"] == {"1": 0.5, "2": 1.0}
    assert joined == written(tmp_path / "nothing", tmp_path / "results"), "the page alone can be written again"


def test_the_share_of_the_gain_is_of_seeds_that_have_all_three(tmp_path: Path) -> None:
    """Places 0, 2, ... are of the family that was trained on."""
    run(tmp_path / "imagination-1", after="10101000", before="10000000")  # 25 -> 75 %
    run(tmp_path / "imagination-2", after="00000000", before="00000000")
    run(tmp_path / "simulator-1", after="10101010")  # 100 %
    page = write_results(tmp_path, tmp_path, ["door-close"], "a")
    said = page.splitlines()[0]
    assert "seed 1: RL in imagination 25.0 → 75.0 %" in said and "25.0 → 100.0 %: 67 % of that gain" in said


def test_what_another_preset_gave_is_not_mixed_in(tmp_path: Path) -> None:
    run(tmp_path / "here/imagination-1", after="1100", before="1000")
    run(tmp_path / "there/imagination-2", after="1111", before="0000")
    written(tmp_path / "here", tmp_path, preset="a")
    assert set(written(tmp_path / "there", tmp_path, preset="b")["outcomes"]["imagination"]) == {"2"}


IMAGINED = {"supervised": (0.6, 0.2, 0.7, 0.1), "gain-2.0": (0.9, 0.8, 0.4, 0.6), "noise-0.1": (0.1, 0.2, 0.9, 0.4)}
REAL = {"supervised": (0, 0, 1, 1), "gain-2.0": (1, 1, 0, 1), "noise-0.1": (0, 0, 0, 1)}
"""Of four tasks; the first and third are of the family that was trained on."""


def trials(worlds: dict[str, dict[str, tuple[float, ...]]]) -> list[Trial]:
    return [
        Trial(
            policy=policy, world=world, index=index, task=f"{FAMILIES[index % 2]}/{index}", instruction="",
            trial=0, seed=0, batch=0, value=value, partial=None, outcome=None, error=None, rationale="", cost_usd=0.0,
        )
        for world, policies in worlds.items()
        for policy, values in policies.items()
        for index, value in enumerate(values)
    ]  # fmt: skip


def store(folder: Path, rows: list[Trial]) -> None:
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    (folder / "results.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))


def test_imagined_success_is_counted_by_verdict_and_by_probability(tmp_path: Path) -> None:
    store(tmp_path / "runs/agreement", trials({"imagination": IMAGINED, "simulator": REAL}))
    found = written(tmp_path / "runs", tmp_path)["agreement"]
    assert found["all"]["verdict"]["policies"] == list(IMAGINED)
    assert found["all"]["verdict"]["imagined"] == pytest.approx([0.5, 0.75, 0.25])
    assert found["all"]["probability"]["imagined"] == pytest.approx([0.4, 0.675, 0.4])
    assert found["trained"]["verdict"]["imagined"] == pytest.approx([1.0, 0.5, 0.5])
    assert found["trained"]["probability"]["reference"] == pytest.approx([0.5, 0.5, 0.0])
    by_hand = pearsonr([0.4, 0.675, 0.4], [0.5, 0.75, 0.25]).statistic
    assert found["all"]["probability"]["pearson"]["value"] == pytest.approx(by_hand)
    page = (tmp_path / "metaworld.md").read_text()
    assert "| gain-2.0 | 50.0 (65.0) | 50.0 | 75.0 (67.5) | 75.0 |" in page


def test_the_gain_is_chosen_by_the_families_that_the_arms_are_trained_on() -> None:
    rows = trials({"simulator": {"gain-1.5": (1, 0, 1, 0), "gain-2.0": (1, 1, 0, 1)}})
    assert best_policy(rows, ["door-close"]) == "gain-1.5"
    assert best_policy(rows, FAMILIES) == "gain-2.0"


def test_the_chosen_gain_has_a_row(tmp_path: Path) -> None:
    run(tmp_path / "runs/imagination-1", after="1100", before="1000")
    store(tmp_path / "runs/gain-1", trials({"simulator": {"gain-2.0": REAL["gain-2.0"]}}))
    assert "| best constant gain 2.0 | 75.0 " in written_page(tmp_path)


def test_policies_of_the_agreement_are_an_evaluation_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(Bench, "run", lambda _self, _command, _name, config: asked.update(config) or tmp_path)
    for target in ("metaworld.policy_with_gain", "metaworld.policy_with_noise"):
        monkeypatch.setattr(target, lambda *places, **_: places[2])
    (tmp_path / "simulator-2").mkdir()
    (tmp_path / "simulator-2" / "summary.json").write_text("{}")
    agreement(Bench(argparse.Namespace(output=tmp_path, python=None, episodes=250)))
    assert asked.pop("kind") == "evaluate"
    config = load_config(EvaluateConfig, asked)
    names = ["supervised", *(f"gain-{gain}" for gain in GAINS), *(f"noise-{noise}" for noise in NOISES), "simulator-2"]
    assert list(config.all_policies()) == names
    assert config.all_policies()["simulator-2"].args["checkpoint"] == str(tmp_path / "simulator-2" / "policy")
    assert set(config.all_worlds()) == set(config.all_rewards()) == {"imagination", "simulator"}
