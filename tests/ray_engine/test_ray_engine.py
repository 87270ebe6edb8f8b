"""Rollouts of a real Ray on this machine: the numbers of a run without it, however many workers die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_parts
import torch
from safetensors.torch import load_file

from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.config.schema import RunConfig
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import build_parts
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import deals
from gymnast_core.training.engine import LocalEngine, Making, Wanted
from gymnast_core.training.run import train
from gymnast_core.types import Reward, Rollout
from gymnast_ray.config import RayConfig
from gymnast_ray.engine import RayEngine

pytestmark = pytest.mark.usefixtures("cluster")
COUNTED = ("iterations", "updates", "rollouts", "groups_kept", "groups_dropped", "unscored")


def test_a_run_that_goes_on_on_ray_has_the_numbers_of_one_without(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = train(ray_parts.config("whole"))
    torch.manual_seed(1)
    train(ray_parts.config("part", iterations=1))
    asked = ray_parts.config("part", ComponentConfig("ray", {"workers": 1, "judging": "apart"}))
    # Nobody would draw the frozen weights of the run again: the snapshot has them, and workers are told.
    torch.manual_seed(2)
    resumed = train(asked, resume=Path("part"))
    assert {key: resumed[key] for key in COUNTED} == {key: whole[key] for key in COUNTED}
    expected, found = (load_file(f"{run}/policy/model.safetensors") for run in ("whole", "part"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert load_config(RunConfig, "part/config.yaml").engine.name == "ray"


class Bench:
    """An engine with two workers, and the same parts without it."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        config = ray_parts.config("unused", world={"step_seconds": 0.1, "notes": str(notes)})
        self.parts: Parts = build_parts(config, left=None, processes=Processes())
        self.parts.attach()
        self.engine, self.local = RayEngine(RayConfig(staleness=1)), LocalEngine()
        for engine in (self.engine, self.local):
            engine.attach(self.parts)

    def wanted(self, version: int, iteration: int = 0) -> Wanted:
        loop = self.parts.config.loop
        dealt = deals([*self.parts.tasks, *self.parts.tasks], 100, 4, loop.imagine_batch_size)
        return Wanted(tuple(dealt), loop, 3, iteration, 0, version)

    def expected(self, wanted: Wanted) -> tuple[list[Rollout], list[Reward]]:
        return of(self.local.start(wanted))

    def at_work(self) -> int:
        """A process of a worker that has just begun an episode."""
        for file in self.notes.iterdir():
            file.unlink()
        while True:
            if found := [int(file.name) for file in self.notes.iterdir() if int(file.name) != os.getpid()]:
                return found[0]
            time.sleep(0.01)


def of(making: Making) -> tuple[list[Rollout], list[Reward]]:
    return making.rollouts(), making.rewards()


def same(found: tuple[list[Rollout], list[Reward]], expected: tuple[list[Rollout], list[Reward]]) -> None:
    """The right groups, none twice, each in its place, with the same bits."""
    assert [rollout.group for rollout in found[0]] == [rollout.group for rollout in expected[0]]
    assert len(found[0]) == 32 and len({rollout.group for rollout in found[0]}) == 8
    for one, other in zip(found[0], expected[0], strict=True):
        assert one.task is other.task and (one.version, one.cameras) == (other.version, other.cameras)
        for name in ("frames_TVHWC", "actions_NLA", "log_prob_NLD", "tokens_NLD"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.frames_TVHWC.dtype == torch.uint8
    assert found[1] == expected[1]


@pytest.fixture(scope="module")
def bench(cluster: None, installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("notes"))
    yield made
    made.engine.close()


def test_workers_have_the_weights_of_when_they_were_told(bench: Bench) -> None:
    policy, wanted = bench.parts.policy, bench.wanted(version=7)
    assert policy is not None
    expected = bench.expected(wanted)
    making = bench.engine.start(wanted)
    with torch.no_grad():
        policy.logits.add_(torch.tensor([2.0, -1.0]))  # an update, while they imagine
    found = of(making)
    same(found, expected)
    after = of(bench.engine.start(bench.wanted(version=8)))
    same(after, bench.expected(bench.wanted(version=8)))
    assert not all(map(torch.equal, *([r.log_prob_NLD for r in made[0]] for made in (found, after))))
    assert {rollout.version for rollout in found[0]} == {7} and {rollout.version for rollout in after[0]} == {8}


def test_a_worker_that_dies_is_replaced_and_its_groups_are_made_again(bench: Bench) -> None:
    wanted = bench.wanted(version=8, iteration=1)
    expected, replaced = bench.expected(wanted), bench.engine.replaced
    making = bench.engine.start(wanted)
    os.kill(bench.at_work(), signal.SIGKILL)
    same(of(making), expected)
    assert bench.engine.replaced == replaced + 1
