"""One refinement of a co-evolving world model: the policy acts for real, and the world model learns from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from gymnast_core.config import ComponentConfig, RunConfig
from gymnast_core.config.typed import typed
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Policy, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode, Rollout, Task
from gymnast_fit.config import FitLoopConfig
from gymnast_fit.optimizers import learning_rate_factor
from torch import nn

from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.keyframe_tasks import KeyframeTasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Materials:
    """What refinements draw from; built once a run."""

    environment: WorldModel
    tasks: Sequence[Task]
    recorded: Sequence[Episode]


def gather_materials(run: RunConfig, config: CoEvolvingWorld.Config) -> Materials:
    """Raises `DataError` for recorded episodes that there are none of."""
    known = registries()
    key, part = _task_source(run, config)
    tasks = known.datasets.build(part.name, part.args, key=key).tasks()
    recorded: Sequence[Episode] = ()
    if config.recorded is not None:
        key = "world_model.args.recorded"
        recorded = known.datasets.build(config.recorded.name, config.recorded.args, key=key).episodes()
        if not len(recorded):
            raise DataError(f"{key}: the dataset {config.recorded.name!r} holds no episodes.")
    environment = known.world_models.build(
        config.environment.name, config.environment.args, key="world_model.args.environment"
    )
    return Materials(environment, tasks, recorded)


def refine(
    world: CoEvolvingWorld, policy: Policy, materials: Materials, run: RunConfig, iteration: int
) -> dict[str, Any]:
    """Refine the world model before that iteration; returns numbers by name.

    Everything random comes from the run's seed and the iteration. The policy is not changed.
    """
    began = time.monotonic()
    rollouts = execute(world.config, policy, materials, run, iteration)
    executed = time.monotonic()
    losses = fit(world, [as_episode(rollout, iteration) for rollout in rollouts], materials.recorded, run, iteration)
    known = [rollout.outcome for rollout in rollouts if rollout.outcome is not None]
    tenth = max(len(losses) // 10, 1)
    return {
        "iteration": iteration,
        "rollouts": len(rollouts),
        "executed_success": sum(known) / len(known) if known else None,
        "steps": len(losses),
        "loss_first_tenth": sum(losses[:tenth]) / tenth,
        "loss_last_tenth": sum(losses[-tenth:]) / tenth,
        "seconds_executing": executed - began,
        "seconds_fitting": time.monotonic() - executed,
    }


def execute(
    config: CoEvolvingWorld.Config, policy: Policy, materials: Materials, run: RunConfig, iteration: int
) -> list[Rollout]:
    """The policy's rollouts in the tasks' environments."""
    chosen = choose_tasks(materials.tasks, config.rollouts, seeded_generator(run.seed, "evolve", "tasks", iteration))
    return imagine(
        policy,
        materials.environment,
        chosen,
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
            if task.environment is not None and task.seed is not None:
                chosen.append(task)
                if len(chosen) == count:
                    break
        if len(chosen) == before:
            raise DataError(
                f"None of the {len(tasks)} tasks names an environment and a seed, so the policy cannot act for real. "
                "Set world_model.args.tasks to a dataset whose tasks do, or leave out the co-evolving world model."
            )
    return chosen


def as_episode(rollout: Rollout, iteration: int) -> Episode:
    """What happened, without the frames that an environment repeats once it has ended.

    An episode that only stands still at its end loses those frames, too, but for the first.
    """
    frames_THWC, end = rollout.frames_THWC, rollout.horizon
    while end > 1 and torch.equal(frames_THWC[end], frames_THWC[end - 1]):
        end -= 1
    return Episode(
        id=f"evolve-{iteration:06d}/{rollout.task.id}",
        instruction=rollout.task.instruction,
        frames_THWC=frames_THWC[: end + 1],
        actions_TA=rollout.actions_NLA.flatten(0, 1)[:end],
        success=None if rollout.outcome is None else rollout.outcome >= 0.5,
    )


def fit(
    world: CoEvolvingWorld, new: Sequence[Episode], recorded: Sequence[Episode], run: RunConfig, iteration: int
) -> list[float]:
    """Take the gradient steps; the loss of each. The network is left in evaluation mode, without gradients."""
    config, module = world.config, world.module()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ConfigError(f"The world model {config.world_model.name!r} has no parameters that can be trained.")
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    schedule = FitLoopConfig(steps=config.steps, warmup_steps=config.steps // 10, decay="cosine")
    old = round(config.recorded_share * config.batch_size) if len(recorded) else 0
    losses = []
    module.train()
    try:
        for step in range(config.steps):
            generator = seeded_generator(run.seed, "evolve", "fit", iteration, step)
            batch = _draw(new, config.batch_size - old, generator) + _draw(recorded, old, generator)
            with torch.enable_grad():
                loss = world.training_loss(batch, generator=generator)
                loss.value.backward()
            norm = nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            if not torch.isfinite(norm):
                raise DataError(
                    f"The gradient of the world model became {float(norm)} at step {step} of its refinement before "
                    f"iteration {iteration}. Lower world_model.args.learning_rate ({config.learning_rate})."
                )
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, schedule)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.value.detach()))
    finally:
        module.eval()
    log.info("World model refined before iteration %d: loss %.4g to %.4g.", iteration, losses[0], losses[-1])
    return losses


def _task_source(run: RunConfig, config: CoEvolvingWorld.Config) -> tuple[str, ComponentConfig]:
    """The dataset of the tasks to execute, and its place in the config."""
    if config.tasks is not None:
        return "world_model.args.tasks", config.tasks
    if run.tasks.name == "keyframe-tasks":
        # No environment stands behind keyframes, and choosing them again could cost a judge's fee.
        first = typed(KeyframeTasks.Config, run.tasks.args, "tasks.args").first
        if first is not None:
            return "tasks.args.first", first
    return "tasks", run.tasks


def _draw(episodes: Sequence[Episode], count: int, generator: torch.Generator) -> list[Episode]:
    if not count:
        return []
    indices = torch.randint(len(episodes), (count,), generator=generator).tolist()
    return [episodes[index] for index in indices]
