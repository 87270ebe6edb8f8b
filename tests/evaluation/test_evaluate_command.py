"""`gymnast evaluate`: what it writes, refuses, repeats and resumes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from evaluation_parts import SINGLE, WORLD, Command, Judge, arguments, policy, summary

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Needs, Reward, Rollout
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.trials import Trial, read_trials
from gymnast_judging.stored import stored_places
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_tabletop.datasets import TabletopTasks

CELLS = [(p, w) for p in ("first", "second") for w in ("simulator", "imagination")]


def test_policies_in_worlds(gymnast: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = gymnast(*arguments(run))
    assert code == 0, err
    trials = read_trials(run / "results.jsonl")
    assert len(trials) == 4 * 5
    ids = [task.id for task in TabletopTasks(TabletopTasks.Config(count=5, image_size=32, horizon=4)).tasks()]
    found = summary(run)
    for cell in CELLS:
        mine = [trial for trial in trials if (trial.policy, trial.world) == cell]
        assert [trial.task for trial in mine] == ids and [trial.index for trial in mine] == list(range(5))
        assert [trial.batch for trial in mine] == [0, 0, 0, 3, 3] and {trial.seed for trial in mine} == {0}
        assert [trial.outcome is not None for trial in mine] == [cell[1] == "simulator"] * 5
        numbers = found["results"][cell[0]][cell[1]]
        assert (numbers["n"], numbers["unscored"]) == (5, 0)
        assert numbers["rate"] == pytest.approx(sum(trial.value or 0 for trial in mine) / 5)
        films = sorted(path.name for path in (run / "videos" / cell[0] / cell[1]).iterdir())
        assert films == ["000000.jpg", "000000.mp4", "000002.jpg", "000002.mp4"]
    assert found["reference"] == "simulator" and found["agreement"].keys() == {"imagination"}
    assert found["agreement"]["imagination"]["trials"] == 10
    printed = json.loads(out[: out.rindex("}") + 1])
    assert printed["results"]["first"]["simulator"]["rate"] == found["results"]["first"]["simulator"]["rate"]
    assert [(row["world"], row["first"], row["second"]) for row in printed["comparisons"]] == [
        ("simulator", "first", "second"), ("imagination", "first", "second"),
    ]  # fmt: skip
    assert "Evaluating 20/20" in err and "mean coin flip by random" in err
    assert (run / "evaluation.html").exists() and (run / "versions.json").exists()
    assert not (run / "report.html").exists()


def test_one_policy_in_one_world(gymnast: Command, tmp_path: Path, judge: type[Judge]) -> None:
    judge.answers = [1.0, 0.0, 1.0, 0.5, 1.0]
    code, _, err = gymnast(*arguments(tmp_path / "run", *SINGLE))
    assert code == 0, err
    found = summary(tmp_path / "run")
    assert found["results"].keys() == {"openvla-oft"} and found["results"]["openvla-oft"].keys() == {"gymnasium"}
    cell = found["results"]["openvla-oft"]["gymnasium"]
    assert cell["rate"] == pytest.approx(0.7) and cell["wilson"] is None and cell["interval"] == cell["bootstrap"]
    assert found["cost_usd"] == 5.0 and "cost $5.00" in err
    assert found["comparisons"] == [] and found["agreement"] == {} and found["rankings"] == {"gymnasium": None}
    assert judge.announced == [(5, 5)]


def test_a_judge_that_refuses_does_so_before_tasks_are_made(
    gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(TabletopTasks, "tasks", lambda tasks: made.append(1))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    code, _, err = gymnast(*arguments(tmp_path / "run", *SINGLE, "reward_model=gpt-4o"))
    assert code == 2 and "OPENAI_API_KEY" in err
    assert made == [] and not (tmp_path / "run").exists()


def test_each_judge_is_closed_once(
    gymnast: Command, tmp_path: Path, judge: type[Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(judge, "close", lambda judge: closed.append(judge))
    with monkeypatch.context() as empty:
        empty.setattr(TabletopTasks, "tasks", lambda tasks: [])
        assert gymnast(*arguments(tmp_path / "none", *SINGLE))[0] == 2
    assert len(closed) == 1 and not (tmp_path / "none").exists()
    judge.answers = [1.0] * 5
    assert gymnast(*arguments(tmp_path / "run", *SINGLE))[0] == 0
    assert len(closed) == 2 and closed[0] is not closed[1]
    monkeypatch.setattr(judge, "__init__", lambda judge, config: 1 / 0)
    assert gymnast("evaluate", "--resume", str(tmp_path / "run"))[0] == 0, "nothing is left to judge"


def test_policies_are_moved_to_the_device(gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands in for an accelerator; what is computed there has no values, so nothing is."""
    moved: list[str] = []
    monkeypatch.setattr(OpenVLAOFT, "to", lambda self, device: moved.append(str(device)))
    monkeypatch.setattr("gymnast_core.devices.available_devices", lambda: ["cpu", "meta:0"])
    assert gymnast(*arguments(tmp_path / "run", "episodes=1", "device=meta"))[0] == 0
    assert moved == ["meta", "meta"]


def test_the_same_seed_gives_the_same_numbers(gymnast: Command, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        code, _, err = gymnast(*arguments(tmp_path / name, "temperature=1.0", f"seed={seed}", "videos=0"))
        assert code == 0, err
        files.append([(tmp_path / name / file).read_bytes() for file in ("results.jsonl", "summary.json")])
    assert files[0] == files[1] and files[0][0] != files[2][0]


def test_trials_of_one_task_are_repeats_not_new_tasks(gymnast: Command, tmp_path: Path, judge: type[Judge]) -> None:
    judge.answers = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    code, _, err = gymnast(*arguments(tmp_path / "run", *SINGLE, "episodes=3", "trials=2"))
    assert code == 0, err
    trials = read_trials(tmp_path / "run/results.jsonl")
    assert [(trial.trial, trial.index) for trial in trials] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert [trial.task for trial in trials[:3]] == [trial.task for trial in trials[3:]]
    found = summary(tmp_path / "run")
    cell = found["results"]["openvla-oft"]["gymnasium"]
    assert (found["starts"], found["trials"], cell["starts"], cell["n"]) == (3, 6, 3, 6)
    assert cell["interval"] == cell["bootstrap"] != cell["wilson"]


def test_unscored_trials_are_asked_again_then_counted_apart(
    gymnast: Command, tmp_path: Path, judge: type[Judge]
) -> None:
    # The second batch is judged before the first one's errors are asked for again.
    judge.answers = [1.0, None, None, 1.0, 1.0, 0.0, None]
    code, _, err = gymnast(*arguments(tmp_path / "run", *SINGLE))
    assert code == 0, err
    values = [trial.value for trial in read_trials(tmp_path / "run/results.jsonl")]
    assert values == [1.0, 0.0, None, 1.0, 1.0]
    cell = summary(tmp_path / "run")["results"]["openvla-oft"]["gymnasium"]
    assert (cell["n"], cell["unscored"], cell["rate"]) == (4, 1, 0.75)
    assert summary(tmp_path / "run")["cost_usd"] == 7.0
    assert "unscored 1" in err


def test_a_judge_that_fails_stops_the_evaluation_which_then_goes_on(
    gymnast: Command, tmp_path: Path, judge: type[Judge]
) -> None:
    run = tmp_path / "run"
    judge.answers = [1.0, 0.0, 1.0, None, None]
    code, _, err = gymnast(*arguments(run, *SINGLE, "rescore=0", "max_error_rate=0.3"))
    assert code == 2 and err.count("Error: ") == 1
    assert "could not judge 2 of 5 rollouts of 'openvla-oft' in 'gymnasium'" in err and "overloaded" in err
    assert f"gymnast evaluate --resume {run} (max_error_rate=1 keeps such trials)" in err
    assert len(read_trials(run / "results.jsonl")) == 3
    judge.answers = [1.0, 1.0]
    code, _, err = gymnast("evaluate", "--resume", str(run))
    assert code == 0, err
    assert [trial.value for trial in read_trials(run / "results.jsonl")] == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert judge.announced == [(5, 5), (2, 5)]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (["horizon=0"], ["horizon is 0", "at least 1"]),
        (["horizon=3"], ["horizon is 3", "chunk length 2 of policies.first 'openvla-oft'", "set horizon=2."]),
        (["horizon=1"], ["set horizon=2."]),
        (["episodes=0"], ["episodes is 0"]),
        (["trials=0"], ["trials is 0"]),
        (["batch_size=0"], ["batch_size is 0"]),
        (["temperature=-1"], ["temperature is -1;"]),
        (["max_error_rate=2"], ["max_error_rate is 2;"]),
        (["group_by=word"], ["group_by: No group_by 'word'", "instruction, task"]),
        (["reference=simulatr"], ["reference: No world 'simulatr'. Did you mean 'simulator'?"]),
        (["device=warp"], ["device=warp cannot be used here"]),
        (["tasks={name: tabletop-episodes, args: {path: x}}"], ["TabletopEpisodes holds no tasks", "Choose"]),
        (["policies={a/b: {name: openvla-oft}}"], ["'a/b'", "letters, digits"]),
        (["policies.second=opnvla-oft"], ["Did you mean 'openvla-oft'?"]),
        (["policies.second={name: openvla-oft, args: {wrong: 1}}"], ["policies.second.args.wrong"]),
    ],
)
def test_what_the_config_gets_wrong(gymnast: Command, tmp_path: Path, change: list[str], parts: list[str]) -> None:
    code, _, err = gymnast(*arguments(tmp_path / "run", *change, "episodes=1") if "episodes=0" not in change
                           else arguments(tmp_path / "run", *change))  # fmt: skip
    assert code == 2 and err.count("Error: ") == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in err


class Stereo(OpenVLAOFT):
    """Wants two cameras, which the tasks do not show."""

    @classmethod
    def needs(cls, config: Any) -> Needs:
        return Needs(cameras=("left", "right"))


def test_all_misfits_are_listed_before_anything_is_built(
    gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registries().policies
    monkeypatch.setattr(known, "_registered", dict(known._registered))
    known.register("stereo", Stereo)
    monkeypatch.setattr(OpenVLAOFT, "__init__", lambda self, config: pytest.fail("built"))
    blind = policy(0).replace("openvla-oft", "stereo")
    code, _, err = gymnast(*arguments(tmp_path / "run", f"policies.third={blind}"))
    assert code == 2 and err.count("Error: ") == 1
    assert "2 pairs of a policy and a world do not fit" in err
    assert "third in simulator" in err and "third in imagination" in err and "the cameras left, right" in err
    assert "first in" not in err and not (tmp_path / "run").exists()


class Score(Judge):
    """Gives any numbers, and notes whom it was introduced to."""

    kind = "score"
    met: ClassVar[list[Parts]] = []

    def attach(self, parts: Parts) -> None:
        self.met.append(parts)


def test_scores_are_never_called_success(
    gymnast: Command, tmp_path: Path, judge: type[Judge], monkeypatch: pytest.MonkeyPatch
) -> None:
    registries().reward_models.register("nearness", Score)
    Score.met.clear()
    run = tmp_path / "run"
    changes = ("policies={}", "worlds={}", "rewards={}", f"policies={{one: {policy(0)}, two: {policy(1)}}}")
    judge.answers = [-3.0, 12.5, 1.0, 0.0, 1.0, 7.0, 7.0, 7.0, 7.0, 7.0]
    code, out, err = gymnast(*arguments(run, *changes, "world_model=gymnasium", "reward_model=nearness"))
    assert code == 0, err
    assert "mean reward by nearness" in err and "success" not in err and "success" not in out.replace("success_", "")
    (parts,) = Score.met
    assert parts.world_model is not None and isinstance(parts.reward_model, Score)
    found = summary(run)
    assert found["judges"] == {"gymnasium": {"name": "nearness", "kind": "score"}}
    one, two = (found["results"][name]["gymnasium"] for name in ("one", "two"))
    assert one["rate"] == pytest.approx(2.3) and one["interval"][0] < 0 and one["wilson"] is None
    assert two["rate"] == 7.0 and two["interval"] is None
    assert found["comparisons"][0]["test"] == "paired permutation"
    page = (run / "evaluation.html").read_text()
    text = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "two is first in gymnasium with 7" in text and "mean reward by nearness" in text
    assert "success" not in text[: text.index("Repeat this evaluation")].lower()
    rows = read_trials(run / "results.jsonl")
    assert {row.kind for row in rows} == {"score"}


def test_a_section_of_no_plugin_is_refused(gymnast: Command, tmp_path: Path) -> None:
    code, _, err = gymnast(*arguments(tmp_path / "run", "hooks.nobody.key=1"))
    assert code == 2 and "hooks.nobody" in err and not (tmp_path / "run").exists()


def parts(**changes: Any) -> EvaluateConfig:
    base = {"policies": {"a": ComponentConfig("p")}, "worlds": {"w": ComponentConfig("gymnasium")}}
    return EvaluateConfig(**{"tasks": ComponentConfig("tabletop"), **base, **changes})


def test_a_config_needs_policies_worlds_and_judges() -> None:
    judge = ComponentConfig("environment")
    with pytest.raises(ConfigError, match="policies and worlds need an entry each"):
        parts(policies={})
    with pytest.raises(ConfigError, match=r"Set rewards.w=NAME, or reward_model=NAME for all"):
        parts()
    with pytest.raises(ConfigError, match="Name the worlds and rewards alike"):
        parts(rewards={"w": judge, "x": judge})
    with pytest.raises(ConfigError, match=r"policy and policies.p have one label"):
        parts(policies={"p": judge}, policy=ComponentConfig("p"), reward_model=judge)
    mixed = parts(world_model=ComponentConfig("worldgym"), reward_model=judge, rewards={"w": ComponentConfig("random")})
    assert list(mixed.all_worlds()) == ["worldgym", "w"]
    assert {label: part.name for label, part in mixed.all_rewards().items()} == {
        "worldgym": "environment",
        "w": "random",
    }


def test_rows_are_plain_json(tmp_path: Path, gymnast: Command) -> None:
    run = tmp_path / "run"
    assert gymnast(*arguments(run, "episodes=1", "videos=0", f"worlds={{imagination: {WORLD}}}",
                              "rewards={imagination: random}"))[0] == 0  # fmt: skip
    (first, *_) = (run / "results.jsonl").read_text().splitlines()
    assert json.loads(first).keys() == Trial.__dataclass_fields__.keys()

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    json.loads((run / "summary.json").read_text(), parse_constant=refuse)
    assert math.isfinite(json.loads(first)["value"])


class Away(RewardModel):
    """Never answers."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        who: str
        """Which of several it is."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(None, error=f"{self.config.who} is away") for _ in rollouts]


def test_labels_that_read_in_two_ways_keep_their_judges(
    gymnast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy "p-in-b" in the world "a" is no policy "p" in the world "b-in-a"."""
    known = registries().reward_models
    monkeypatch.setattr(known, "_registered", dict(known._registered))
    known.register("away", Away)
    worlds = {"a": "of-a", "b-in-a": "of-b"}
    parts = [f"rewards.{world}={{name: away, args: {{who: {who}}}}}" for world, who in worlds.items()]
    code, _, err = gymnast(
        *arguments(
            tmp_path / "run", "policies={}", f"policies.p-in-b={policy(0)}", "worlds={}", "worlds.a=gymnasium",
            "worlds.b-in-a=gymnasium", "rewards={}", *parts, "max_error_rate=1", "episodes=2", "videos=0",
        )
    )  # fmt: skip
    assert code == 0, err
    kept = {place.path.name: place.judge.args["who"] for place in stored_places(tmp_path / "run")}
    assert {name.partition("-group")[0]: who for name, who in kept.items()} == {
        "evaluation-p-in-b-in-a": "of-a", "evaluation-p-in-b-in-b-in-a": "of-b"
    }  # fmt: skip
