"""`gymnast gate` on a street whose truth is known: what passes, what fails, and for which reason."""

from __future__ import annotations

import html
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gate_parts import PARTS, Dream, Onlooker, Street, Walker, Walks, place_of
from scipy.stats import binomtest
from small import CommandLine

from gymnast_core.errors import DataError
from gymnast_core.rollouts.imagine import imagine
from gymnast_gate import gates, page
from gymnast_gate.config import GateOptions
from gymnast_gate.options import Config
from gymnast_gate.pixels import Comparison, errors_of
from gymnast_gate.playback import OwnNoise, play_back
from gymnast_gate.rows import Batches, Row

SMALL = ["gate.rollouts=96", "gate.judged=15", "gate.enough=96", "gate.enough_judged=15", "gate.batch_size=32"]


def measured(gymnast: CommandLine, *changes: str) -> tuple[int, dict[str, Any]]:
    done = gymnast("gate", *PARTS, *SMALL, "output=out", *changes)
    assert done.code in (0, 1, 3), done.err
    outputs = [change.removeprefix("output=") for change in ("output=out", *changes) if change.startswith("output=")]
    return done.code, json.loads(Path(outputs[-1], "summary.json").read_text())


def criteria(summary: dict[str, Any], key: str) -> dict[str, Any]:
    (gate,) = (gate for gate in summary["gates"] if gate["key"] == key)
    return {one["name"]: one for one in gate["criteria"]}


def test_what_is_sound_passes_every_gate(gymnast: CommandLine) -> None:
    code, summary = measured(gymnast)
    assert code == 0 and summary["verdict"] == "pass" and summary["leave_out"] == []
    assert summary["verdicts"] == dict.fromkeys(("policy", "frames", "actions", "judge"), "pass")
    (lag,) = criteria(summary, "actions").values()
    # One world in two guises, the same noise: the same episodes.
    assert lag["value"] == 0.0 and summary["gates"][2]["details"]["only_real"] == 0
    assert criteria(summary, "judge")["precision, all tasks"]["value"] == 1.0
    page = Path("out/gate.html").read_text()
    assert "All 4 gates pass" in page and "data:image/jpeg;base64," in page
    # Its numbers are those of the judge and the world that it asks about, not of those that they are held against.
    assert "<dt>judge</dt><dd>onlooker</dd>" in page and "<dt>world</dt><dd>dream</dd>" in page


def test_success_is_what_the_policy_does_in_the_environment(gymnast: CommandLine) -> None:
    for skill, expected in (("20.0", 1.0), ("-20.0", 0.0)):
        code, summary = measured(gymnast, f"policy.args.skill={skill}", f"output=out{skill}")
        assert criteria(summary, "policy")["sampled success, at least"]["value"] == expected
        assert code == 1 and summary["verdicts"]["policy"] == "fail"
    assert summary["leave_out"] == ["go to 10", "go to 14"]  # a policy that never succeeds has nothing to learn from


@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("stuck", {"changed pixels above copying, frame 1", "changed pixels above copying, frame 6"}),
        ("fog", {"unchanged pixels, frame 1"}),
        ("deaf", {"changed pixels above other actions', frame 6"}),
    ],
)
def test_a_world_model_that_shows_something_else_fails(gymnast: CommandLine, fault: str, failing: set[str]) -> None:
    code, summary = measured(gymnast, f"world_model.args.fault={fault}")
    assert code == 1 and summary["verdicts"]["frames"] == "fail"
    failed = {name for name, one in criteria(summary, "frames").items() if one["verdict"] == "fail"}
    assert failing <= failed
    if fault == "stuck":
        # Just what copying the start frame is worth.
        assert criteria(summary, "frames")["changed pixels above copying, frame 6"]["value"] == pytest.approx(0.0)
    if fault == "fog":
        # 40 of 255 levels in one of three channels.
        value = criteria(summary, "frames")["unchanged pixels, frame 1"]["value"]
        assert value == pytest.approx(10 * torch.log10(torch.tensor(255.0**2 * 3 / 40**2)).item(), abs=0.01)


def test_frames_are_compared_as_long_as_the_environment_goes_on(gymnast: CommandLine) -> None:
    _, summary = measured(gymnast, "evaluation.world.args.fault=short")  # over after two actions; imagination goes on
    batch = Batches(Path("out")).read(0)
    assert batch is not None
    for row in batch[0]:
        sums = row.pixels
        assert sums is not None
        counts = [sum(sums[f"{part}/first/count"][t] for part in ("changed", "unchanged")) for t in range(6)]
        assert counts[0] == counts[1] > 0 and counts[2:] == [0.0] * 4
        assert sums["changed/first/model"] == sums["unchanged/first/model"] == [0.0] * 6
    found = criteria(summary, "frames")
    assert found["unchanged pixels, frame 1"]["verdict"] == "pass"
    # What nobody saw is neither good nor bad.
    assert found["unchanged pixels, frame 6"]["value"] is None and found["unchanged pixels, frame 6"]["n"] == 0
    assert summary["verdicts"]["frames"] not in ("pass", "fail")


def test_a_policy_that_is_misled_by_what_it_sees_fails_the_gate_of_actions(gymnast: CommandLine) -> None:
    code, summary = measured(gymnast, "world_model.args.fault=mirror", "policy.args.skill=2.0", "gate.success_most=1")
    assert code == 1 and summary["verdicts"]["actions"] == "fail"
    (lag,) = criteria(summary, "actions").values()
    details = summary["gates"][2]["details"]
    assert lag["value"] < -0.5 and lag["interval"][1] < -0.05
    assert lag["value"] == pytest.approx(details["imagined"] - details["real"])
    assert details["only_real"] > 10 * details["only_imagined"]


@pytest.mark.parametrize("rule", ["always", "inverted"])
def test_a_broken_judge_fails_whatever_the_world_model_says(gymnast: CommandLine, rule: str) -> None:
    code, summary = measured(gymnast, f"reward_model.args.rule={rule}")
    assert code == 1
    assert summary["verdicts"] == {"policy": "pass", "frames": "pass", "actions": "pass", "judge": "fail"}
    precision = criteria(summary, "judge")["precision, all tasks"]
    success = criteria(summary, "policy")["sampled success, at least"]["value"]
    # A judge that always says yes is right as often as the policy succeeds.
    assert precision["value"] == (pytest.approx(success, abs=0.12) if rule == "always" else 0.0)
    assert summary["leave_out"] == ["go to 10", "go to 14"]


def test_a_judge_by_chance_fails(gymnast: CommandLine) -> None:
    code, summary = measured(gymnast, "reward_model=random")
    assert code == 1 and summary["verdicts"]["judge"] == "fail"


def test_a_judge_is_measured_in_every_group(gymnast: CommandLine) -> None:
    code, summary = measured(gymnast, "reward_model.args.rule=one-sided", "hooks.gate.by=family")
    assert code == 1 and summary["leave_out"] == ["walk-10"]
    groups = {group["group"]: group for group in summary["gates"][3]["groups"]}
    assert groups["walk-14"]["verdict"] == "pass" and groups["walk-14"]["value"] == 1.0
    assert groups["walk-10"]["verdict"] == "fail" and groups["walk-10"]["recall"] == 1.0
    # Its graded scores know better: what it makes up has 0.6, what it sees 0.9.
    assert summary["gates"][3]["details"]["threshold"] == 0.6
    assert groups["walk-14"]["would_do"]["threshold"] == 0.1
    better = groups["walk-10"]["would_do"]
    assert (better["threshold"], better["precision"], better["recall"]) == (0.6, 1.0, 1.0)
    assert 0 < better["judged"] < groups["walk-10"]["n"]
    # As JSON, in which commas and colons of an instruction part nothing.
    told = html.unescape(Path("out/gate.html").read_text())
    assert """'hooks.gate.leave_out=["walk-10"]'""" in told


def test_groups_that_are_seldom_judged_a_success_get_more_rollouts(gymnast: CommandLine) -> None:
    _, summary = measured(gymnast, "gate.rollouts=16", "gate.judged=20", "gate.least=5", "gate.batch_size=8")
    groups = summary["gates"][3]["groups"]
    assert all(group["n"] >= 20 for group in groups)
    # Those that have enough are passed over, so that one batch at most is too much.
    assert all(group["n"] < 20 + 8 for group in groups)
    assert criteria(summary, "policy")["sampled success, at least"]["n"] == 16
    assert summary["rollouts"] == sum(group["rollouts"] for group in groups)


def test_a_judge_that_never_says_yes_is_not_measured_and_costs_no_endless_work(gymnast: CommandLine) -> None:
    code, summary = measured(gymnast, "reward_model.args.rule=never", "gate.judged=5", "gate.most_rollouts=1000")
    assert code == 3 and summary["verdicts"]["judge"] == "not measured"
    assert summary["rollouts"] <= 96 + 32
    assert all(group["needed"] == 10 for group in summary["gates"][3]["groups"])


def test_few_rollouts_are_not_guessed_from(gymnast: CommandLine) -> None:
    code, summary = measured(
        gymnast, "gate.rollouts=24", "gate.most_rollouts=24", "gate.success_most=0.5", "gate.enough=400"
    )
    assert code == 3 and summary["verdict"] == "unclear"
    most = criteria(summary, "policy")["sampled success, at most"]
    assert most["verdict"] == "unclear" and 24 < most["needed"] <= 400
    _, summary = measured(gymnast, "gate.rollouts=6", "gate.most_rollouts=6", "output=few")
    assert criteria(summary, "policy")["sampled success, at most"]["verdict"] == "not measured"


def test_what_cannot_be_judged_counts_in_no_number(gymnast: CommandLine) -> None:
    done = gymnast("gate", *PARTS, *SMALL, "output=out", "reward_model.args.rule=asleep")
    assert done.code == 2 and "the judge is asleep" in done.err and "gymnast gate --resume out" in done.err


def test_a_stopped_measurement_goes_on_and_says_the_same(gymnast: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = measured(gymnast, "output=whole")
    score, left = Onlooker.score, [2]

    def tired(self: Onlooker, rollouts: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return score(self, rollouts)

    monkeypatch.setattr(Onlooker, "score", tired)
    assert gymnast("gate", *PARTS, *SMALL, "output=part").code == 130
    assert len(list(Path("part/batches").glob("*.json"))) == 2
    monkeypatch.setattr(Onlooker, "score", score)
    Onlooker.calls.clear()
    assert gymnast("gate", "--resume", "part").code == 0
    assert sum(Onlooker.calls) == whole["rollouts"] - 64
    assert json.loads(Path("part/summary.json").read_text()) == whole
    # Other bounds need no other measurement.
    Onlooker.calls.clear()
    assert gymnast("gate", "--resume", "part", "gate.success_most=0.2").code == 1
    assert Onlooker.calls == []
    assert "cannot change policy.args.skill" in gymnast.error("gate", "--resume", "part", "policy.args.skill=3.0")


def test_without_an_environment_a_second_judge_is_asked(gymnast: CommandLine) -> None:
    without = ["tasks.args.environment=false"]
    error = gymnast.error("gate", *PARTS, *SMALL, "output=no", *without)
    assert "No environment stands behind task 'walk-14/0'" in error and "hooks.gate.auditor.name" in error
    code, summary = measured(gymnast, *without, "reward_model.args.rule=always", "hooks.gate.auditor.name=onlooker")
    assert list(summary["verdicts"]) == ["policy", "frames", "audit"] and code == 1
    assert summary["verdicts"] == {"policy": "not measured", "frames": "not measured", "audit": "fail"}
    page = Path("out/gate.html").read_text()
    assert "Audit by a second judge" in page and "Precision" not in page
    assert Street.resets == []


def test_a_training_s_folder_is_no_output(gymnast: CommandLine) -> None:
    Path("train.yaml").write_text("kind: train\noutput: mine\nworld_model: dream\n")
    done = gymnast("gate", "train.yaml", *PARTS[1:], *SMALL, "gate.rollouts=16", "gate.most_rollouts=16")
    assert done.code in (0, 3), done.err
    assert not Path("mine").exists() and list(Path("runs").glob("gate-*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("gate.success_least=0.95", "gate.success_least=0.95 is not below gate.success_most=0.9"),
        ("gate.early_frame=20", "gate.early_frame=20 comes after"),
        ("hooks.gate.by=colour", "hooks.gate.by: No by 'colour'"),
        ("hooks.gate.precision=1.5", "must be above 0 and below 1"),
        ("loop.horizon=5", "not a multiple of the policy's chunk length 2"),
        ("gate.rollots=5", "Did you mean 'rollouts'"),
    ],
)
def test_what_cannot_be_measured_is_refused(gymnast: CommandLine, change: str, said: str) -> None:
    assert said in gymnast.error("gate", *PARTS, *SMALL, "output=out", change)


def test_a_damaged_batch_is_named(gymnast: CommandLine) -> None:
    measured(gymnast, "gate.rollouts=32", "gate.most_rollouts=32")
    Path("out/batches/000000.json").write_text('{"order": {}, "rows": []}')
    error = gymnast.error("gate", "--resume", "out")
    assert "000000.json" in error and "Delete it to measure that batch again" in error


class TestPlayback:
    def test_the_same_actions_in_whatever_batches(self) -> None:
        tasks = Walks().tasks()[:7]
        policy = Walker()
        made = imagine(policy, Street(), tasks, horizon=6, temperature=1.0, generator=torch.Generator().manual_seed(1))
        for size in (7, 3, 1):
            again = play_back(
                [rollout.actions_NLA for rollout in made], tasks, Street(), policy,
                generator=torch.Generator().manual_seed(2), batch_size=size,
            )  # fmt: skip
            for one, other in zip(made, again, strict=True):
                assert torch.equal(one.actions_NLA, other.actions_NLA)
                assert torch.equal(one.frames_TVHWC, other.frames_TVHWC)
                assert one.task is other.task and one.outcome == other.outcome
        assert play_back([], [], Street(), policy, generator=torch.Generator(), batch_size=4) == []

    def test_one_seed_is_one_noise_in_worlds_that_draw_differently(self) -> None:
        tasks = Walks().tasks()[:16]
        made = [
            imagine(OwnNoise(Walker(), torch.Generator().manual_seed(3)), world, tasks, horizon=6, temperature=1.0,
                    generator=torch.Generator().manual_seed(4))
            for world in (Street(), Dream())
        ]  # fmt: skip
        assert all(torch.equal(a.actions_NLA, b.actions_NLA) for a, b in zip(*made, strict=True))


class TestPixels:
    def frames(self, *dots: int, level: int = 200) -> torch.Tensor:
        shown = torch.zeros(len(dots), 1, 1, 4, 3, dtype=torch.uint8)
        for t, dot in enumerate(dots):
            shown[t, 0, 0, dot] = level
        return shown

    def test_errors_by_hand(self) -> None:
        real, model = self.frames(0, 1, 1), self.frames(0, 0, 1)
        sums = errors_of(real, model, None, 16)
        # Against the start, two pixels changed at both frames; the model missed both at the first one.
        assert sums["changed/first/count"] == [6.0, 6.0] and sums["unchanged/first/count"] == [6.0, 6.0]
        assert sums["changed/first/model"] == [2 * 3 * 200.0**2, 0.0]
        assert sums["changed/first/copy"] == [2 * 3 * 200.0**2] * 2
        assert sums["unchanged/first/model"] == [0.0, 0.0]
        # Against the frame before, nothing changed at the second one.
        assert sums["changed/previous/count"] == [6.0, 0.0] and sums["unchanged/previous/copy"] == [0.0, 0.0]
        assert "changed/first/shuffled" not in sums

    def test_frames_after_the_end_of_the_real_episode_count_nothing(self) -> None:
        # The real episode ended after one action and stands still; the world model went on.
        real, model = self.frames(0, 1, 1, 1), self.frames(0, 1, 2, 3)
        sums = errors_of(real, model, model, 16, ended_after=1)
        assert sums["changed/first/count"] == [6.0, 0.0, 0.0] and sums["unchanged/first/count"] == [6.0, 0.0, 0.0]
        assert sums["unchanged/previous/count"] == [6.0, 0.0, 0.0]
        assert sums["changed/first/model"] == sums["unchanged/first/model"] == [0.0, 0.0, 0.0]
        seen = Comparison([sums])
        assert seen.psnr("unchanged", "model", 2) is None and seen.curve("changed", "model")[1:] == [None, None]
        # One that went on to the horizon counts at every frame.
        assert errors_of(real, model, model, 16)["unchanged/first/count"] == [6.0, 6.0, 6.0]

    @pytest.mark.parametrize(("level", "changed"), [(16, 0.0), (17, 6.0)])
    def test_a_pixel_has_changed_beyond_the_levels(self, level: int, changed: float) -> None:
        real = self.frames(0, 1, level=level)
        assert errors_of(real, real, None, 16)["changed/first/count"] == [changed]

    def test_episodes_are_pooled(self) -> None:
        one = errors_of(self.frames(0, 1), self.frames(0, 1, level=190), None, 16)
        other = errors_of(self.frames(0, 0), self.frames(0, 0), None, 16)
        seen = Comparison([one, other])
        found = seen.psnr("changed", "model", 1)
        # Three channels of one pixel are off by 10, those of the other are right; the second episode has no such pixel.
        assert found is not None and found.n == 1
        assert found.value == pytest.approx(10 * torch.log10(torch.tensor(255.0**2 / 50)).item(), abs=1e-4)
        gain = seen.gain("changed", "copy", 1)
        assert gain is not None and gain.value == pytest.approx(10 * torch.log10(torch.tensor(800.0)).item(), abs=1e-4)
        assert Comparison([other]).psnr("changed", "model", 1) is None

    def test_episodes_that_begin_alike_are_resampled_together(self) -> None:
        good = errors_of(self.frames(0, 1), self.frames(0, 1, level=190), None, 16)
        bad = errors_of(self.frames(0, 1), self.frames(0, 1, level=100), None, 16)
        apart, alike, once = (
            Comparison(episodes, starts).psnr("changed", "model", 1)
            for episodes, starts in (
                ([good, bad] * 8, None), ([good, bad] * 8, ["a", "b"] * 8), ([good, bad], None),
            )
        )  # fmt: skip
        assert apart is not None and alike is not None and once is not None
        assert apart.value == alike.value and (alike.n, once.n) == (16, 2)
        assert alike.interval == once.interval
        assert apart.interval[1] - apart.interval[0] < 0.6 * (alike.interval[1] - alike.interval[0])

    def test_equality_is_finite(self) -> None:
        sums = errors_of(self.frames(0, 1), self.frames(0, 1), None, 16)
        found = Comparison([sums] * 3).psnr("changed", "model", 1)
        assert found is not None and 80 < found.value < 100


@pytest.mark.parametrize("times", [1, 5])
def test_measuring_a_task_again_proves_nothing_of_other_tasks(times: int) -> None:
    """Of 8 tasks one succeeds only in the environment and seven only in imagination, however often: p of 1 in 8."""
    rows = [Row(i, f"t{i % 8}", "go", "go", real=i % 8 == 0, true=i % 8 != 0) for i in range(8 * times)]
    config: Any = SimpleNamespace(gate=GateOptions())
    found = gates.Found(rows, config, Config(), "street", replays=True, environment=True)
    details = gates.actions_gate(found).details
    assert (details["only_real"], details["only_imagined"]) == (times, 7 * times)
    assert details["test"] == ("exact McNemar" if times == 1 else "paired permutation of tasks")
    assert details["p_value"] == pytest.approx(binomtest(1, 8).pvalue)


def test_a_place_is_what_the_picture_shows() -> None:
    assert place_of(Walks().tasks()[0].view()).tolist() == [12]


def test_a_page_needs_a_finished_measurement(tmp_path: Path) -> None:
    from gymnast_gate.page import build_gate_page

    with pytest.raises(DataError, match="not a finished measurement"):
        build_gate_page(tmp_path)


def test_thresholds_are_suggested_to_judges_that_take_them() -> None:
    found = {
        "open the door": ("fail", {"threshold": 0.9}),
        "close it": ("fail", None),
        "go": ("pass", {"threshold": 0}),
    }
    groups = [{"group": name, "verdict": verdict, "would_do": one} for name, (verdict, one) in found.items()]
    judge = {"verdict": "fail", "groups": groups}

    def suggested(name: str, **summary: Any) -> list[str]:
        found = page._thresholds({"by": "instruction", **summary}, judge, f"reward_model: {{name: {name}, args: {{}}}}")
        return [command for _, command in found]

    (command,) = suggested("success-classifier")
    assert """'reward_model.args.thresholds={"open the door": 0.9}'""" in command and "gymnast gate" in command
    assert (
        suggested("random")
        == suggested("of a package that is elsewhere")
        == suggested("success-classifier", by="family")
        == []
    )


def test_precision_and_recall_above_a_graded_score_by_hand() -> None:
    graded = [(0.9, True), (0.8, False), (0.7, False), (0.3, True)]
    rows = [Row(i, "t", "go", "go", probability=p, true=true) for i, (p, true) in enumerate(graded)]
    (half,) = (row for row in gates._thresholds(rows) if row["threshold"] == 0.5)
    assert (half["judged"], half["precision"], half["recall"]) == (3, pytest.approx(1 / 3), 0.5)
    assert gates._thresholds([Row(0, "t", "go", "go", true=True)]) == []
