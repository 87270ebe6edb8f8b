"""A policy in a world: what is rolled out, what is counted, and the hook of a training run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluation_parts import policy as policy_text

from gymnast_core.config import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Reward, Rollout
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.world import GymnasiumWorld
from gymnast_evaluation.evaluate import choose_device, evaluate, judge_again
from gymnast_evaluation.results import evaluation_from_json, paired_difference
from gymnast_tabletop.datasets import TabletopTasks


class SleepyJudge(RewardModel):
    """Cannot judge the first of every three rollouts; the others score a third, or nothing at all."""

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
    assert all((a.frames_THWC == b.frames_THWC).all() for a, b in zip(first[1], again[1], strict=True))
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


def test_what_could_not_be_judged_is_asked_for_again_and_paid_for() -> None:
    rollouts = measure(EnvironmentReward())[1]
    failed = [Reward(None, error="busy", cost_usd=0.5), Reward(1.0), Reward(None, error="busy", cost_usd=0.5)]

    class Awake(SleepyJudge):
        def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
            return [Reward(None, error="still", cost_usd=0.25), Reward(0.0, cost_usd=0.25)][: len(rollouts)]

    judge = Awake(SleepyJudge.Config())
    again = judge_again(judge, rollouts, failed, 1)
    assert [(r.value, r.error, r.cost_usd) for r in again] == [(None, "still", 0.75), (1.0, None, 0), (0.0, None, 0.75)]
    assert judge_again(judge, rollouts, failed, 0) == failed


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


def test_devices_by_name() -> None:
    assert choose_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"device=warp cannot be used here.*Set device=auto"):
        choose_device("warp")


def test_the_training_hook_measures_once_and_compares_with_before(tmp_path: Path) -> None:
    from gymnast_evaluation.hooks import gymnast_evaluate

    part = ComponentConfig
    tasks = part("tabletop", {"count": 2, "image_size": 32, "horizon": 4})
    config = RunConfig(
        world_model=part("gymnasium"), policy=part("openvla-oft"), reward_model=part("random"), optimizer=part("grpo"),
        tasks=tasks, loop=LoopConfig(horizon=4), output=str(tmp_path),
        evaluation=EvaluationConfig(tasks=tasks, reward_model=part("random"), videos=1),
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text("kind: train\n")
    before = gymnast_evaluate(config, small_policy(0), "before", 0)
    assert before is not None and "difference" not in before and not math.isnan(before["rate"])
    written = (tmp_path / "evaluations/before.json").read_bytes()
    # A resumed run finds what was measured; another policy would give other numbers.
    assert gymnast_evaluate(config, small_policy(1), "before", 0) == before
    assert (tmp_path / "evaluations/before.json").read_bytes() == written
    after = gymnast_evaluate(config, small_policy(1), "after", 3)
    assert after is not None
    results = [
        evaluation_from_json(json.loads((tmp_path / f"evaluations/{label}.json").read_text()))
        for label in ("before", "after")
    ]
    assert after["difference"] == asdict(paired_difference(*results))
    assert gymnast_evaluate(config, small_policy(0), "after", 4) is not None
    assert json.loads((tmp_path / "evaluations/after.json").read_text())["iteration"] == 4
