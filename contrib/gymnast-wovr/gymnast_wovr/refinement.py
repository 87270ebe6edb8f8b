"""One refinement of a co-evolving world model: the policy acts for real, and the world model learns from it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from gymnast_core.config import RunConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Policy
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Episode, Rollout, Task
from torch import nn

from gymnast_wovr.co_evolving import CoEvolvingWorld

log = logging.getLogger(__name__)


def refine(world: CoEvolvingWorld, policy: Policy, run: RunConfig, iteration: int) -> dict[str, Any]:
    """Refine the world model before that iteration; returns numbers by name.

    Everything random comes from the run's seed and the iteration. The policy is not changed.
    """
    began = time.monotonic()
    rollouts = execute(world, policy, run, iteration)
    executed = time.monotonic()
    losses = fit(world, [as_episode(rollout, iteration) for rollout in rollouts], run, iteration)
    world.refined = iteration
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

    An episode that only stands still at its end loses those frames, too, but for the first.
    """
    frames_TVHWC, end, proprio_TP = rollout.frames_TVHWC, rollout.horizon, rollout.proprio_TP
    while end > 1 and torch.equal(frames_TVHWC[end], frames_TVHWC[end - 1]):
        end -= 1
    return Episode(
        id=f"evolve-{iteration:06d}/{rollout.task.id}",
        instruction=rollout.task.instruction,
        frames_TVHWC=frames_TVHWC[: end + 1],
        cameras=rollout.cameras,
        actions_TA=rollout.actions_NLA.flatten(0, 1)[:end],
        proprio_TP=None if proprio_TP is None else proprio_TP[: end + 1],
        success=None if rollout.outcome is None else rollout.outcome >= 0.5,
    )


def fit(world: CoEvolvingWorld, new: Sequence[Episode], run: RunConfig, iteration: int) -> list[float]:
    """Take the gradient steps; the loss of each. The network is left in evaluation mode, without gradients."""
    config, module, recorded = world.config, world.module(), world.recorded()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise ConfigError(f"The world model {config.world_model.name!r} has no parameters that can be trained.")
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=0.0)
    old = round(config.recorded_share * config.batch_size) if len(recorded) else 0
    losses = []
    module.train()
    try:
        for step in range(config.steps):
            generator = seeded_generator(run.seed, "evolve", "fit", iteration, step)
            batch = _draw(new, config.batch_size - old, generator) + _draw(recorded, old, generator)
            with torch.enable_grad():
                loss = world.training_loss(batch, generator=generator).mean
                loss.backward()
            norm = nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            if not torch.isfinite(norm):
                raise DataError(
                    f"The gradient of the world model became {float(norm)} at step {step} of its refinement before "
                    f"iteration {iteration}. Lower world_model.args.learning_rate ({config.learning_rate})."
                )
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate_factor(step, config.steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
    finally:
        module.eval()
    log.info("World model refined before iteration %d: loss %.4g to %.4g.", iteration, losses[0], losses[-1])
    return losses


def rate_factor(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: up over the first tenth of the steps, down along a half cosine."""
    warmup = steps // 10
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _draw(episodes: Sequence[Episode], count: int, generator: torch.Generator) -> list[Episode]:
    if not count:
        return []
    indices = torch.randint(len(episodes), (count,), generator=generator).tolist()
    return [episodes[index] for index in indices]
