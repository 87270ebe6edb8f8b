"""The three parts together, through `gymnast train`, with models of random weights."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import load_tasks, registries
from gymnast_core.plugins.events import StepDone
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.runs.snapshot import load_latest_snapshot, load_snapshot, save_snapshot
from gymnast_core.testing.world_model import check_world_model
from gymnast_core.types import EnvironmentStart, Task
from wovr_parts import build, make_rollout

from gymnast_wovr.callback import refinements
from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.refinement import _record, as_episode, choose_tasks, refine, refits

SMALL = [
    "optimizer.name=masked-grpo",
    "optimizer.args={group_size: 3, minibatch_size: 4, accuracy_bounds: [0.01, 0.99], learning_rate: 1.0e-3}",
    "reward_model.name=first-hit",
    "reward_model.args={every: 2, reward_model: {name: random, args: {probability: 0.3}}}",
    "loop.iterations=4",
    "loop.tasks_per_iteration=3",
    "loop.groups_per_update=2",
    "loop.max_draws=2",
    "loop.horizon=4",
    "evaluation.tasks=null",
]
FIT = {"fit": {"fit": {"steps": 4, "batch_size": 3, "warmup_steps": 1, "learning_rate": 1e-3}}}
FIRST = "{name: tabletop, args: {count: 6, horizon: 4, image_size: 32}}"


def world_args(models: Path, **args) -> dict:
    inner = {"name": "worldgym", "args": {"checkpoint": str(models / "world")}}
    small = {"at": [1], "rollouts": 3, "environment_batch": 2, "world": FIT}
    return {"world_model": inner, **small, **args}


def arguments(models: Path, run: Path, *changes: str, tasks: str = FIRST) -> list[str]:
    """Of a training whose world model is refined before its iterations 1 and 3, on the tabletop."""
    return [
        "tabletop",
        *SMALL,
        "world_model.name=co-evolving",
        f"world_model.args={json.dumps(world_args(models, at=[1, 3]))}",
        f"policy.args.checkpoint={models / 'policy'}",
        "policy.args.chunk_length=2",
        f"tasks={tasks}",
        f"output={run}",
        *changes,
    ]


@pytest.fixture(scope="module")
def uninterrupted(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gymnast", "train", *arguments(models, run)])
        from gymnast_core import cli

        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code
    return run


def test_the_world_model_is_refined_when_it_should_be_and_kept(uninterrupted: Path, models: Path):
    assert refinements(uninterrupted) == [1, 3]
    report = json.loads((uninterrupted / "refinements/iteration-000003/refinement.json").read_text())
    assert (report["rollouts"], report["world_model"]["steps"], report["iteration"]) == (3, 4, 3)
    assert 0.0 <= report["executed_success"] <= 1.0
    # What is kept is a checkpoint of the inner world model, and each differs from the one before.
    weights = [
        build("world_models", "worldgym", {"checkpoint": str(folder)})
        .module()
        .state_dict()["final_layer.linear.weight"]
        for folder in (models / "world", *sorted(uninterrupted.glob("refinements/*/world_model/checkpoint")))
    ]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    # The second one learned from what was recorded before both.
    fitted = yaml.safe_load((uninterrupted / "refinements/iteration-000003/world_model/config.yaml").read_text())
    paths = [Path(part["args"]["path"]).parent.name for part in fitted["episodes"]["args"]["of"]]
    assert paths == ["iteration-000001", "iteration-000003"]


def columns(run: Path) -> dict[str, list[str]]:
    """What a run measured of its updates, an entry an iteration; empty where there was none."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in ("policy_loss", "after_first_hit")}


def test_actions_after_a_first_hit_were_left_out_of_the_updates(uninterrupted: Path):
    measured = columns(uninterrupted)
    assert len(measured["after_first_hit"]) == 4
    assert any(float(share) > 0.0 for share in measured["after_first_hit"] if share)


def test_a_snapshot_keeps_when_the_rollouts_that_wait_succeeded(
    models: Path, tmp_path: Path, train: Callable[..., None]
):
    run = tmp_path / "run"
    train(*arguments(models, run, "loop.iterations=1", "loop.groups_per_update=1", "loop.tasks_per_iteration=6"))
    snapshot = load_snapshot(run / "snapshots")
    assert snapshot is not None
    (state,) = snapshot.processes
    rewards = [reward for group in state["waiting"] for reward in group["rewards"]]
    assert rewards and any(reward["finish_step"] is not None for reward in rewards)


def met(world, policy, run: RunConfig):
    """The world, introduced to a run."""
    world.attach(Parts(policy=policy, world_model=world, tasks=load_tasks(run.tasks), config=run))
    return world


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_the_world_in_use_is_the_one_that_was_saved(compute_dtype: str, models: Path, tmp_path: Path):
    run = load_config(RunConfig, "tabletop", arguments(models, tmp_path / "run")[1:])
    args = world_args(models)
    args["world_model"]["args"]["compute_dtype"] = compute_dtype
    policy = build("policies", "openvla-oft", {"checkpoint": str(models / "policy"), "chunk_length": 2})
    world = met(build("world_models", "co-evolving", args), policy, run)
    world.step(world.reset(world.tasks()[:1]), torch.zeros(1, 1, 2))  # what it keeps must not outlive the weights
    assert world.state_dict() == {
        "refined": None, "recorded": [], "weights": None, "judge": None, "inner": {},
    }  # fmt: skip
    refine(world, policy, run, tmp_path / "world", 1)
    world.save(tmp_path / "saved")
    again = build("world_models", "co-evolving", args)
    again.load_state_dict(world.state_dict())
    assert again.refined == 1
    fresh = build("world_models", "worldgym", {"checkpoint": str(tmp_path / "saved"), "compute_dtype": compute_dtype})
    frames = []
    for model in (world, again, fresh):
        state = model.reset(world.tasks()[:1], generator=torch.Generator().manual_seed(0))
        frames.append(model.step(state, torch.full((1, 3, 2), 0.01)).frames_BLVHWC)
    assert torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])
    assert not world.module().training and all(p.grad is None for p in world.module().parameters())
    # The same seed, the same refinement; another iteration, another one.
    twin, other = (met(build("world_models", "co-evolving", args), policy, run) for _ in range(2))
    refine(twin, policy, run, tmp_path / "twin", 1)
    refine(other, policy, run, tmp_path / "other", 2)
    name = "final_layer.linear.weight"
    ours = world.module().state_dict()[name]
    assert torch.equal(ours, twin.module().state_dict()[name])
    assert not torch.equal(ours, other.module().state_dict()[name])
    for one in (world, again, twin, other):
        one.close()


def test_no_refinement_of_a_seed_draws_what_one_of_another_seed_draws(models: Path, tmp_path: Path):
    run = load_config(RunConfig, "tabletop", arguments(models, tmp_path / "run")[1:])
    policy = build("policies", "openvla-oft", {"checkpoint": str(models / "policy"), "chunk_length": 2})
    world = met(build("world_models", "co-evolving", world_args(models)), policy, run)
    seeds = [
        refit.seed
        for seed in range(3)
        for iteration in (1, 2, 3)
        for refit in refits(world, replace(run, seed=seed), tmp_path / f"{seed}", iteration)
        if refit.key == "world_model"
    ]
    world.close()
    assert len(set(seeds)) == 9


class Killed(BaseException):
    """As by a signal: nothing may catch it."""


class Killer:
    """A hook plugin that ends the run after the updates of its iteration `step` (from 1), before their snapshot."""

    def __init__(self, step: int) -> None:
        self.step = step

    def gymnast_metrics(self, event: StepDone) -> None:
        if event.step == self.step:
            raise Killed


@pytest.mark.parametrize("step", [2, 3])
def test_a_run_that_is_resumed_ends_like_one_that_was_not_interrupted(
    step: int, uninterrupted: Path, models: Path, tmp_path: Path, train: Callable[..., None]
):
    run, killer = tmp_path / "run", Killer(step)
    plugin_manager().add(killer, "killer")
    try:
        with pytest.raises((Killed, SystemExit)):
            train(*arguments(models, run))
    finally:
        plugin_manager().unregister(killer)
    assert refinements(run) == [1] and not (run / "policy").exists()
    # A refinement of a later iteration, left by a process that was killed before its snapshot, is not for this one;
    # those of earlier ones are in the snapshot, whatever became of their folders.
    shutil.rmtree(run / "refinements/iteration-000001/world_model")
    shutil.copytree(run / "refinements/iteration-000001", run / "refinements/iteration-000003")
    train("--resume", run)
    assert columns(run) == columns(uninterrupted)
    final = "policy/model.safetensors"
    assert (run / final).read_bytes() == (uninterrupted / final).read_bytes()
    weights = "refinements/iteration-000003/world_model/checkpoint/model.safetensors"
    assert (run / weights).read_bytes() == (uninterrupted / weights).read_bytes()


def test_keyframes_of_that_run_are_what_the_next_run_starts_from(
    uninterrupted: Path, models: Path, tmp_path: Path, train: Callable[..., None]
):
    args = f"{{first: {FIRST}, runs: [{uninterrupted}], context: 2, lead: 1, still_action: [0.0, 0.0]}}"
    run = tmp_path / "run"
    at_once = f"world_model.args={json.dumps(world_args(models, at=[0]))}"
    tasks = f"{{name: keyframe-tasks, args: {args}}}"
    train(*arguments(models, run, at_once, "loop.iterations=1", tasks=tasks))
    assert refinements(run) == [0]
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None and state["iteration"] == 1
    assert state["components"]["world_model"]["refined"] == 0
    assert (run / "policy").exists()


def test_only_tasks_with_an_environment_are_executed():
    frames_TVHWC = torch.zeros(1, 1, 4, 4, 3, dtype=torch.uint8)
    starts = [EnvironmentStart("E-v0", i) if i % 2 else None for i in range(6)]
    tasks = [Task(str(i), "push", frames_TVHWC, start=start) for i, start in enumerate(starts)]
    chosen = [task.id for task in choose_tasks(tasks, 5, torch.Generator().manual_seed(0))]
    assert sorted(chosen[:3]) == ["1", "3", "5"] and set(chosen) == {"1", "3", "5"} and len(chosen) == 5
    with pytest.raises(DataError, match="None of the 3 tasks names an environment"):
        choose_tasks(tasks[::2], 1, torch.Generator())


def test_the_world_shows_what_the_other_one_shows(models: Path):
    world = build("world_models", "co-evolving", world_args(models))
    assert CoEvolvingWorld.offers(world.config) == world.inner.offers(world.inner.config)


def test_frames_that_an_ended_environment_repeats_are_not_learned_from():
    episode = as_episode(
        make_rollout([1, 2, 2, 3, 3, 3, 3], outcome_S=torch.ones(6), proprio_TP=torch.arange(7.0)[:, None]), 7
    )
    assert episode.view()[:, 0, 0, 0].tolist() == [1, 2, 2, 3]
    assert episode.proprio_TP[:, 0].tolist() == [0, 1, 2, 3] and episode.cameras == ("camera",)
    assert len(episode.actions_TA) == 3 and episode.success is True
    still = as_episode(make_rollout([5, 5, 5]), 7)
    assert len(still.frames_TVHWC) == 2 and still.success is None
    # An environment that says when it ended is believed: standing still is something that a policy did.
    said = as_episode(make_rollout([1, 2, 2, 2, 3], ended_after=3), 7)
    assert said.view()[:, 0, 0, 0].tolist() == [1, 2, 2, 2]


def test_what_the_environments_lost_is_not_learned_from(tmp_path: Path):
    lost = make_rollout([1, 1, 1], error="the simulator crashed", outcome_S=torch.ones(2))
    well = make_rollout([1, 2, 3], seed=1, outcome_S=torch.zeros(2))
    (tmp_path / "some").mkdir()
    _record(tmp_path / "some", [lost, well], 3)
    executed = json.loads((tmp_path / "some/executed.json").read_text())
    assert executed == {"rollouts": 1, "lost": 1, "executed_success": 0.0}
    recorded = registries().datasets.build("lerobot", {"path": str(tmp_path / "some/episodes")}).episodes()
    assert [len(episode.frames_TVHWC) for episode in recorded] == [3]
    with pytest.raises(DataError, match=r"lost all 1 rollouts before iteration 3.*the simulator crashed"):
        _record(tmp_path, [lost], 3)


def test_the_wrapper_keeps_the_contract_of_world_models(models: Path):
    world = build("world_models", "co-evolving", world_args(models))
    assert "episodes with noise of their own are what they are alone" in check_world_model(
        world, image_size=32, action_dim=2
    )
    assert [i for i in range(8) if build("world_models", "co-evolving", world_args(models, every=3)).is_due(i)] == [
        1, 3, 6,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"at": []}, "refines nothing"),
        ({"at": [-1]}, r"at\[0\] is -1"),
        ({"rollouts": 0}, "rollouts is 0"),
        ({"world": {"replayed": True}}, "not from what it imagined"),
        ({"world": {"fit": {"fit": {"stepss": 3}}}}, r"world_model\.args\.world\.fit\.fit\.stepss"),
        ({"judge": {"fit": {"trainer": {"devices": 2}}}}, r"judge\.fit\.trainer\.devices: within a run, one process"),
        ({"world": {"recorded": {"name": "rlds"}}}, r"world\.recorded\.name is rlds"),
        (
            {"world_model": {"name": "gymnasium"}},
            "gymnasium cannot co-evolve: it lacks module, training_loss, save, Config.checkpoint",
        ),
    ],
)
def test_unusable_options_are_refused(args, message, models: Path):
    with pytest.raises(ConfigError, match=message):
        build("world_models", "co-evolving", world_args(models, **args))


def test_a_damaged_snapshot_stops_the_resume_with_one_error(
    uninterrupted: Path, tmp_path: Path, train: Callable[..., None], capsys
):
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    newest = load_snapshot(run / "snapshots")
    del newest.state["components"]["world_model"]["weights"]
    save_snapshot(run / "snapshots", newest.state["iteration"], newest.state, own=newest.processes[0])
    with pytest.raises(SystemExit):
        train("--resume", run)
    error = capsys.readouterr().err
    assert newest.path.name in error and "Traceback" not in error
