"""`gymnast probe` as people meet it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import BINARY, Browser
from evaluation_parts import WORLD, Command, policy

from gymnast_core.types import Reward
from gymnast_environment.rewards import RandomReward
from gymnast_evaluation.trials import Trial
from gymnast_probe.config import ORIGINAL
from gymnast_probe.page import build_probe_page
from gymnast_probe.summary import summarise
from gymnast_tabletop.datasets import TabletopTasks


def arguments(output: Path, *changes: str) -> list[str]:
    return [
        "probe", f"policies.first={policy(0)}", f"policies.second={policy(1)}", f"world_model={WORLD}",
        "reward_model={name: random, args: {probability: 0.5}}",
        "tasks={name: tabletop, args: {count: 6, image_size: 32, horizon: 4}}", "horizon=4", "batch_size=4",
        "episodes=5", "videos=1", "edits.paraphrase={}", "edits.other-colour={}",
        "edits.dim={edit: brightness, factor: 0.5}",
        "edits.where={edit: other-object, objects: [spoon, fork]}", f"output={output}", *changes,
    ]  # fmt: skip


@pytest.fixture
def probed(gymnast: Command, tmp_path: Path) -> Path:
    code, out, err = gymnast(*arguments(tmp_path / "run"))
    assert code == 0, err
    assert "see probe.html there" in out
    return tmp_path / "run"


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def test_every_policy_meets_the_same_edits(probed: Path) -> None:
    found = {(row["policy"], row["world"], row["index"]): row for row in rows(probed)}
    labels = [ORIGINAL, "paraphrase", "other-colour", "dim", "where"]
    assert len(found) == 2 * 5 * 5 and {key[1] for key in found} == set(labels)
    for (_, label, index), row in found.items():
        twin = found["second", label, index]
        assert (row["task"], row["instruction"]) == (twin["task"], twin["instruction"])
        original = found["first", ORIGINAL, index]["instruction"]
        assert (row["instruction"] == original) == (label in (ORIGINAL, "dim", "where"))
        if label == "where":
            assert row["value"] is None and row["error"].startswith("The edit does not apply: ")
        assert row["applies"] == (label != "where")
    summary = json.loads((probed / "summary.json").read_text())
    assert summary["unscored"] == 0
    cell = summary["policies"]["first"]
    assert cell["where"] | {"fall": None} == {
        "rate": None, "interval": None, "n": 0, "unscored": 0, "not_applicable": 5, "fall": None,
    }  # fmt: skip
    assert cell["dim"]["fall"]["n"] == 5
    assert cell["dim"]["fall"]["difference"] == pytest.approx(cell["dim"]["rate"] - cell[ORIGINAL]["rate"])


def test_a_stopped_probe_goes_on_and_takes_another_edit(probed: Path, gymnast: Command) -> None:
    before = (probed / "results.jsonl").read_bytes()
    (probed / "results.jsonl").write_bytes(before[: len(before) // 2])  # as a kill leaves it
    code, _, err = gymnast("probe", "--resume", str(probed))
    assert code == 0, err

    def table(text: bytes) -> list[str]:
        return sorted(text.decode().splitlines())

    assert table((probed / "results.jsonl").read_bytes()) == table(before)
    code, _, err = gymnast("probe", "--resume", str(probed), "edits.crop={}")
    assert code == 0, err
    assert len(rows(probed)) == 2 * 6 * 5
    assert set(json.loads((probed / "summary.json").read_text())["policies"]["first"]) >= {"dim", "crop"}
    code, _, err = gymnast("probe", "--resume", str(probed), "edits.dim.factor=0.9")
    assert code == 2 and "cannot change edits.dim.factor" in err


def test_an_outage_stops_a_probe_before_it_keeps_what_failed(
    gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that are kept are done for good: those of an outage must not be."""
    score, calls = RandomReward.score, []

    def failing(self: RandomReward, rollouts: list) -> list[Reward]:
        calls.append(len(rollouts))
        return score(self, rollouts) if len(calls) <= 2 else [Reward(None, error="503") for _ in rollouts]

    with monkeypatch.context() as outage:
        outage.setattr(RandomReward, "score", failing)
        code, _, err = gymnast(*arguments(tmp_path / "run"))
    assert code == 2 and "of 'first' under" in err and "gymnast probe --resume" in err and "503" in err
    kept = len(rows(tmp_path / "run"))
    assert 0 < kept < 50 and not any(row["error"] == "503" for row in rows(tmp_path / "run"))
    code, _, err = gymnast("probe", "--resume", str(tmp_path / "run"))
    assert code == 0 and len(rows(tmp_path / "run")) == 50, err


def test_the_page_shows_the_edits_and_needs_nothing_else(probed: Path, tmp_path: Path) -> None:
    page = (probed / "probe.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", page)
    assert page.count("The same start edited by dim") == 4
    # A fall has a minus: the column is that of changes.
    assert ">Change</button>" in page and ">Fall</button>" not in page
    if BINARY is None:
        return
    with Browser(tmp_path / "profile", width=375, height=800) as browser:
        browser.open((probed / "probe.html").as_uri())
        assert browser.value("document.documentElement.scrollWidth") <= 375
        assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth === 32 && i.alt)")
        browser.value("document.querySelectorAll('thead button')[3].click()")
        # What could not be compared is sorted last; JSON has no word for infinity.
        number = "Math.min(Number(row.cells[3].dataset.value), 1e9)"
        falls = browser.value(f"[...document.querySelectorAll('tbody tr')].map(row => {number})")
        assert falls == sorted(falls) and len(falls) == 8
        assert browser.problems == [] and browser.requests == [(probed / "probe.html").as_uri()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("edits.blur={}", "edits.blur: No edit 'blur'"),
        ("edits.original={}", "Rename it"),
        ("edits.dim.fctor=1", "Did you mean 'factor'"),
        ("horizon=3", "set horizon=2"),
        ("edits.new={edit: generated-image, prompt: x}", "export OPENAI_API_KEY"),
    ],
)
def test_what_cannot_work_is_one_clear_error(
    change: str, message: str, gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err = gymnast(*arguments(tmp_path / "run", change))
    assert code == 2 and message in err and "Traceback" not in err, err


def test_a_judge_that_refuses_does_so_before_tasks_are_made(
    gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(TabletopTasks, "tasks", lambda tasks: made.append(1))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err = gymnast(*arguments(tmp_path / "run", "reward_model={name: gpt-4o}"))
    assert code == 2 and "OPENAI_API_KEY" in err
    assert made == [] and not (tmp_path / "run").exists()


def trial(policy: str, label: str, index: int, value: float | None, error: str | None = None) -> Trial:
    return Trial(policy, label, index, f"t{index}", "", 0, 0, 0, value, None, None, error, "", 0.5)


def test_falls_are_paired_and_corrected() -> None:
    """Of 20 solved tasks 12 fail when edited, 2 are unscored, 1 is left out: exact McNemar p = 2 / 2**12."""
    trials = [trial("a", ORIGINAL, i, 1.0) for i in range(20)]
    trials += [trial("a", "hard", i, 0.0 if i < 12 else 1.0) for i in range(17)]
    trials += [trial("a", "hard", i, None, "503") for i in (17, 18)]
    trials += [replace(trial("a", "hard", 19, None, "There is no colour."), applies=False)]
    trials += [trial("a", "easy", i, 1.0) for i in range(20)]
    summary = summarise(trials, ["a"], [ORIGINAL, "hard", "easy"])
    hard, easy = (summary["policies"]["a"][label] for label in ("hard", "easy"))
    assert (hard["n"], hard["unscored"], hard["not_applicable"]) == (17, 2, 1)
    assert summary["unscored"] == 2 and summary["cost_usd"] == 30.0
    assert hard["fall"]["n"] == 17 and hard["fall"]["difference"] == pytest.approx(-12 / 17)
    assert hard["fall"]["p_value"] == pytest.approx(2 / 2**12) and hard["fall"]["p_holm"] == pytest.approx(4 / 2**12)
    assert hard["fall"]["interval"][1] < 0 < easy["fall"]["interval"][1]
    assert easy["fall"]["p_value"] == 1.0


def test_a_task_that_occurs_twice_falls_once() -> None:
    """Ten tasks twice each, all of which fail when edited: p = 2 / 2¹⁰ over tasks, not 2 / 2²⁰ over trials."""
    rows = {label: [replace(trial("a", label, i, value), task=f"t{i % 10}") for i in range(20)]
            for label, value in ((ORIGINAL, 1.0), ("hard", 0.0))}  # fmt: skip
    fall = summarise([*rows[ORIGINAL], *rows["hard"]], ["a"], [ORIGINAL, "hard"])["policies"]["a"]["hard"]["fall"]
    assert (fall["n"], fall["only_first"], fall["test"]) == (20, 20, "paired permutation of tasks")
    assert fall["p_value"] == pytest.approx(2 / 2**10)


def test_a_fall_of_another_reward_is_named_after_its_judge(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=2"))[0] == 0
    trials = [replace(trial("first", label, i, 10.0 * i - shift), kind="score")
              for label, shift in ((ORIGINAL, 0.0), ("dim", 4.0)) for i in range(6)]  # fmt: skip
    summary = summarise(trials, ["first"], [ORIGINAL, "dim"], judge="progress")
    (run / "summary.json").write_text(json.dumps(summary))
    fall = summary["policies"]["first"]["dim"]["fall"]
    assert fall["difference"] == -4.0 and fall["interval"] is None and fall["test"] == "paired permutation"
    page = build_probe_page(run).read_text()
    text = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    shown = text[: text.index("Repeat this probe")]
    assert "Mean reward by progress" in shown and "−4" in shown and "success" not in shown.lower()
