"""One refinement of a run's world model and judge: the policy acts for real, and both go on learning from it.

They learn as in a round of `gymnast dyna`: `gymnast_dyna.refit` makes a run of `gymnast fit` of each, on all that was
recorded so far. RUN/refinements/iteration-N keeps what was executed, and those runs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from gymnast_core.config import RunConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Policy
from gymnast_core.plugins.compose import registries
from gymnast_core.reading import read_object
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.runs.atomic import atomic_directory, storing, write_json
from gymnast_core.seeds import seed_of, seeded_generator
from gymnast_core.success import is_success
from gymnast_core.training.unchanging import fingerprint_of
from gymnast_core.types import Episode, Rollout, Task
from gymnast_dyna.config import RefitConfig
from gymnast_dyna.refit import SECTIONS, Refit, loaded_from
from gymnast_episodes.losses import checked
from gymnast_episodes.writers import STAGING, WriterOptions, load_writer
from torch import nn

from gymnast_wovr.clips import length
from gymnast_wovr.co_evolving import KEY, CoEvolvingWorld

FOLDER, EPISODES, EXECUTED, BEGUN, REPORT = "refinements", "episodes", "executed.json", "begun.json", "refinement.json"
FORMAT = "lerobot-v3"
FRAMES_A_SECOND = 5.0
"""What recordings say, for players of video: nobody knows how long a control step of an environment takes."""


def place(run_folder: Path, iteration: int) -> Path:
    """What is kept of the refinement before that iteration."""
    return run_folder / FOLDER / f"iteration-{iteration:06d}"


def refine(world: CoEvolvingWorld, policy: Policy, run: RunConfig, run_folder: Path, iteration: int) -> dict[str, Any]:
    """Refine what the world model's config says before that iteration; returns numbers by name.

    Everything random comes from the run's seed and the iteration. A refinement that was cut short goes on where it
    stopped, if it had begun from the same policy, world model and judge. The policy is not changed.
    """
    began, folder = time.monotonic(), place(run_folder.resolve(), iteration)
    _begin(folder, world, policy, run)
    if not (folder / EPISODES).exists():
        _record(folder, execute(world, policy, run, iteration), iteration)
    executed, recorded_at = read_object(folder / EXECUTED).values, time.monotonic()
    if world.config.judge is not None and executed["executed_success"] is None:
        raise DataError(
            f"The environments do not say whether the policy succeeded ({folder / EXECUTED}), so the judge cannot be "
            "refitted. Set world_model.args.judge=null, or environment.args so that they do (success_key)."
        )
    world.recorded = [*world.recorded, iteration]
    report = {"iteration": iteration, **executed, "seconds_executing": recorded_at - began}
    for refit in refits(world, run, run_folder, iteration):
        report[refit.key] = _refit(world, refit)
    world.refined = iteration
    report["seconds_fitting"] = time.monotonic() - recorded_at
    write_json(folder / REPORT, report)
    return report


def execute(world: CoEvolvingWorld, policy: Policy, run: RunConfig, iteration: int) -> list[Rollout]:
    """The policy's rollouts in the tasks' environments."""
    config = world.config
    generator = seeded_generator(run.seed, "evolve", "tasks", iteration)
    return imagine(
        policy,
        world.environment(),
        choose_tasks(world.tasks(), config.rollouts, generator),
        horizon=run.loop.horizon,
        temperature=run.loop.temperature if config.temperature is None else config.temperature,
        generator=seeded_generator(run.seed, "evolve", "execute", iteration),
        batch_size=config.environment_batch,
    )


def choose_tasks(tasks: Sequence[Task], count: int, generator: torch.Generator) -> list[Task]:
    """Tasks that an environment stands behind, in random order, none twice before each was once.

    Raises `DataError` if there is none.
    """
    chosen: list[Task] = []
    while len(chosen) < count:
        before = len(chosen)
        for index in torch.randperm(len(tasks), generator=generator).tolist():
            task = tasks[index]
            if task.start is not None:
                chosen.append(task)
                if len(chosen) == count:
                    break
        if len(chosen) == before:
            raise DataError(
                f"None of the {len(tasks)} tasks names an environment, so the policy cannot act for real. "
                "Set world_model.args.tasks to a dataset whose tasks do, or leave out the co-evolving world model."
            )
    return chosen


def as_episode(rollout: Rollout, iteration: int) -> Episode:
    """What happened, without the frames that an environment repeats once it has ended.

    Where it does not say that it ended, an episode that only stands still at its end loses those frames, too, but for
    the first.
    """
    frames_TVHWC, end, proprio_TP = rollout.frames_TVHWC, length(rollout), rollout.proprio_TP
    while rollout.ended_after is None and end > 1 and torch.equal(frames_TVHWC[end], frames_TVHWC[end - 1]):
        end -= 1
    return Episode(
        id=f"evolve-{iteration:06d}/{rollout.task.id}",
        instruction=rollout.task.instruction,
        frames_TVHWC=frames_TVHWC[: end + 1],
        cameras=rollout.cameras,
        actions_TA=rollout.actions_NLA.flatten(0, 1)[:end],
        proprio_TP=None if proprio_TP is None else proprio_TP[: end + 1],
        success=None if rollout.outcome is None else is_success(rollout.outcome),
    )


def refits(world: CoEvolvingWorld, run: RunConfig, run_folder: Path, iteration: int) -> list[Refit]:
    """What goes on learning, in order: the world model, then the judge, which may be shown the refitted one.

    Both begin with the weights in use, which are written down for it.
    """
    folder = place(run_folder.resolve(), iteration)
    recordings = [_recording(run_folder.resolve(), number) for number in world.recorded]
    seen = loaded_from(world.config.world_model, folder / "world_model" / "checkpoint")
    found = []
    for key, learner in world.learners().items():
        how = _on(world.how(key), learner.live.module())
        with storing(folder):
            learner.live.save(start := folder / "start" / key)
        part, section = loaded_from(learner.part, start), f"{KEY}.{SECTIONS[key]}"
        seed = seed_of(run.seed, "evolve", "refit", iteration)
        found.append(Refit(how, key, part, seen, recordings, seed, folder / key, section))
    return found


def _on(how: RefitConfig, network: nn.Module) -> RefitConfig:
    """Fitted where it is used, unless the config says otherwise."""
    device = next(network.parameters()).device
    ours: dict[str, Any] = {"accelerator": "cpu"}
    if device.type == "cuda":
        ours = {
            "accelerator": "gpu",
            "devices": [torch.cuda.current_device() if device.index is None else device.index],
        }
    return replace(how, fit={**how.fit, "trainer": {**ours, **(how.fit.get("trainer") or {})}})


def _refit(world: CoEvolvingWorld, refit: Refit) -> dict[str, Any]:
    """Fit one, and let the live one have the weights; what the validation says."""
    learned = refit.work()
    registry = registries().world_models if refit.key == "world_model" else registries().reward_models
    fresh: Any = registry.build(learned.name, learned.args, key=refit.section)
    world.take(refit.key, fresh.module().state_dict())
    fresh.close()
    for unneeded in (refit.folder / "snapshots", refit.folder.parent / "start" / refit.key, *refit.replays()):
        shutil.rmtree(unneeded, ignore_errors=True)
    return {"steps": read_object(refit.folder / "summary.json").values["steps"], **refit.quality()}


def _begin(folder: Path, world: CoEvolvingWorld, policy: Policy, run: RunConfig) -> None:
    """Remove what another beginning left in the folder, and write down what this one begins with."""
    known = {"folder": str(folder), "config": repr(asdict(world.config)), "seed": run.seed, "recorded": world.recorded}
    known["policy"] = fingerprint_of(policy.state_dict())
    known |= {key: fingerprint_of(learner.live.module().state_dict()) for key, learner in world.learners().items()}
    path = folder / BEGUN
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) == known:
        return
    shutil.rmtree(folder, ignore_errors=True)
    with storing(folder):
        folder.mkdir(parents=True)
    write_json(path, known)


def _record(folder: Path, rollouts: Sequence[Rollout], iteration: int) -> None:
    """Keep what was executed as a recording without losses, and numbers of it; what the environments lost is no part of
    it. Raises `DataError` if they lost everything."""
    kept = [rollout for rollout in rollouts if rollout.error is None]
    if not kept:
        raise DataError(
            f"The environments lost all {len(rollouts)} rollouts before iteration {iteration}, so there is nothing to "
            f"learn from. The first error: {rollouts[0].error}"
        )
    episodes = [replace(as_episode(rollout, iteration), fps=FRAMES_A_SECOND) for rollout in kept]
    known = [rollout.outcome for rollout in kept if rollout.outcome is not None]
    success = sum(known) / len(known) if known else None
    lost = len(rollouts) - len(kept)
    write_json(folder / EXECUTED, {"rollouts": len(kept), "lost": lost, "executed_success": success})
    with atomic_directory(folder / EPISODES) as root:
        (root / STAGING).mkdir()
        writer = load_writer(FORMAT)(root, WriterOptions(frames="png"), [])
        writer.finish([writer.write(number, checked(episode)) for number, episode in enumerate(episodes)])
        shutil.rmtree(root / STAGING)


def _recording(run_folder: Path, iteration: int) -> Path:
    path = place(run_folder, iteration) / EPISODES
    if not path.exists():
        raise DataError(f"{path} is gone: what the policy did there is learned from again. Put it back.")
    return path
