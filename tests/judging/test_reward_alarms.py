"""Alarms about rewards: in windows, on a canary, and in real trainings."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import judging
import pytest
import torch
from line_parts import Command

from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.events import RewardsScored, RunStarted
from gymnast_core.processes import Processes
from gymnast_core.runs.spending import read_payments
from gymnast_core.types import Episode, Reward, one_camera
from gymnast_judging import hooks
from gymnast_judging.alarms import Alarm, AlarmFile, Entry, Finding, Window, entries_of
from gymnast_judging.audit import Denials, fooled
from gymnast_judging.canary import Canary, Measurement, blind, drift, forgetful
from gymnast_judging.hooks import Config
from gymnast_judging.rows import RowFile
from gymnast_judging.stored import stored_places
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer


def alarms(run: Path) -> list[Alarm]:
    return RowFile(run / "alarms.jsonl", Alarm).rows


def told(rewards: Sequence[Reward]) -> list[Entry]:
    """What a window is told of rewards."""
    rollouts = [judging.make_rollout(0, True)] * len(rewards)
    return entries_of(RewardsScored(None, Path(), rollouts=rollouts, rewards=rewards))


def voted(*votes: int) -> Reward:
    value = float(2 * sum(votes) > len(votes))
    return Reward(value, partial=sum(votes) / len(votes), votes=votes)


def test_a_window_of_one_value_is_an_alarm_only_when_it_is_full() -> None:
    window = Window(10, 0.3)
    window.add(1, told([Reward(0.0)] * 9))
    assert window.findings() == []
    window.add(1, told([Reward(None, error="503")]))  # an error is no zero
    assert window.findings() == []
    window.add(2, told([Reward(0.0)]))
    (found,) = window.findings()
    assert found.kind == "constant" and found.numbers == {"value": 0.0, "rollouts": 10}
    assert "never succeeds, or the judge never sees it" in found.message
    window.add(2, told([Reward(1.0)]))
    assert window.findings() == []
    window.add(3, told([Reward(1.0)] * 9))
    assert "mistakes for success" in window.findings()[0].message
    window.add(4, told([Reward(0.5)] * 10))
    assert "never differs tells nothing" in window.findings()[0].message


def test_scores_are_not_called_success() -> None:
    window = Window(10, 0.3, judges_success=False)
    window.add(1, told([Reward(1.0)] * 10))
    (found,) = window.findings()
    assert "reward 1," in found.message and "never differs tells nothing" in found.message
    assert "succe" not in found.message


def test_votes_that_contradict_each_other() -> None:
    window = Window(10, 0.3)
    window.add(1, told([voted(1, 1, 0), voted(0, 0, 1)] * 5))  # two of three pairs contradict
    (found,) = window.findings()
    assert found.kind == "disagreement" and found.numbers["disagreement"] == pytest.approx(2 / 3)
    window.add(2, told([voted(1, 1, 1), voted(0, 0, 0)] * 5))
    assert window.findings() == []
    window.add(
        3, told([voted(1, 1, 0, 0, 1), Reward(None, error="a tie", votes=(1, 0), abstained=True)] * 5)
    )  # ties are votes, too
    found = window.findings()[-1]
    assert found.kind == "disagreement" and found.numbers["disagreement"] == pytest.approx((0.6 + 1.0) / 2)


def test_an_alarm_is_raised_once_and_cleared_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finding = Finding("constant", "all the same", {"value": 1.0})
    file = AlarmFile(tmp_path, 0)
    for iteration, found in ((1, []), (2, [finding]), (3, [finding]), (4, []), (5, []), (6, [finding])):
        file.update(iteration, found, ["constant"])
    assert [(row.iteration, row.event) for row in alarms(tmp_path)] == [(2, "raised"), (4, "cleared"), (6, "raised")]
    assert caplog.text.count("ALARM (constant, iteration 2): all the same") == 1
    # A run resumed after iteration 3 has that alarm, and repeats what came later.
    resumed = AlarmFile(tmp_path, 3)
    assert resumed.active == {"constant"} and [row.iteration for row in alarms(tmp_path)] == [2]
    resumed.update(4, [], ["canary-drift"])  # others do not end it
    assert resumed.active == {"constant"}


def test_drift_is_what_chance_does_not_explain() -> None:
    right = [True] * 50 + [False] * 14
    assert drift(right, right, 0.01) is None
    # Of discordant clips, k of n lost: the binomial tail of a fair coin, e.g. 7 of 7: 1/128.
    lost = [False] * 7 + [True] * 43 + [False] * 14
    found = drift(right, lost, 0.01)
    assert found is not None and found.numbers["p_value"] == pytest.approx(1 / 128)
    assert (found.numbers["lost"], found.numbers["won"]) == (7, 0)
    assert drift(right, lost, 1 / 129) is None
    assert drift(lost, right, 0.01) is None  # it got better
    noise = [False] * 7 + [True] * 43 + [True] * 5 + [False] * 9  # 7 lost, 5 won: p = 0.387
    assert drift(right, noise, 0.05) is None
    assert drift([None, *right], [False, *right], 0.5) is None  # what was not judged is not lost


def test_false_drift_alarms_are_as_rare_as_stated() -> None:
    """A judge that is right about each clip by chance, 80 % of the time, forever."""
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(400, 2, 64, generator=generator) < 0.8).tolist()
    assert sum(drift(before, now, 0.05) is not None for before, now in draws) <= 20


def test_a_judge_no_better_than_guessing_is_blind() -> None:
    truth = [True] * 16 + [False] * 16
    assert blind(truth, [True] * 32) is None  # one outcome only: nothing to compare with
    assert blind([True] * 32, truth) is None
    found = blind([True] * 16 + [False] * 16, truth)  # always says success
    assert found is not None and found.numbers["guessing"] == 0.5
    assert found.numbers["p_value"] == pytest.approx(0.57, abs=0.01)
    assert blind([None] * 32, truth) is None


def test_a_judge_with_a_memory_is_asked_anew() -> None:
    plain = ComponentConfig("success-classifier", {"checkpoint": "x"})
    assert forgetful(plain, "canary/5") == {"checkpoint": "x"}
    service = ComponentConfig("gpt-4o", {"votes": 3, "namespace": "mine/"})
    assert forgetful(service, "canary/5") == {"votes": 3, "namespace": "mine/canary/5"}
    members = [{"name": "gpt-4o"}, {"name": "success-classifier", "args": {"checkpoint": "x"}}]
    # Whatever is built around a judge: it is the judge inside that remembers.
    for name, key in (("twice", "judge"), ("uncertain", "judge"), ("progress", "judge"), ("partial-credit", "judge")):
        inside = {"name": "gpt-4o", "args": {"votes": 3}}
        (found,) = [forgetful(ComponentConfig(name, {key: inside, "seed": 3}), "canary/5")]
        assert found == {key: {"name": "gpt-4o", "args": {"votes": 3, "namespace": "canary/5"}}, "seed": 3}
    found = forgetful(ComponentConfig("ensemble", {"judges": members}), "canary/5")["judges"]
    assert found == [{"name": "gpt-4o", "args": {"namespace": "canary/5"}}, members[1]]
    assert members[0] == {"name": "gpt-4o"}


def bright_clips(count: int) -> list[Episode]:
    """What the server on this machine can judge: bright at the end is a success."""
    frames = torch.zeros(count, 3, 16, 16, 3, dtype=torch.uint8)
    for i in range(count):
        frames[i, 0] = i
        frames[i, -1] = 255 * (i % 2)
    return [
        Episode(f"c{i}", "light up", one_camera(frames[i]), torch.zeros(2, 1), success=bool(i % 2))
        for i in range(count)
    ]


def test_a_model_that_changes_behind_its_name_is_seen(tmp_path: Path, parts: Any, monkeypatch: Any) -> None:
    """Answers that are remembered cannot drift; the canary asks the server itself, once a measurement."""
    monkeypatch.setattr(parts.Clips, "episodes", lambda self: bright_clips(self.config.count))
    options = Config(canary=ComponentConfig("line-clips"), canary_every=5)
    with LoopbackServer() as server:
        args = {"model": "m", "base_url": server.openai_url, "cache": str(tmp_path / "vlm.sqlite"), "votes": 1}
        canary = Canary(options, ComponentConfig("openai-compatible", args), tmp_path, done=0, iterations=10)
        assert canary.measure(0) == [] and canary.measure(5) == []
        assert len(server.log) == 2 * 20
        server.behaviour = Behaviour(reply='{"reasoning": "lovely", "score": 1}')
        found = {finding.kind: finding for finding in canary.measure(10)}
    assert found.keys() == {"canary-blind", "canary-drift"}
    numbers = found["canary-drift"].numbers
    assert (numbers["before"], numbers["now"], numbers["lost"], numbers["won"]) == (1.0, 0.5, 10, 0)
    rows = RowFile(tmp_path / "judging/canary.jsonl", Measurement).rows
    assert [payment.usd for payment in read_payments(tmp_path)] == [row.cost_usd for row in rows]
    assert [row.iteration for row in rows] == [0, 5, 10] and rows[0].right == [True] * 20


@pytest.mark.parametrize(("unlabelled", "used"), [(0, 8), (6, 8), (16, 4)])
def test_a_canary_counts_the_clips_that_have_a_label(tmp_path: Path, parts: Any, unlabelled: int, used: int) -> None:
    clips = ComponentConfig("line-clips", {"count": 20, "unlabelled": unlabelled})
    options = Config(canary=clips, canary_clips=8)
    Canary(options, ComponentConfig("line", {"rule": "any"}), tmp_path, done=0, iterations=10).measure(0)
    (row,) = RowFile(tmp_path / "judging/canary.jsonl", Measurement).rows
    assert len(row.right) == used


def test_a_resumed_run_may_be_measured_on_other_clips(tmp_path: Path, parts: Any) -> None:
    """They are compared with themselves only."""
    judge = ComponentConfig("line", {"rule": "any"})

    def canary(count: int, done: int) -> Canary:
        options = Config(canary=ComponentConfig("line-clips", {"count": count}), canary_clips=count)
        return Canary(options, judge, tmp_path, done=done, iterations=10)

    first = canary(20, 0)
    assert first.is_new and [found.kind for found in first.measure(0)] == ["canary-blind"] and not first.is_new
    other = canary(12, 5)
    assert other.is_new and other.findings() == []
    assert {found.kind for found in other.measure(5)} == {"canary-blind"}
    assert [len(row.right) for row in RowFile(tmp_path / "judging/canary.jsonl", Measurement).rows] == [20, 12]
    again = canary(20, 5)
    assert not again.is_new and {found.kind for found in again.measure(10)} == {"canary-blind"}


def test_options_are_a_section_of_the_config() -> None:
    canary = {"name": "tabletop-clips", "args": {"count": 40}}
    found = typed(Config, {"window": 32, "canary": canary}, "hooks.judging")
    assert found == Config(window=32, canary=ComponentConfig("tabletop-clips", {"count": 40}))
    for values, message in (
        ({"windw": 3}, "hooks.judging.windw: .*Did you mean 'window'"),
        ({"window": 1}, "hooks.judging.window is 1; it must be at least 2"),
        ({"audit_significance": 1.0}, "audit_significance is 1; it must be above 0 and below 1"),
        ({"audit": "environment"}, r"hooks.judging.audit takes keys \(name, args\), not the value 'environment'"),
    ):
        with pytest.raises(ConfigError, match=message):
            typed(Config, values, "hooks.judging")


def test_a_policy_that_exploits_its_judge(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """The judge takes the wrong way for success: the canary says so at once, the window when the policy has learned."""
    run = tmp_path / "run"
    options = ("hooks.judging.window=24", "hooks.judging.canary.name=line-clips", "hooks.judging.canary_every=4")
    changes = ("reward_model.args.rule=left", "loop.iterations=8", "optimizer.args.learning_rate=1.0")
    code, _, err = gymnast(*parts.training(run, *changes, *options))
    assert code == 0, err
    found = {row.kind: row for row in reversed(alarms(run)) if row.event == "raised"}
    assert found["canary-blind"].iteration == 0 and found["canary-blind"].numbers["right"] == 0
    assert 1 < found["constant"].iteration <= 8 and found["constant"].numbers["value"] == 1.0
    page = (run / "report.html").read_text()
    assert "Alarms about the rewards" in page and "it has found what the judge mistakes for success" in page
    rows = RowFile(run / "judging/canary.jsonl", Measurement).rows
    assert [row.iteration for row in rows] == [0, 4, 8]


def test_denials_that_chance_does_not_explain() -> None:
    def audit(denied: int, n: int = 20) -> Denials:
        return Denials(1, n, denied, 0.0)

    # Fisher's exact test of 8 of 20 against 1 of 20, one-sided: sum of hypergeometric terms, by hand.
    p_value = sum(math.comb(20, k) * math.comb(20, 9 - k) for k in (8, 9)) / math.comb(40, 9)
    found = fooled(audit(1), audit(8), 0.03)
    assert found is not None and found.numbers["p_value"] == pytest.approx(p_value) and 0.005 < p_value < 0.015
    assert fooled(audit(1), audit(8), 2 * p_value) is None and fooled(audit(8), audit(1), 0.05) is None
    # From the start: 18 of 20 heads or more of a fair coin have 211 chances in 2^20.
    first = audit(18)
    found = fooled(first, first, 0.01)
    assert found is not None and found.numbers["p_value"] == pytest.approx(211 / 2**20)
    first = audit(10)
    assert fooled(first, first, 0.5) is None


def test_an_audit_sees_what_a_canary_cannot(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """Any movement is a success to this judge. The clips that it knows all go right; the policy is free to go left."""
    audit = "{window: 500, audit: {name: line, args: {rule: right}}, audit_rollouts: 12, audit_significance: 0.05}"
    run = tmp_path / "run"
    code, _, err = gymnast(
        *parts.training(
            run,
            f"hooks.judging={audit}",
            "policy.args.lean=-0.5",
            "reward_model.args.rule=any",
            "loop.iterations=10",
            "optimizer.args.learning_rate=0.5",
        )
    )
    assert code == 0, err
    rows = RowFile(run / "judging/audit.jsonl", Denials).rows
    assert [row.iteration for row in rows] == list(range(1, 11)) and all(row.n == 12 for row in rows[-3:])
    assert rows[-1].denied > rows[0].denied and rows[-1].cost_usd == 6.0
    paid = [payment.usd for payment in read_payments(run) if payment.what == "audit"]
    assert paid == [row.cost_usd for row in rows if row.n]
    raised = [row for row in alarms(run) if row.event == "raised"]
    assert {row.kind for row in raised} == {"audit"} and "rewarded for what is no success" in raised[0].message


def test_a_judge_whose_votes_are_noise(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    with LoopbackServer(Behaviour(dissent=2)) as server:
        args = {"model": "m", "base_url": server.openai_url, "cache": str(tmp_path / "vlm.sqlite"), "votes": 5}
        judge = f"reward_model={json.dumps({'name': 'openai-compatible', 'args': args})}"
        code, _, err = gymnast(*parts.training(tmp_path / "run", judge, "loop.iterations=1", "hooks.judging.window=8"))
    assert code == 0, err
    found = {row.kind: row for row in alarms(tmp_path / "run")}
    assert found["disagreement"].numbers["disagreement"] == pytest.approx(0.6)
    assert "Votes on the last 8 rollouts contradict each other in 60 % of pairs" in found["disagreement"].message


def test_a_resumed_training_goes_on_watching(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    run = tmp_path / "run"

    def train(*line: str) -> None:
        code, _, err = gymnast(*line)
        assert code == 0, err

    slow = ("optimizer.args.learning_rate=1.0e-6", "hooks.judging={window: 60, canary: {name: line-clips}}")
    train(*parts.training(run, *slow, "loop.iterations=2", "hooks.judging.canary_every=2"))
    assert alarms(run) == []
    assert not (run / "judging/options.yaml").exists() and "canary_every: 2" in (run / "config.yaml").read_text()
    train("train", "--resume", str(run), "loop.iterations=4")
    assert [row.iteration for row in RowFile(run / "judging/canary.jsonl", Measurement).rows] == [0, 2, 4]
    entries = json.loads((run / "judging/window.json").read_text())
    # 60 of the 96 rollouts: all of iterations 4 and 3, and 12 that the first process saw.
    assert [sum(entry[0] == i for entry in entries) for i in (1, 2, 3, 4)] == [0, 12, 24, 24]
    assert alarms(run) == []


def test_an_alarm_lasts_until_a_full_window_says_otherwise(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    run = tmp_path / "run"
    always = (
        "reward_model={name: random, args: {probability: 1.0}}", "loop.iterations=1", "hooks.judging.window=24",
    )  # fmt: skip
    assert gymnast(*parts.training(run, *always))[0] == 0
    assert [(row.kind, row.event) for row in alarms(run)] == [("constant", "raised")]
    (run / "judging/window.json").unlink()  # what the first process saw is lost
    resumed = ("train", "--resume", str(run), "reward_model.args.probability=0.5")
    code, _, err = gymnast(*resumed, "loop.iterations=2", "loop.tasks_per_iteration=2")
    assert code == 0, err
    assert len(alarms(run)) == 1  # 12 rollouts are too few to end it
    code, _, err = gymnast(*resumed, "loop.iterations=3", "loop.tasks_per_iteration=2")
    assert code == 0, err
    assert [(row.kind, row.event) for row in alarms(run)][1:] == [("constant", "cleared")]
    assert "Iteration 3: The alarm &#39;constant&#39; has ended." in (run / "report.html").read_text()


def test_a_canary_that_cannot_be_judged_stops_the_run_before_it_trains(
    gymnast: Command, tmp_path: Path, parts: Any
) -> None:
    parts.Judge.fail = lambda rollout: rollout.task.id.startswith("clip")
    code, _, err = gymnast(*parts.training(tmp_path / "run", "hooks.judging.canary.name=line-clips"))
    assert code == 2 and "'line' could not judge 20 of 20 canary clips" in err and "Traceback" not in err
    for value, message in (
        ("canary.name=line-clisp", "Did you mean 'line-clips'?"),
        ("windw=3", "Did you mean 'window'?"),
        ("audit.name=distance", "hooks.judging.audit: 'distance' gives scores; an auditor must say what is a success"),
    ):
        code, _, err = gymnast(*parts.training(tmp_path / value[:8], f"hooks.judging.{value}"))
        assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "windw=3").exists()  # refused before anything was built


def test_a_training_on_scores(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """The canary and the audit take what is above the threshold for what the judge calls a success."""
    run = tmp_path / "run"
    options = "{threshold: 0.0, canary: {name: line-clips}, canary_every: 1, audit: {name: line}, window: 24}"
    code, _, err = gymnast(
        *parts.training(run, "reward_model=distance", "loop.iterations=1", f"hooks.judging={options}")
    )
    assert code == 0, err
    (before, after) = RowFile(run / "judging/canary.jsonl", Measurement).rows
    assert before.right == after.right == [True] * 20
    (audit,) = RowFile(run / "judging/audit.jsonl", Denials).rows
    assert audit.n > 0 and audit.denied == 0 and alarms(run) == []
    assert {place.reward_kind for place in stored_places(run, all_rollouts=True)} == {"score"}


class OneOf(Processes):
    """One of two processes; the other one has told what it has."""

    count = 2

    def __init__(self, rank: int, told: list[Any]) -> None:
        super().__init__()
        self._rank, self._told = rank, told

    @property
    def rank(self) -> int:
        return self._rank

    def gather(self, value: Any) -> list[Any]:
        return [value, self._told] if self._rank == 0 else [self._told, value]


def test_alarms_see_all_processes_and_each_keeps_its_own(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups 0 and 2 are in the leader, 1 and 3 in the other one, whose rewards come in between."""
    config = load_config(RunConfig, "tabletop", ["hooks.judging.window=8", "hooks.judging.keep_bytes=20000"])
    config = replace(config, output=str(tmp_path), reward_model=ComponentConfig("random"))
    (tmp_path / "config.yaml").write_text("kind: train\n")
    monkeypatch.setattr(hooks, "_watches", {})
    monkeypatch.setattr(hooks, "_keepers", {})

    def event(rank: int, other: list[Any], value: float) -> RewardsScored:
        groups = [rank, rank, rank + 2, rank + 2]
        rollouts = [replace(judging.make_rollout(group, True), group=group) for group in groups]
        rewards = [Reward(value)] * 3 + [Reward(None, error="asleep")]
        told = Parts(reward_model=parts.Judge(parts.Judge.Config()), processes=OneOf(rank, other))
        return RewardsScored(config, tmp_path, 0, told, rollouts=rollouts, rewards=rewards)

    def scored(rank: int, other: list[Any], value: float) -> None:
        hooks.gymnast_rewards_scored(event(rank, other, value))

    theirs = [entries_of(event(rank, [], float(rank))) for rank in (0, 1)]
    scored(1, theirs[0], 1.0)
    assert not (tmp_path / "alarms.jsonl").exists() and tmp_path not in hooks._watches
    hooks._keepers.clear()  # what the other process has is not in this one
    scored(0, theirs[1], 0.0)
    entries = hooks._watches[tmp_path]._window.entries
    assert [entry[1] for entry in entries] == [0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    places = stored_places(tmp_path, all_rollouts=True)
    # 10,000 bytes for each process are room for one of its judged rollouts, seven frames and the task's first.
    names = [f"{kind}/iteration-000001-group-00000{rank}-00" for kind in ("unscored", "scored") for rank in (0, 1)]
    assert [f"{place.path.parent.name}/{place.path.name}" for place in places] == names
    assert [len(place.ids) for place in places] == [1, 1, 1, 1]
    hooks.gymnast_run_started(RunStarted(config, tmp_path, 0))  # resumed by whatever processes: all is repeated
    assert stored_places(tmp_path, all_rollouts=True) == []


def test_two_processes_watch_and_keep_what_one_does(gymnast: Command, tmp_path: Path, parts: Any) -> None:
    """A real run: each process judges its own groups, and rollouts of one task cannot be judged."""
    parts.Judge.fail = lambda rollout: rollout.task.id == "task-7"

    def line(run: Path, processes: int) -> list[str]:
        return parts.training(
            run, "loop.iterations=3", "loop.rescore=0", "loop.imagine_batch_size=6", f"trainer.devices={processes}",
            "hooks.judging={window: 24, canary: {name: line-clips}, canary_every: 2}",
        )  # fmt: skip

    code, _, err = gymnast(*line(tmp_path / "one", 1))
    assert code == 0, err
    script = Path(__file__).with_name("command_with_parts.py")
    command = [sys.executable, str(script), *line(tmp_path / "two", 2)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "judging/window.json").read_text() == (two / "judging/window.json").read_text()
    assert [row.iteration for row in RowFile(two / "judging/canary.jsonl", Measurement).rows] == [0, 2]
    found = {}
    for run in (one, two):
        places = stored_places(run, all_rollouts=True)
        found[run] = sorted(
            (place.path.parent.name, place.path.name[:16], id.rpartition("-")[2])
            for place in places
            for id in place.ids
        )
    assert found[one] == found[two] and {kind for kind, _, _ in found[one]} == {"scored", "unscored"}
    assert "iteration-000003-group-000009-00" in {
        path.name for path in two.glob("rollouts/*/*")
    }  # of the second process


def test_hooks_take_nothing_heavy_along() -> None:
    code = (
        "import sys, gymnast_judging.hooks, gymnast_vlm_reward.hooks; "
        "print([name for name in ('torch', 'omegaconf', 'scipy', 'yaml') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
