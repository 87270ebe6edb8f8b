"""Who judges, what workers are told and what they are given, with workers that live in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import ray_parts
import torch

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import build_parts
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import deals
from gymnast_core.training.engine import LocalEngine, Wanted, build_engine, engines
from gymnast_core.types import Reward, Rollout
from gymnast_ray import cluster, engine
from gymnast_ray.config import RayConfig
from gymnast_ray.engine import RayEngine
from gymnast_ray.worker import JudgeWorker, Place, RolloutWorker

ray = pytest.importorskip("ray")


@dataclass(eq=False)
class Stored:
    """An object of the store."""

    value: Any


class Actor:
    """Does at once what it is asked for."""

    def __init__(self, worker: Any, options: dict[str, Any]) -> None:
        self.worker, self.options, self.asked = worker, options, list[str]()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.worker, name)

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Stored:
                self.asked.append(name)
                return Stored(method(*(a.value if isinstance(a, Stored) else a for a in arguments)))

        return Method()


class InProcess:
    """Stands in for a Ray that places everything here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actors: list[Actor] = []
        self.stored: list[Any] = []
        stubs = {
            "put": self.put, "get": lambda reference: reference.value, "remote": self.remote,
            "wait": lambda references, **_: (references[:1], references[1:]), "kill": lambda *_, **__: None,
        }  # fmt: skip
        for name, stub in stubs.items():
            monkeypatch.setattr(ray, name, stub)
        monkeypatch.setattr(engine, "join", lambda *_: False)
        monkeypatch.setattr(Place, "enter", lambda place: None)

    def put(self, value: Any) -> Stored:
        self.stored.append(value)
        return Stored(value)

    def remote(self, kind: type) -> Any:
        outer = self

        class Kind:
            def options(self, **options: Any) -> Any:
                self.given = options
                return self

            def remote(self) -> Actor:
                outer.actors.append(Actor(kind(), self.given))
                return outer.actors[-1]

        return Kind()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = build_parts(ray_parts.config("unused"), left=None, processes=Processes())
    made.attach()
    yield made


def wanted(parts: Parts, version: int = 0) -> Wanted:
    loop = parts.config.loop
    return Wanted(tuple(deals(parts.tasks, 0, 4, loop.imagine_batch_size)), loop, 3, 0, 0, version)


def made(parts: Parts, with_engine: Any, version: int = 0) -> tuple[list[Rollout], list[Reward]]:
    with_engine.attach(parts)
    making = with_engine.start(wanted(parts, version))
    return making.rollouts(), making.rewards()


@pytest.mark.parametrize("judging", ["workers", "apart", "here"])
def test_the_rewards_are_the_same_whoever_judges(judging: str, here: InProcess, parts: Parts) -> None:
    expected = made(parts, LocalEngine())
    options = {"gpus": 0.5, "judge_cpus": 4.0, "judge_gpus": 0.25, "judge_resources": {"judging": 1.0}}
    on_ray = RayEngine(RayConfig(judging=judging, judges=3, **options))  # type: ignore[arg-type]
    found = made(parts, on_ray)
    assert found[1] == expected[1] and len(found[1]) == 16
    assert [rollout.group for rollout in found[0]] == [rollout.group for rollout in expected[0]]
    assert all(torch.equal(a.frames_TVHWC, b.frames_TVHWC) for a, b in zip(found[0], expected[0], strict=True))
    on_ray.close()
    workers = [actor for actor in here.actors if isinstance(actor.worker, RolloutWorker)]
    judges = [actor for actor in here.actors if isinstance(actor.worker, JudgeWorker)]
    assert len(workers) == 2 and len(judges) == (3 if judging == "apart" else 0)
    assert {(actor.options["num_cpus"], actor.options["num_gpus"]) for actor in workers} == {(1.0, 0.5)}
    for actor in judges:
        assert (actor.options["num_cpus"], actor.options["num_gpus"]) == (4.0, 0.25)
        assert actor.options["resources"] == {"judging": 1.0}
    assert all((actor.worker._parts.reward_model is None) == (judging != "workers") for actor in workers)
    assert all(actor.worker._parts.policy is None for actor in judges)


def test_only_what_is_trained_travels_and_only_when_it_changed(here: InProcess, parts: Parts) -> None:
    torch.manual_seed(4)  # workers draw other frozen weights
    on_ray = RayEngine()
    on_ray.attach(parts)
    assert parts.policy is not None
    for version in (0, 0, 1):
        on_ray.start(wanted(parts, version)).rollouts()
    weights = [value for value in here.stored if isinstance(value, dict) and "logits" in value]
    frozen = [value for value in here.stored if isinstance(value, dict) and "tilt" in value]
    assert len(weights) == 2 and all(value.keys() == {"logits"} for value in weights)
    assert len(frozen) == 1 and frozen[0].keys() == {"tilt"}
    busy = [actor for actor in here.actors if "make" in actor.asked]
    assert busy and all(torch.equal(actor.worker._parts.policy.tilt, parts.policy.tilt) for actor in busy)
    on_ray.close()


def test_workers_are_told_what_a_world_remembers(here: InProcess, parts: Parts) -> None:
    class Remembering(ray_parts.World):
        drift = torch.zeros(1)

        def state_dict(self) -> dict[str, Any]:
            return {"drift": self.drift, "at": [1, None]}

        def load_state_dict(self, state: Any) -> None:
            self.drift, self.at = state["drift"], state["at"]

    world = Remembering(ray_parts.World.Config())
    on_ray = RayEngine()
    on_ray.attach(replace(parts, world_model=world))
    on_ray.start(wanted(parts)).rollouts()
    told: list[Any] = []
    for actor in here.actors:
        actor.worker._parts.world_model.load_state_dict = told.append
    on_ray.start(wanted(parts)).rollouts()
    assert told == []
    world.drift = torch.ones(1)
    on_ray.start(wanted(parts)).rollouts()
    assert told and all(torch.equal(state["drift"], torch.ones(1)) and state["at"] == [1, None] for state in told)
    on_ray.close()


def test_an_engine_is_chosen_by_name() -> None:
    assert engines().names() == ["local", "ray"]
    assert isinstance(build_engine(ComponentConfig("local")), LocalEngine)
    made = build_engine(ComponentConfig("ray", {"staleness": 1}))
    assert isinstance(made, RayEngine) and made.staleness == 1
    with pytest.raises(PluginError, match=r"No engine 'rya'\. Did you mean 'ray'"):
        build_engine(ComponentConfig("rya"))
    with pytest.raises(ConfigError, match=r"engine.args.staleness is 2"):
        build_engine(ComponentConfig("ray", {"staleness": 2}))


@pytest.mark.parametrize(
    ("options", "processes", "said"),
    [
        (
            {"gpus": 0.5, "workers": 5000},
            1,
            r"ask for 2500 GPUs, and this machine has \d+\. Set engine.args.gpus lower",
        ),
        ({}, 2, "2 processes needs one cluster for all of them.*engine.args.address=auto"),
    ],
)
def test_what_a_machine_lacks_is_said(
    options: dict[str, Any], processes: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=said):
        cluster.join(RayConfig(**options), processes)


def test_all_workers_together_ask_for() -> None:
    options = {"workers": 3, "cpus": 2.0, "resources": {"rack": 1.0}, "judges": 2, "judge_gpus": 0.5}
    assert cluster.asked(RayConfig(**options)) == (6.0, 0.0, {"rack": 3.0})  # type: ignore[arg-type]
    apart = RayConfig(**options, judging="apart", judge_resources={"rack": 2.0, "big": 1.0})  # type: ignore[arg-type]
    assert cluster.asked(apart) == (8.0, 1.0, {"rack": 7.0, "big": 2.0})
