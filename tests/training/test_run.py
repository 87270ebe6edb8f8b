"""`train`, in this process, with parts that note what happens to them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from learner import Learner
from safetensors.torch import load_file
from seeing import CountingWorld, SeeingPolicy, UpReward, task
from torch import nn

from gymnast_core.config import ComponentConfig, EvaluationConfig, LoopConfig, RunConfig, load_config
from gymnast_core.errors import CheckpointError, ConfigError, ContractError, DataError, GymnastError, PluginError
from gymnast_core.interfaces import Dataset, Parts
from gymnast_core.learning import Minibatch
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.plugins.registry import registries
from gymnast_core.runs.folder import read_resumes
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.runs.spending import spent_usd
from gymnast_core.training import record
from gymnast_core.training.judge import RewardsFailing
from gymnast_core.training.run import MOST_ITERATIONS, train
from gymnast_core.training.update import Updater
from gymnast_core.types import LossSum, Reward

SAID: list[str] = []
"""What the parts of the run at hand were told, in order."""


class World(CountingWorld):
    """Counts its steps, and remembers them."""

    @dataclass(frozen=True)
    class Config:
        device: str = "cpu"

    steps = 0

    def attach(self, parts: Parts) -> None:
        self.judge = parts.reward_model

    def step(self, state: Any, actions_BLA: Any) -> Any:
        self.steps += 1
        return super().step(state, actions_BLA)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]

    def close(self) -> None:
        SAID.append(f"world closed after {self.steps}")


class Judge(UpReward):
    @dataclass(frozen=True)
    class Config:
        fails: bool = False
        usd: float | None = 0.0
        """Of each rollout."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config=config or self.Config())

    def preflight(self, rollouts: int, frames: int) -> None:
        SAID.append(f"asked to judge {rollouts} of {frames}")

    def score(self, rollouts: Any) -> list[Reward]:
        if self.config.fails:  # type: ignore[attr-defined]
            return [Reward(None, error="no idea", cost_usd=0.5)] * len(rollouts)
        return [replace(reward, cost_usd=self.config.usd) for reward in super().score(rollouts)]  # type: ignore[attr-defined]

    def close(self) -> None:
        SAID.append("judge closed")


class Critic(Learner):
    """Has a module of its own, which learns, and a number beside it."""

    @dataclass(frozen=True)
    class Config:
        rate: float = 0.1
        demonstrations: float = 0.0

    def __init__(self, config: Config | None = None) -> None:
        config = config or self.Config()
        super().__init__(config, rate=config.rate, demonstrations_per_rollout=config.demonstrations)
        self.critic, self.steps = nn.Linear(2, 1), 0
        with torch.no_grad():
            for parameter in self.critic.parameters():
                parameter.fill_(0.1)

    def extra_modules(self, policy: Any) -> Mapping[str, nn.Module]:
        SAID.append("critic asked for")
        return {"critic": self.critic}

    def loss(self, minibatch: Minibatch) -> LossSum:
        self.steps += 1
        found = super().loss(minibatch)
        assert minibatch.features_BNF is not None
        error = (self.critic(minibatch.features_BNF) - 1.0).square().mean()
        return LossSum(found.total + error * found.weight, found.weight, found.metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


class Tasks(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: int = 4

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def tasks(self) -> list[Any]:
        return [task(f"task-{place}", place) for place in (3, 8, 20, 31)[: self.config.count]]

    def episodes(self) -> list[Any]:
        return []


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    SAID.clear()
    known = registries()
    given = {
        "world_models": World,
        "policies": SeeingPolicy,
        "reward_models": Judge,
        "optimizers": Critic,
        "datasets": Tasks,
    }
    before = {kind: dict(vars(getattr(known, kind))["_registered"]) for kind in given}
    for kind, cls in given.items():
        getattr(known, kind).register("noting", cls)
    yield
    for kind, registered in before.items():
        registry = getattr(known, kind)
        registry._registered = registered
        registry._loaded.pop("noting", None)


class Listener:
    """A hook plugin that notes every event."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.kill_after: int | None = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


def listening(listener: Listener) -> SimpleNamespace:
    hooks = ("run_started", "metrics", "rollouts_imagined", "rewards_scored", "run_stopped", "run_done")

    def note(name: str) -> Any:
        def hook(event: Any) -> None:
            listener.events.append((name, event))

        return hook

    def evaluate(event: Any) -> dict[str, Any]:
        listener.events.append(("evaluate", event))
        found: dict[str, Any] = {"score": event.step}
        return found | ({"difference": {"mean": 1.0}} if event.label == "after" else {})

    return SimpleNamespace(**{f"gymnast_{name}": note(name) for name in hooks}, gymnast_evaluate=evaluate)


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    plugin = listening(found)
    plugin_manager().add(plugin, "listener")
    yield found
    plugin_manager().unregister(plugin)


def config(**changes: Any) -> RunConfig:
    part = ComponentConfig("noting")
    loop = {"iterations": 2, "tasks_per_iteration": 4, "horizon": 4, "temperature": 0.7, **changes.pop("loop", {})}
    given = {"loop": LoopConfig(**loop), "trainer": {"accelerator": "cpu"}, "output": "run", "seed": 3, **changes}
    parts = dict.fromkeys(("world_model", "policy", "reward_model", "optimizer", "tasks"), part)
    return RunConfig(**{**parts, **given})


def test_a_run_leaves_its_config_its_policy_its_critic_and_its_summary(listener: Listener) -> None:
    summary = train(config())
    assert json.loads(Path("run/summary.json").read_text()) == json.loads(json.dumps(summary))
    assert load_config(RunConfig, "run/config.yaml").loop.iterations == 2
    assert load_file("run/policy/model.safetensors")["scale"] != 0.3
    assert set(load_file("run/optimizer/critic.safetensors")) == {"weight", "bias"}
    assert not torch.equal(load_file("run/optimizer/critic.safetensors")["bias"], torch.full((1,), 0.1))
    assert summary["output"] == "run"
    assert summary["iterations"] == 2
    assert summary["updates"] >= 2
    assert summary["rollouts"] >= 2 * 16
    assert summary["groups_kept"] + summary["groups_dropped"] == summary["rollouts"] / 4
    assert summary["before"] == {"score": 0}
    assert summary["after"] == {"score": 2}
    assert summary["difference"] == {"mean": 1.0}
    assert 0 < summary["seconds"] < 100


def test_hooks_are_told_in_order_with_the_run_and_its_parts(listener: Listener) -> None:
    train(config(evaluation=EvaluationConfig(every=1), loop={"max_draws": 1}))
    assert listener.names() == [
        "run_started", "evaluate",
        "rollouts_imagined", "rewards_scored", "metrics", "evaluate",
        "rollouts_imagined", "rewards_scored", "metrics", "evaluate",
        "evaluate", "run_stopped", "run_done",
    ]  # fmt: skip
    found = [event for _, event in listener.events]
    assert all(event.folder == Path("run") and event.config.output == "run" for event in found)
    assert all(isinstance(event.parts.world_model, World) for event in found)
    started = found[0]
    assert (started.title, started.step, started.total, started.unit) == ("Training", 0, 2, "iteration")
    labels = [(event.label, event.step) for name, event in listener.events if name == "evaluate"]
    assert labels == [("before", 0), ("iteration-000001", 1), ("iteration-000002", 2), ("after", 2)]
    steps = [event.step for name, event in listener.events if name in ("rollouts_imagined", "rewards_scored")]
    assert steps == [0, 0, 1, 1]
    scored: list[float] = []
    for name, event in listener.events:
        if name == "rewards_scored":
            scored = [reward.value for reward in event.rewards if reward.value is not None]
            assert len(event.rewards) == len(event.rollouts) == 16
        if name == "metrics":
            assert event.metrics["rollouts"] == 16
            assert event.metrics["imagined_success"] == pytest.approx(sum(scored) / len(scored))
            assert event.metrics["rollouts_per_second"] == pytest.approx(16 / event.metrics["seconds_imagining"])
            assert 0 < event.metrics["seconds_updating"] < 100
    assert found[-1].summary["iterations"] == 2


@pytest.mark.parametrize("key", ["world_model", "optimizer"])
def test_a_state_that_cannot_be_stored_is_told_before_the_run_begins(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"world_model": World, "optimizer": Critic}[key]
    monkeypatch.setattr(kind, "state_dict", lambda self: {"steps": [np.int64(self.steps)]})
    said = rf"^{kind.__name__}\.state_dict: A snapshot cannot hold {key}\.steps\.0, a int64: .*`gymnast check`"
    with pytest.raises(ContractError, match=said):
        train(config())
    assert not Path("run").exists()


@pytest.mark.parametrize("callbacks", [lightning.Callback(), ["progress"], "progress"])
def test_callbacks_of_another_kind_are_refused(callbacks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = SimpleNamespace(gymnast_callbacks=lambda event: callbacks)
    plugin_manager().add(plugin, "calling")
    try:
        with pytest.raises(PluginError, match=r"A hook gymnast_callbacks returned .* list of lightning\.Callback"):
            train(config())
    finally:
        plugin_manager().unregister(plugin)


def test_parts_that_cannot_be_closed_fail_no_run_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("the simulator hangs")

    monkeypatch.setattr(World, "close", fail)
    summary = train(config(loop={"iterations": 1}))
    assert summary["iterations"] == 1 and "judge closed" in SAID
    assert "World could not be closed: RuntimeError: the simulator hangs" in caplog.text


def test_the_error_that_ended_a_run_is_told_and_not_that_of_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("the simulator hangs")

    monkeypatch.setattr(World, "close", fail)
    with pytest.raises(RewardsFailing, match="no idea"):
        train(config(reward_model=ComponentConfig("noting", {"fails": True})))


def test_parts_are_asked_introduced_and_closed() -> None:
    train(config(loop={"max_draws": 1}))
    # 2 iterations of 4 groups of 4, of a start frame and one an action.
    assert SAID[0] == "asked to judge 32 of 5"
    assert SAID.count("critic asked for") == 1
    assert "judge closed" in SAID and "world closed after 4" in SAID


def test_a_run_that_is_cut_short_goes_on_identically(listener: Listener, tmp_path: Path) -> None:
    longer = {"loop": {"iterations": 3, "groups_per_update": 2}}
    whole = train(config(output="whole", **longer))
    train(config(output="part", loop={"iterations": 1, "groups_per_update": 2}))
    snapshot = load_snapshot(Path("part/snapshots"))
    assert snapshot is not None
    stored = load_config(RunConfig, "part/config.yaml")
    asked = replace(stored, loop=replace(stored.loop, iterations=3))
    SAID.clear()
    listener.events.clear()
    resumed = train(asked, resume=Path("part"))
    assert SAID[0] == "asked to judge 32 of 5"
    assert (listener.events[0][1].step, listener.events[0][1].total) == (1, 3)
    for file in ("policy/model.safetensors", "optimizer/critic.safetensors"):
        expected, found = load_file(f"whole/{file}"), load_file(f"part/{file}")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for key in ("rollouts", "groups_kept", "groups_dropped", "updates", "iterations"):
        assert resumed[key] == whole[key]
    assert resumed["seconds"] > snapshot.state["record"]["seconds"] > 0
    (noted,) = read_resumes(Path("part"))
    assert noted["changes"] == {"loop.iterations": [1, 3]}
    # What parts remember went on, too: the world has taken the steps of a whole run.
    assert [line for line in SAID if line.startswith("world")] == [
        f"world closed after {whole['rollouts'] // 16 * 2:.0f}"
    ]


def test_money_is_gone_whatever_became_of_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration that was judged and cut off is paid for, though no metric tells of it."""
    paid = {"reward_model": ComponentConfig("noting", {"usd": 0.25}), "loop": {"max_draws": 1}}

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "update", interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config(**paid))
    of_one = 16 * 0.25
    assert spent_usd(Path("run")) == of_one
    assert train(None, resume=Path("run"))["cost_usd"] == 3 * of_one  # of two iterations
    assert train(config(output="whole", **paid))["cost_usd"] == 2 * of_one


def test_what_an_earlier_edition_knew_of_costs_is_taken_over_once(tmp_path: Path) -> None:
    kept = record.RunRecord(config(), Parts(), tmp_path)
    state = {"seconds": 1.0, "totals": {"rollouts": 8.0, "cost_usd": 0.5}}
    for _ in range(2):
        kept.load_state_dict(state)
    assert spent_usd(tmp_path) == 0.5


def test_a_cost_that_is_not_known_is_no_zero() -> None:
    summary = train(config(reward_model=ComponentConfig("noting", {"usd": None}), loop={"max_draws": 1}))
    assert summary["cost_usd"] is None
    assert json.loads(Path("run/summary.json").read_text())["cost_usd"] is None


@pytest.mark.parametrize("option", [{"limit_train_batches": 1}, {"fast_dev_run": True}, {"max_time": "00:00:00:00"}])
def test_a_trainer_that_ends_early_is_no_success(option: dict[str, Any], listener: Listener) -> None:
    done = 0 if "max_time" in option else 1
    said = rf"The trainer ended after {done} of 2 iterations.*max_time.*gymnast train --resume run"
    with pytest.raises(GymnastError, match=said):
        train(config(trainer={"accelerator": "cpu", **option}))
    assert not Path("run/policy").exists() and not Path("run/summary.json").exists()
    assert "run_done" not in listener.names() and listener.names()[-1] == "run_stopped"
    if done:
        assert train(config(), resume=Path("run"))["iterations"] == 2


def test_what_was_before_a_training_is_asked_for_with_what_is_behind_it(listener: Listener) -> None:
    train(config())
    listener.events.clear()
    train(None, resume=Path("run"))
    asked = [(event.label, event.step) for name, event in listener.events if name == "evaluate"]
    assert asked == [("before", 2), ("after", 2)]


def test_a_finished_run_is_only_measured_again(listener: Listener) -> None:
    train(config())
    listener.events.clear()
    SAID.clear()
    summary = train(None, resume=Path("run"))
    assert summary["iterations"] == 2
    assert listener.names() == ["run_started", "evaluate", "evaluate", "run_stopped", "run_done"]
    # The iterations behind it are known from the beginning, and none is left to be judged.
    assert {event.step for name, event in listener.events if name != "evaluate"} == {2}
    assert SAID[0] == "asked to judge 0 of 5"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"loop": {"horizon": 5}}, ConfigError, "horizon of 5 .* chunk length 2; set loop.horizon=4"),
        ({"hooks": {"nobody": {}}}, ConfigError, "hooks.nobody: No section 'nobody'"),
        ({"trainer": {"precision": "16-mixed"}}, ConfigError, "precision=16-mixed .* use bf16-mixed or 32-true"),
        ({"trainer": {"strategy": "magic"}}, ConfigError, "trainer.strategy=magic.*Choose auto, ddp"),
        ({"trainer": {"max_epochs": 2}}, ConfigError, "trainer.max_epochs cannot be set: set loop.iterations"),
        ({"trainer": {"nonsense": 2}}, ConfigError, "trainer: .*nonsense.*lightning.Trainer"),
        ({"tasks": ComponentConfig("noting", {"count": 0})}, DataError, "'noting' holds no tasks"),
        (
            {"optimizer": ComponentConfig("noting", {"demonstrations": 1.0})},
            ConfigError,
            "mixes in demonstrations; set demonstrations.name",
        ),
        (
            {
                "optimizer": ComponentConfig("noting", {"demonstrations": 1.0}),
                "demonstrations": ComponentConfig("noting"),
            },
            DataError,
            "'noting' holds no demonstrations",
        ),
    ],
)
def test_what_can_be_refused_is_refused_before_there_is_a_folder(change: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        train(config(**change))
    assert not Path("run").exists()


def test_a_judge_that_fails_ends_the_run_and_everything_is_closed(
    listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RewardsFailing, match=r"16 of 16 rollouts could not be judged .*First error: no idea"):
        train(config(reward_model=ComponentConfig("noting", {"fails": True})))
    assert listener.names()[-1] == "run_stopped"
    assert "judge closed" in SAID
    said = capsys.readouterr().err
    assert "Run folder: run" in said and "gymnast train --resume run" in said
    assert not Path("run/summary.json").exists()


def test_a_policy_for_evaluation_only_can_be_measured(listener: Listener) -> None:
    summary = train(config(loop={"iterations": 0}))
    assert (summary["iterations"], summary["updates"]) == (0, 0)
    assert listener.names() == ["run_started", "evaluate", "evaluate", "run_stopped", "run_done"]


def change_snapshot(**state: Any) -> None:
    """Write the newest snapshot of the run again, as a whole one, with another state."""
    snapshot = load_snapshot(Path("run/snapshots"))
    assert snapshot is not None
    (own,) = snapshot.processes
    save_snapshot(Path("run/snapshots"), 2, {**snapshot.state, **state}, own=own)


def test_snapshots_take_no_more_than_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = [0.0], []
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])

    def snapshot(self: Any, loop: Any) -> None:
        written.append(loop.iteration)
        clock[0] += 3.0

    monkeypatch.setattr(record.RunRecord, "snapshot", snapshot)

    def iterate(share: float, seconds: float, iterations: int) -> list[int]:
        written.clear()
        options = config(loop={"iterations": iterations}, checkpoint_share=share)
        kept = record.RunRecord(options, Parts(), Path("run"))
        for iteration in range(1, iterations + 1):
            clock[0] += seconds
            kept.iteration_done(SimpleNamespace(iteration=iteration), {"rollouts": 1.0, "seconds_imagining": 1.0})
        return list(written)

    # 3 s of writing may follow 57 s of work: every sixth iteration of 10 s, besides the first and the last.
    assert iterate(0.05, 10.0, 20) == [1, 7, 13, 19, 20]
    # Half of the time: 3 s after 3 s.
    assert iterate(0.5, 1.0, 8) == [1, 4, 7, 8]
    assert iterate(0.5, 3.0, 4) == [1, 2, 3, 4]


def test_snapshots_are_written_when_they_are_due() -> None:
    train(config(loop={"iterations": 5}, checkpoint_every=2))
    found = sorted(path.name for path in Path("run/snapshots").iterdir())
    assert found == ["step-000000004", "step-000000005"]


def test_a_snapshot_of_other_parts_is_one_error() -> None:
    train(config())
    stored = load_config(RunConfig, "run/config.yaml")
    change_snapshot(extra={})
    with pytest.raises(CheckpointError, match=r"step-000000002 does not fit this run: KeyError: 'critic'"):
        train(stored, resume=Path("run"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_autocast_is_in_the_update_alone(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[bool]] = {"act": set(), "step": set(), "score": set(), "loss": set()}

    def spy(cls: type, name: str) -> None:
        original = getattr(cls, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            seen[name].add(torch.is_autocast_enabled("cpu"))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, call)

    for cls, name in ((SeeingPolicy, "act"), (World, "step"), (Judge, "score"), (Critic, "loss")):
        spy(cls, name)
    train(config(trainer={"accelerator": "cpu", "precision": precision}))
    assert seen == {"act": {False}, "step": {False}, "score": {False}, "loss": {precision == "bf16-mixed"}}


@pytest.mark.parametrize("done", [-1, 10**30, "x", None, 1.5])
def test_a_snapshot_that_cannot_be_is_one_error(done: Any) -> None:
    train(config())
    change_snapshot(iteration=done)
    with pytest.raises(
        CheckpointError, match=rf"step-000000002 does not fit this run: .*it says that {str(done)[:40]} it"
    ):
        train(None, resume=Path("run"))


@pytest.mark.parametrize("done", [0, MOST_ITERATIONS])
def test_the_most_and_the_least_that_a_snapshot_may_have_done(done: int) -> None:
    train(config())
    change_snapshot(iteration=done)
    stored = load_config(RunConfig, "run/config.yaml")
    longer = replace(stored, loop=replace(stored.loop, iterations=max(done, 1)))
    assert train(longer, resume=Path("run"))["iterations"] == max(done, 1)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 4}, "seed was 3 and would become 4"),
        ({"loop": {"horizon": 6}}, "loop.horizon was 4 and would become 6"),
        ({"tasks": ComponentConfig("noting", {"count": 3})}, "tasks.args.count was None and would become 3"),
        ({"evaluation": EvaluationConfig(temperature=0.5)}, "evaluation.temperature"),
        # Measured now, it would be the trained policy's.
        ({"evaluation": EvaluationConfig(before=False)}, "evaluation.before was True and would become False"),
    ],
)
def test_what_a_run_is_cannot_change_on_resume(change: Any, key: str) -> None:
    train(config())
    with pytest.raises(ConfigError, match=f"A resumed run cannot change .*{key}"):
        train(config(**change), resume=Path("run"))
    assert read_resumes(Path("run")) == []


def test_where_it_runs_and_how_long_may_change_on_resume() -> None:
    train(config(world_model=ComponentConfig("noting", {"device": "cpu"})))
    moved = config(world_model=ComponentConfig("noting", {"device": "meta"}), loop={"iterations": 3})
    assert train(moved, resume=Path("run"))["iterations"] == 3
    assert set(read_resumes(Path("run"))[0]["changes"]) == {"world_model.args.device", "loop.iterations"}


def test_a_run_without_a_name_is_called_after_its_policy(capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(config(output=None))
    assert re.fullmatch(r"runs/noting-\d{8}-\d{6}", summary["output"])
    assert f"Run folder: {summary['output']}" in capsys.readouterr().err


class TestCallbacks:
    """Plugins may add Lightning callbacks, or refuse the run, before anything is there."""

    def add(self, hook: Any, request: pytest.FixtureRequest) -> None:
        plugin = SimpleNamespace(gymnast_callbacks=hook)
        plugin_manager().add(plugin, "callbacks")
        request.addfinalizer(lambda: plugin_manager().unregister(plugin))

    def test_they_get_the_config_and_are_called(self, request: pytest.FixtureRequest) -> None:
        seen: list[Any] = []

        class Callback(lightning.Callback):
            def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any) -> None:
                seen.append((module.iteration, module.record.folder))

        def hook(event: Any) -> list[Any]:
            seen.append((event.config.loop.iterations, event.folder))
            return [Callback()]

        self.add(hook, request)
        train(config())
        assert seen[0] == (2, Path("run"))
        # Two iterations, and the end.
        assert seen[1:] == [(1, Path("run")), (2, Path("run")), (2, Path("run"))]

    def test_without_a_name_the_folder_is_not_known_yet(self, request: pytest.FixtureRequest) -> None:
        seen: list[Path] = []
        self.add(lambda event: seen.append(event.folder), request)
        train(config(output=None, loop={"iterations": 0}))
        assert seen == [Path()]

    def test_one_that_refuses_stops_the_run(self, request: pytest.FixtureRequest) -> None:
        def hook(event: Any) -> list[Any]:
            raise ConfigError("hooks.mine: no")

        self.add(hook, request)
        with pytest.raises(ConfigError, match=r"hooks\.mine: no"):
            train(config())
        assert not Path("run").exists()

    def test_one_that_breaks_does_not(self, request: pytest.FixtureRequest) -> None:
        def hook(event: Any) -> list[Any]:
            raise ValueError("oh")

        self.add(hook, request)
        assert train(config())["iterations"] == 2


def test_what_measures_must_return_numbers_by_name(request: pytest.FixtureRequest) -> None:
    plugin = SimpleNamespace(gymnast_evaluate=lambda event: [1.0])
    plugin_manager().add(plugin, "numbers")
    request.addfinalizer(lambda: plugin_manager().unregister(plugin))
    with pytest.raises(PluginError, match=r"gymnast_evaluate returned a list, \[1.0\]; it returns numbers by name"):
        train(config())
