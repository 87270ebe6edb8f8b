"""Policies in worlds: what is rolled out, what is counted, what `gymnast evaluate` writes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from gymnast_core import cli
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import RewardModel
from gymnast_core.registry import registries
from gymnast_core.types import Reward, Rollout
from gymnast_environment.rewards import EnvironmentReward
from gymnast_environment.world import GymnasiumWorld
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.evaluate import evaluate
from gymnast_evaluation.statistics import paired_difference
from gymnast_tabletop.datasets import TabletopTasks

TOWER = "{patch_size: 16, width: 16, depth: 2, heads: 2}"
POLICY = (
    "{name: openvla-oft, args: {chunk_length: 2, unnorm_key: tabletop, architecture: {image_size: 32, seed: SEED, "
    f"dino: {TOWER}, siglip: {TOWER}, llm_width: 32, llm_layers: 1, llm_heads: 2, llm_intermediate: 32, "
    "n_action_bins: 16, action_low: [-0.02, -0.02], action_high: [0.02, 0.02], "
    "tokenizer_corpus: [push the red block to the left]}}}"
)
WORLD = (
    "{name: worldgym, args: {image_size: [32, 32], patch_size: 16, dim: 32, layers: 1, heads: 2, action_dim: 3, "
    "robot_action_dim: 2, window: 6, denoising_steps: 1, device: cpu}}"
)


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
    import yaml

    part = yaml.safe_load(POLICY.replace("SEED", str(seed)))
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


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`gymnast evaluate` of two small policies in the simulator and in a small world model."""

    def call(*changes: str) -> tuple[int, str, str]:
        base = [
            f"policies.first={POLICY.replace('SEED', '0')}",
            f"policies.second={POLICY.replace('SEED', '1')}",
            "worlds.simulator=gymnasium",
            "rewards.simulator={name: random, args: {probability: 0.5}}",
            f"worlds.imagination={WORLD}",
            "rewards.imagination={name: random, args: {probability: 0.5, seed: 1}}",
            "tasks={name: tabletop, args: {count: 6, image_size: 32, horizon: 4}}",
            "horizon=4",
            "episodes=5",
            "batch_size=3",
            f"output={tmp_path / 'run'}",
        ]
        mine = {change.partition("=")[0] for change in changes}
        kept = [item for item in base if item.partition("=")[0] not in mine]
        monkeypatch.setattr(sys, "argv", ["gymnast", "evaluate", *kept, *changes])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return call


def test_the_command_compares_policies_in_worlds(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = command()
    assert code == 0, err
    run = tmp_path / "run"
    found = {path.stem: json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")}
    pairs = [(policy, world) for policy in ("first", "second") for world in ("simulator", "imagination")]
    assert found.keys() == {f"{policy}-in-{world}" for policy, world in pairs}
    assert found["first-in-simulator"]["world"] == "gymnasium"
    assert found["first-in-imagination"]["world"] == "worldgym"
    ids = [[episode["task"] for episode in result["episodes"]] for result in found.values()]
    assert ids == [[task.id for task in tabletop(5)]] * 4
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(out) == {"output": str(run), **summary}
    for policy, world in pairs:
        cell, result = summary["results"][policy][world], found[f"{policy}-in-{world}"]
        values = [episode["value"] for episode in result["episodes"]]
        assert (cell["n"], cell["unscored"]) == (5, 0)
        assert cell["rate"] == result["rate"] == pytest.approx(sum(values) / 5)
    assert summary["differences_from"] == "first" and summary["differences"].keys() == {"second"}
    for world in ("simulator", "imagination"):
        rates = [summary["results"][policy][world]["rate"] for policy in ("first", "second")]
        difference = summary["differences"]["second"][world]
        assert difference["mean"] == pytest.approx(rates[1] - rates[0]) and difference["n"] == 5
    page = (run / "report.html").read_text()
    assert "Difference from first" in page and "judged both times" in page
    assert "<code>gymnasium</code>" in page and "<code>worldgym</code>" in page
    assert len(list((run / "videos").glob("*.mp4"))) == 20


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (["horizon=0"], ["horizon is 0", "at least 1"]),
        (["episodes=0"], ["episodes is 0"]),
        (["batch_size=0"], ["batch_size is 0"]),
        (["temperature=-1"], ["temperature is -1.0"]),
        (["tasks={name: tabletop-episodes, args: {path: x}}"], ["TabletopEpisodes holds no tasks", "Choose"]),
        (["policies={a/b: {name: openvla-oft}}"], ["'a/b'", "letters, digits"]),
    ],
)
def test_what_the_config_gets_wrong(
    command: Callable[..., tuple[int, str, str]], change: list[str], parts: list[str]
) -> None:
    code, _, err = command(*change)
    assert code == 2 and err.count("Error: ") == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in err


def test_the_training_hook_measures_once_and_compares_with_before(tmp_path: Path) -> None:
    from gymnast_core.config import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig
    from gymnast_evaluation.hooks import gymnast_evaluate
    from gymnast_evaluation.statistics import evaluation_from_json

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


def test_a_config_needs_policies_and_worlds() -> None:
    from gymnast_core.config import ComponentConfig

    with pytest.raises(ConfigError, match="policies and worlds need an entry each"):
        EvaluateConfig(policies={}, worlds={"a": ComponentConfig("gymnasium")}, tasks=ComponentConfig("tabletop"))
