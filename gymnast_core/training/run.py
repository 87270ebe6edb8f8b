"""`gymnast train`: config -> components -> lightning.Trainer -> run folder."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning import Trainer

from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.errors import ConfigError, DataError, GymnastError
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.hooks import Notify, call_each, plugin_manager
from gymnast_core.plugins.registry import Registry
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.folder import open_run_folder
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.training.loop import Components, ReinforcementLoop
from gymnast_core.training.processes import together
from gymnast_core.training.trainer import build_trainer
from gymnast_core.types import Episode

T = TypeVar("T")
_ADVICE = "set loop.micro_batch_size lower. Go on from the last snapshot with gymnast train --resume RUN."


def build_components(config: RunConfig, done: int | None = 0) -> Components:
    """Build every part of a run, `done` iterations of which are behind (None: do not ask what the rest costs)."""
    known = registries()

    def build(registry: Registry[T], key: str) -> T:
        part: ComponentConfig = getattr(config, key)
        return registry.build(part.name, part.args, key=key)

    optimizer, reward_model = build(known.optimizers, "optimizer"), build(known.reward_models, "reward_model")
    if done is not None:
        groups = (config.loop.iterations - done) * config.loop.tasks_per_iteration
        reward_model.preflight(groups * optimizer.group_size, 1 + config.loop.horizon)
    demonstrations: Sequence[Episode] = ()
    if optimizer.demonstrations_per_rollout:
        if config.demonstrations is None:
            raise ConfigError(
                f"The optimizer {config.optimizer.name!r} mixes in demonstrations; set demonstrations.name and .args."
            )
        demonstrations = build(known.datasets, "demonstrations").episodes()
    tasks = build(known.datasets, "tasks").tasks()
    if not len(tasks):
        raise DataError(f"The dataset {config.tasks.name!r} holds no tasks.")
    policy, world_model = build(known.policies, "policy"), build(known.world_models, "world_model")
    return Components(policy, world_model, reward_model, optimizer, tasks, demonstrations)


def train(config: RunConfig | None, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or continue a training. Returns the summary that is also written to summary.json.

    With `resume` and no `config`, the run folder's own config is used. The result is the same, bit for bit, as that of
    a run that was never interrupted (same machine, same number of threads and processes). Of several processes, the
    leader alone evaluates, tells and writes; the others return {}.
    """
    state = load_latest_snapshot(resume / "snapshots") if resume else None
    config = config or load_config(RunConfig, f"{resume}/config.yaml")
    found = call_each("gymnast_callbacks", passing=(GymnastError,), config=config)
    callbacks = [callback for part in found for callback in part or ()]
    trainer = build_trainer(config.trainer, callbacks)
    with together(trainer, _ADVICE):
        if trainer.is_global_zero:
            return _lead(config, trainer, state, resume)
        parts = build_components(config, None)
        ReinforcementLoop(config, parts, Path(), Notify(silent=True), lambda *_: None).run(trainer, state)
        return {}


def _lead(config: RunConfig, trainer: Trainer, state: dict[str, Any] | None, resume: Path | None) -> dict[str, Any]:
    began = time.monotonic()
    done, hook, tell = state["iteration"] if state else 0, plugin_manager().hook, Notify()
    parts = build_components(config, done)
    config, folder = open_run_folder(config, config.policy.name, resume)

    def evaluate(label: str, iteration: int) -> dict[str, Any]:
        found = hook.gymnast_evaluate(config=config, policy=parts.policy, label=label, iteration=iteration)
        return {key: value for part in found for key, value in part.items()}

    loop = ReinforcementLoop(config, parts, folder, tell, evaluate)
    tell.gymnast_run_started(config=config, title="Training", step=done, total=config.loop.iterations, unit="iteration")
    loop.check(trainer.world_size)
    try:
        before = evaluate("before", 0)
        loop.run(trainer, state)
        parts.policy.eval().cpu()
        parts.policy.save(folder / "policy")
        after = evaluate("after", loop.iteration)
    finally:
        tell.gymnast_run_stopped(config=config)
        parts.world_model.close()
        parts.reward_model.close()
    summary: dict[str, Any] = {"output": str(folder), "iterations": loop.iteration, "updates": loop.updates}
    summary["seconds"] = time.monotonic() - began
    if after:
        summary |= {"before": before, "after": after, "difference": after.pop("difference")}
    write_json(folder / "summary.json", summary)
    tell.gymnast_run_done(config=config, summary=summary)
    return summary
