"""A policy in a world: what is rolled out, what is counted, and the hook of a training run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluation_parts import policy as policy_text

from gymnast_core.config import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig
from gymnast_core.errors import ConfigError, DataError, PluginError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.events import CallbacksWanted, EvaluationWanted, RunDone
from gymnast_core.processes import Processes
from gymnast_core.runs.spending import Payment, read_payments
from gymnast_core.types import Reward, Rollout
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.world import GymnasiumWorld
from gymnast_evaluation.evaluate import evaluate, share
from gymnast_evaluation.hooks import gymnast_callbacks, gymnast_evaluate, gymnast_run_done
from gymnast_evaluation.results import evaluation_from_json, paired_difference
from gymnast_tabletop.datasets import TabletopTasks


class SleepyJudge(RewardModel):
    """Cannot judge the first of every three rollouts; the others score a third, or nothing at all."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        asleep: bool = False

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        awake = [index % 3 > 0 and not self.config.asleep for index in range(len(rollouts))]
        return [Reward(index / 3) if ok else Reward(None, error="asleep") for index, ok in enumerate(awake)]


def tabletop(count: int) -> Any:
    return TabletopTasks(TabletopTasks.Config(count=count, image_size=32, horizon=4)).tasks()


def small_policy(seed: int = 0) -> Any:
    part = yaml.safe_load(policy_text(seed))
    return registries().policies.build(part["name"], part["args"])


def measure(judge: RewardModel, count: int = 3, **options: Any) -> Any:
    world = GymnasiumWorld(GymnasiumWorld.Config())
    settings = {"label": "policy", "names": ("gymnasium", "judge"), "horizon": 4, **options}
    return evaluate(small_policy(), world, judge, tabletop(count), **settings)


def without_time(result: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(result).items() if key != "seconds"}


def test_the_same_seed_gives_the_same_evaluation() -> None:
    first, again = (measure(EnvironmentReward(), temperature=1.0, seed=5) for _ in range(2))
    other = measure(EnvironmentReward(), temperature=1.0, seed=6)
    assert without_time(first[0]) == without_time(again[0])
    assert all((a.frames_TVHWC == b.frames_TVHWC).all() for a, b in zip(first[1], again[1], strict=True))
    assert any((a.actions_NLA != b.actions_NLA).any() for a, b in zip(first[1], other[1], strict=True))


def test_a_batch_does_not_depend_on_those_before_it() -> None:
    """What makes an evaluation resumable: the third episode is the same whoever rolled out the first two."""
    whole = measure(EnvironmentReward(), temperature=1.0, batch_size=2)[1]
    head = measure(EnvironmentReward(), count=2, temperature=1.0, batch_size=2)[1]
    assert [rollout.group for rollout in whole] == [0, 1, 2]
    for a, b in zip(whole, head, strict=False):
        assert (a.actions_NLA == b.actions_NLA).all()


def test_unscored_episodes_count_neither_way() -> None:
    result, rollouts, rewards = measure(SleepyJudge(SleepyJudge.Config()))
    assert (result.n, result.unscored) == (2, 1)
    assert result.rate == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert [episode.task for episode in result.episodes] == [rollout.task.id for rollout in rollouts]
    assert [(episode.value, episode.error) for episode in result.episodes] == [(r.value, r.error) for r in rewards]
    assert result.episodes[0].error == "asleep"


def test_a_judge_that_cannot_judge_anything_is_an_error() -> None:
    with pytest.raises(DataError, match=r"could judge none of the 2 episodes of 'policy'.*First error: asleep"):
        measure(SleepyJudge(SleepyJudge.Config(asleep=True)), count=2)


def test_what_could_not_be_judged_is_asked_for_again() -> None:
    class Awake(SleepyJudge):
        def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
            scored: Future[list[Reward]] = Future()
            scored.set_result([Reward(None, error="busy", cost_usd=0.5) for _ in rollouts])
            return scored

    result, _, rewards = measure(Awake(SleepyJudge.Config()), again=1)
    assert [reward.cost_usd for reward in rewards] == [0.5] * 3
    assert (result.n, result.unscored, result.episodes[0].error) == (2, 1, "asleep")


@pytest.mark.parametrize("training", [True, False])
def test_the_policy_is_measured_in_evaluation_mode(training: bool) -> None:
    policy, modes = small_policy().train(training), []
    act = policy.act
    policy.act = lambda *a, **k: (modes.append(policy.training), act(*a, **k))[1]
    world = GymnasiumWorld(GymnasiumWorld.Config())
    evaluate(policy, world, EnvironmentReward(), tabletop(1), label="", names=("", ""), horizon=2)
    assert modes == [False] and policy.training is training
    with pytest.raises(ConfigError):
        evaluate(policy, world, EnvironmentReward(), tabletop(1), label="", names=("", ""), horizon=3)
    assert policy.training is training


def run_config(folder: Path, **changes: Any) -> RunConfig:
    part = ComponentConfig
    tasks = part("tabletop", {"count": 2, "image_size": 32, "horizon": 4})
    values = {
        "world_model": part("gymnasium"), "policy": part("openvla-oft"), "reward_model": part("random"),
        "optimizer": part("grpo"), "tasks": tasks, "loop": LoopConfig(horizon=4), "output": str(folder),
        "evaluation": EvaluationConfig(tasks=tasks, reward_model=part("random"), videos=1), **changes,
    }  # fmt: skip
    return RunConfig(**values)


def wanted(config: RunConfig, policy: Any, label: str, step: int) -> EvaluationWanted:
    return EvaluationWanted(config, Path(str(config.output)), step, Parts(policy=policy), label)


def test_the_training_hook_measures_once_and_compares_with_before(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("kind: train\n")
    before = gymnast_evaluate(wanted(config, small_policy(0), "before", 0))
    assert before is not None and "difference" not in before and not math.isnan(before["rate"])
    assert before["reward_kind"] == "success"
    written = (tmp_path / "evaluations/before.json").read_bytes()
    # A resumed run finds what was measured; another policy would give other numbers.
    assert gymnast_evaluate(wanted(config, small_policy(1), "before", 0)) == before
    assert (tmp_path / "evaluations/before.json").read_bytes() == written
    after = gymnast_evaluate(wanted(config, small_policy(1), "after", 3))
    assert after is not None
    results = [
        evaluation_from_json(json.loads((tmp_path / f"evaluations/{label}.json").read_text()))
        for label in ("before", "after")
    ]
    assert after["difference"] == asdict(paired_difference(*results))
    # What was measured with is kept, so that other runs can be told apart by more than plugins' names.
    assert results[1].measured_with.parts == {
        "world": {"name": "gymnasium", "args": {}}, "reward_model": {"name": "random", "args": {}},
        "tasks": {"name": "tabletop", "args": {"count": 2, "image_size": 32, "horizon": 4}},
    }  # fmt: skip
    assert gymnast_evaluate(wanted(config, small_policy(0), "after", 4)) is not None
    assert json.loads((tmp_path / "evaluations/after.json").read_text())["iteration"] == 4


def test_what_an_evaluation_in_a_training_cost_is_paid_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(self: EnvironmentReward, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(0.0, cost_usd=0.5)] * len(rollouts)

    monkeypatch.setattr(EnvironmentReward, "score", look)
    config = run_config(tmp_path)
    config = replace(config, evaluation=replace(config.evaluation, reward_model=ComponentConfig("environment")))
    (tmp_path / "config.yaml").write_text("kind: train\n")
    for label, step in (("before", 0), ("before", 0), ("after", 3)):  # what is known is not measured again
        gymnast_evaluate(wanted(config, small_policy(), label, step))
    assert read_payments(tmp_path) == [Payment("evaluation", 0, 1.0), Payment("evaluation", 3, 1.0)]


@pytest.mark.parametrize(("horizon", "actions"), [(None, 4), (8, 8)])
def test_an_evaluation_may_be_longer_than_the_rollouts_of_training(
    horizon: int | None, actions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def look(self: EnvironmentReward, rollouts: Sequence[Rollout]) -> list[Reward]:
        lengths.extend(len(rollout.frames_TVHWC) - 1 for rollout in rollouts)
        return [Reward(0.0)] * len(rollouts)

    monkeypatch.setattr(EnvironmentReward, "score", look)
    config = run_config(tmp_path)
    evaluation = replace(config.evaluation, reward_model=ComponentConfig("environment"), horizon=horizon)
    (tmp_path / "config.yaml").write_text("kind: train\n")
    gymnast_evaluate(wanted(replace(config, evaluation=evaluation), small_policy(), "before", 0))
    assert lengths == [actions] * 2


def test_the_world_and_the_judge_of_an_evaluation_are_introduced_to_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = []
    monkeypatch.setattr(EnvironmentReward, "attach", lambda self, parts: met.append(parts))
    config = run_config(tmp_path)
    config = replace(config, evaluation=replace(config.evaluation, reward_model=ComponentConfig("environment")))
    (tmp_path / "config.yaml").write_text("kind: train\n")
    policy = small_policy()
    gymnast_evaluate(wanted(config, policy, "before", 0))
    (parts,) = met
    assert parts.policy is policy and isinstance(parts.world_model, GymnasiumWorld) and len(parts.tasks) == 2


def test_what_a_third_party_measures_does_not_change_what_a_training_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(tmp_path)
    (tmp_path / "config.yaml").write_text("kind: train\n")
    for label, step in (("before", 0), ("after", 3)):
        gymnast_evaluate(wanted(config, small_policy(), label, step))
    merged = {"before": 3, "after": {"rate": "good"}, "difference": [1, 2]}
    gymnast_run_done(RunDone(config, tmp_path, summary=merged))
    said, told = capsys.readouterr()
    assert told.splitlines()[0] == "Measuring the policy before training: 2 episodes in gymnasium"
    assert "Measuring the policy after training: 2 episodes in gymnasium" in told
    # Judged by chance, so nobody calls it a success.
    assert re.match(r"Mean coin flip by random in .gymnasium.: .* 2 paired episodes\. The page: ", said)


class Share(Processes):
    """One of several processes of a kind that never meet: who gathers is told what all have said before."""

    def __init__(self, rank: int, count: int, said: dict[int, list[Any]]) -> None:
        super().__init__()
        self._rank, self._count, self._said, self._turn = rank, count, said, 0

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def count(self) -> int:
        return self._count

    def gather(self, value: Any) -> list[Any]:
        every = self._said.setdefault(self._turn, [type(value)() for _ in range(self._count)])
        every[self._rank] = value
        self._turn += 1
        return list(every)


@pytest.mark.parametrize("count", [2, 3])
def test_shared_by_processes_the_trials_are_those_of_one(count: int) -> None:
    options = {"count": 5, "temperature": 1.0, "batch_size": 2}
    whole, rollouts, _ = measure(EnvironmentReward(), **options)
    said: dict[int, list[Any]] = {}
    # The last to gather hears everyone; so each is asked twice.
    for _ in range(2):
        shares = [measure(EnvironmentReward(), processes=Share(rank, count, said), **options) for rank in range(count)]
    assert all(without_time(result) == without_time(whole) for result, _, _ in shares)
    firsts = {rollout.group: rollout for rollout in rollouts}
    for rank, (_, mine, _) in enumerate(shares):
        assert [rollout.group // 2 for rollout in mine] == [i // 2 for i in range(5) if (i // 2) % count == rank]
        assert all((firsts[r.group].frames_TVHWC == r.frames_TVHWC).all() for r in mine)


def test_the_leader_rolls_out_what_it_films_whatever_the_batches() -> None:
    def dealt(batch_size: int, count: int, leads_below: int) -> list[list[int]]:
        processes = [Share(rank, count, {}) for rank in range(count)]
        return [share(12, batch_size, processes=one, leads_below=leads_below) for one in processes]

    assert dealt(2, 2, 0) == [[0, 4, 8], [2, 6, 10]]
    assert dealt(2, 2, 5) == [[0, 2, 4], [6, 8, 10]]
    assert dealt(4, 3, 4) == [[0], [4], [8]]
    assert dealt(12, 2, 12) == [[0], []]


def test_the_same_weights_give_the_same_trials_whatever_surrounds_the_evaluation() -> None:
    policy = small_policy()
    world = GymnasiumWorld(GymnasiumWorld.Config())
    found = []
    for training in (False, True):
        torch.manual_seed(torch.seed())
        policy.train(training)
        options = {"label": "", "names": ("", ""), "horizon": 4, "temperature": 1.0}
        found.append(evaluate(policy, world, EnvironmentReward(), tabletop(2), **options)[1])
    assert all((a.actions_NLA == b.actions_NLA).all() for a, b in zip(*found, strict=True))


class Score(SleepyJudge):
    """Any numbers, for want of success."""

    kind = "score"

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(-1.5 - rollout.group) for rollout in rollouts]


def test_scores_have_a_mean_and_an_interval_of_their_own() -> None:
    result, _, _ = measure(Score(Score.Config()))
    assert result.reward_kind == "score" and result.rate == pytest.approx(-2.5)
    assert result.interval is not None and -3.5 <= result.interval[0] < -2.5 < result.interval[1] <= -1.5
    alone, _, _ = measure(Score(Score.Config()), count=1)
    assert alone.interval is None
    assert paired_difference(result, result).interval is None
    assert evaluation_from_json(json.loads(json.dumps(asdict(alone)))) == alone


def test_an_evaluation_that_does_not_fit_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    misspelt = replace(config.evaluation, world=ComponentConfig("gymnasum"))
    with pytest.raises(PluginError, match="Did you mean 'gymnasium'"):
        gymnast_callbacks(CallbacksWanted(replace(config, evaluation=misspelt), tmp_path))
    wrong = replace(config.evaluation, reward_model=ComponentConfig("random", {"probabilty": 1}))
    with pytest.raises(ConfigError, match=r"evaluation.reward_model.args.probabilty"):
        gymnast_callbacks(CallbacksWanted(replace(config, evaluation=wrong), tmp_path))
    gymnast_callbacks(CallbacksWanted(replace(config, evaluation=replace(misspelt, tasks=None)), tmp_path))
