"""The judge of a co-evolving run learns, too; of several processes one fits, and all have what it learned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnast_dyna.refit
import pytest
import torch
import yaml
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import load_tasks
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_fit.config import FitConfig
from gymnast_fit.fit import fit
from safetensors.torch import load_file
from wovr_parts import build

from gymnast_wovr import refinement
from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.refinement import refine

FIT = {"fit": {"fit": {"steps": 2, "batch_size": 2, "warmup_steps": 0, "learning_rate": 1e-2}}}


def world_args(models: Path, **more: object) -> dict:
    inner = {"name": "worldgym", "args": {"checkpoint": str(models / "world")}}
    judge = {**FIT, "replayed": True}
    return {"world_model": inner, "at": [1], "rollouts": 2, "world": FIT, "judge": judge, **more}


def judge_args(models: Path, name: str = "success-classifier") -> dict:
    args = {"checkpoint": str(models / "judge")} if name == "success-classifier" else {}
    return {"every": 2, "reward_model": {"name": name, "args": args}}


def overrides(models: Path, run: Path, args: dict, **world: object) -> list[str]:
    return [
        "tabletop", "optimizer.args={group_size: 2, minibatch_size: 4, accuracy_bounds: [0, 1]}",
        "loop={iterations: 2, tasks_per_iteration: 2, horizon: 4, max_draws: 1, imagine_batch_size: 2}",
        "evaluation.tasks=null", "tasks={name: tabletop, args: {count: 4, horizon: 4, image_size: 32}}",
        f"policy.args.checkpoint={models / 'policy'}", "policy.args.chunk_length=2", f"output={run}",
        f"reward_model={json.dumps({'name': 'first-hit', 'args': args})}", "trainer.accelerator=cpu",
        f"world_model={json.dumps({'name': 'co-evolving', 'args': world_args(models, **world)})}",
    ]  # fmt: skip


def introduced(models: Path, folder: Path, args: dict | None = None, **more: object) -> tuple[CoEvolvingWorld, Parts]:
    """A co-evolving world that knows its run's parts."""
    args = args or judge_args(models)
    config = load_config(RunConfig, "tabletop", overrides(models, folder, args, **more)[1:])
    world = build("world_models", "co-evolving", world_args(models, **more))
    policy = build("policies", "openvla-oft", {"checkpoint": str(models / "policy"), "chunk_length": 2})
    parts = Parts(
        policy=policy, world_model=world, reward_model=build("reward_models", "first-hit", args),
        tasks=load_tasks(config.tasks), config=config,
    )  # fmt: skip
    parts.attach()
    return world, parts


def weights(parts: Parts) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in parts.reward_model._judge.module().state_dict().items()}


def test_the_judge_learns_within_another_one_and_is_in_the_state(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world, parts = introduced(models, tmp_path / "run")
    before = weights(parts)
    replays: list[dict] = []

    def fit_and_look(config: FitConfig, resume: Path | None = None) -> dict:
        replays.extend(json.loads(path.read_text()) for path in Path(config.output).parent.glob("replayed/*/*.json"))
        return fit(config, resume=resume)

    monkeypatch.setattr(gymnast_dyna.refit, "fit", fit_and_look)
    report = refine(world, parts.policy, parts.config, tmp_path / "run", 1)
    assert report["reward_model"]["steps"] == 2
    place, after = tmp_path / "run/refinements/iteration-000001", weights(parts)
    saved = load_file(place / "reward_model/checkpoint/model.safetensors")
    assert all(torch.equal(after[name], saved[name]) for name in saved)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    # It learned from the same recording, as it was and as the refitted world model shows it.
    plain, replayed = yaml.safe_load((place / "reward_model/config.yaml").read_text())["episodes"]["args"]["of"]
    assert plain["name"] == "lerobot" and replayed["args"]["path"] == str(place / "replayed/1")
    assert [found["source"]["args"]["episodes"] for found in replays] == [plain]
    world_model = replays[0]["source"]["args"]["world_model"]
    assert world_model["args"]["checkpoint"] == str(place / "world_model/checkpoint")
    assert not list((place / "replayed").glob("*"))  # of use for one fit
    # A state that comes before the judge is known waits for it.
    _, others = introduced(models, tmp_path / "other")
    again = build("world_models", "co-evolving", world_args(models))
    again.load_state_dict(world.state_dict())
    again.attach(others)
    assert all(torch.equal(weights(others)[name], saved[name]) for name in saved)


def test_a_refinement_that_was_cut_short_goes_on(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world, parts = introduced(models, tmp_path / "run")
    start = world.state_dict()

    class Killed(BaseException):
        pass

    def killed(self: object, key: str, new: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(CoEvolvingWorld, "take", killed)
        refine(world, parts.policy, parts.config, tmp_path / "run", 1)
    fitted = tmp_path / "run/refinements/iteration-000001/world_model/checkpoint/model.safetensors"
    written = fitted.stat().st_mtime_ns
    # What was executed and fitted is not done again, ...
    again, parts = introduced(models, tmp_path / "run")
    again.load_state_dict(start)
    with monkeypatch.context() as patch:
        patch.setattr(refinement, "execute", None)
        refine(again, parts.policy, parts.config, tmp_path / "run", 1)
    assert fitted.stat().st_mtime_ns == written
    # ... unless it had another beginning.
    other, parts = introduced(models, tmp_path / "run")
    next(parts.policy.parameters()).data.add_(0.5)
    refine(other, parts.policy, parts.config, tmp_path / "run", 1)
    assert fitted.stat().st_mtime_ns != written


def test_a_judge_that_cannot_be_refitted_is_one_error(models: Path, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"reward_model=first-hit \(FirstHit, RandomReward\), no judges can be refitted"
    ):
        introduced(models, tmp_path, judge_args(models, "random"))
    world, _ = introduced(models, tmp_path, judge_args(models, "random"), judge=None)
    assert list(world.learners()) == ["world_model"]


def test_environments_that_say_nothing_of_success_cannot_teach_it(models: Path, tmp_path: Path, monkeypatch):
    world, parts = introduced(models, tmp_path)
    executed = refinement.execute

    def silent(*given: object) -> list:
        return [replace(rollout, outcome_S=None) for rollout in executed(*given)]

    monkeypatch.setattr(refinement, "execute", silent)
    with pytest.raises(DataError, match="do not say whether the policy succeeded"):
        refine(world, parts.policy, parts.config, tmp_path, 1)


SCRIPT = """
import json
import sys
sys.path[:0] = [{tests!r}, {package!r}]
import conftest
conftest.register()
import gymnast_wovr.callback as callback
def after(self, trainer, module, *rest):
    world = module._parts.world_model
    sums = [float(sum(value.double().abs().sum() for value in learner.live.module().state_dict().values()))
            for learner in world.learners().values()]
    with open(f"rank-{{trainer.global_rank}}", "a") as file:
        print(json.dumps([module.iteration, world.refined, world.recorded, sums]), file=file)
callback.CoEvolution.on_train_batch_end = after
from gymnast_core.cli import main
main()
"""


def test_in_two_processes_one_fits_and_both_have_it(models: Path, tmp_path: Path):
    script = tmp_path / "gymnast_two.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), package=str(Path(__file__).parents[1])))
    small = overrides(models, tmp_path / "run", judge_args(models))
    done = subprocess.run(
        [sys.executable, str(script), "train", *small, "trainer.devices=2", "trainer.strategy=ddp"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / f"rank-{rank}").read_text().splitlines() for rank in "01")
    assert one == two
    before, after = (json.loads(line) for line in one[:2])
    assert before[:3] == [1, None, []] and after[:3] == [2, 1, [1]]
    assert all(x != y for x, y in zip(before[3], after[3], strict=True))
    state = load_latest_snapshot(tmp_path / "run/snapshots")
    assert state is not None and state["components"]["world_model"]["judge"] is not None
