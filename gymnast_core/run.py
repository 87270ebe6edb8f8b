"""`gymnast train`: config -> components -> lightning.Trainer -> run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from gymnast_core.config import RunConfig, load_config, to_yaml
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.hooks import plugin_manager
from gymnast_core.loop import Components, ReinforcementLoop
from gymnast_core.registry import registries
from gymnast_core.snapshot import create_run_folder, default_run_path, load_latest_snapshot, write_json
from gymnast_core.trainer import build_trainer


def build_components(config: RunConfig) -> Components:
    """Build every part of a run. Raises `ConfigError`, `PluginError`, `DataError` or `CheckpointError`."""
    known = registries()
    optimizer = known.optimizers.build(config.optimizer.name, config.optimizer.args)
    demonstrations: Sequence[Any] = ()
    if optimizer.demonstrations_per_rollout:
        if config.demonstrations is None:
            raise ConfigError(
                f"The optimizer {config.optimizer.name!r} mixes in demonstrations; set demonstrations.name and .args."
            )
        part = config.demonstrations
        demonstrations = known.datasets.build(part.name, part.args).episodes()
    tasks = known.datasets.build(config.tasks.name, config.tasks.args).tasks()
    if not len(tasks):
        raise DataError(f"The dataset {config.tasks.name!r} holds no tasks.")
    return Components(
        policy=known.policies.build(config.policy.name, config.policy.args),
        world_model=known.world_models.build(config.world_model.name, config.world_model.args),
        reward_model=known.reward_models.build(config.reward_model.name, config.reward_model.args),
        optimizer=optimizer,
        tasks=tasks,
        demonstrations=demonstrations,
    )


def train(config: RunConfig | None, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or continue a training. Returns the summary that is also written to summary.json.

    With `resume` and no `config`, the run folder's own config is used. The result is the same, bit for bit, as that of
    a run that was never interrupted (same machine, same number of threads).
    """
    began = time.monotonic()
    state = None
    if resume is not None:
        if not (resume / "config.yaml").exists():
            raise ConfigError(f"{resume} is not a run folder: it has no config.yaml.")
        config = replace(config or load_config(RunConfig, str(resume / "config.yaml")), output=str(resume))
        state = load_latest_snapshot(resume / "snapshots")
    else:
        assert config is not None
        if config.output is None:
            config = replace(config, output=str(default_run_path(config.policy.name)))
    assert config.output is not None
    parts, folder, hook = build_components(config), Path(config.output), plugin_manager().hook
    if resume is None:
        create_run_folder(folder, to_yaml(config))

    def evaluate(label: str, iteration: int) -> dict[str, Any]:
        found = hook.gymnast_evaluate(config=config, policy=parts.policy, label=label, iteration=iteration)
        return {key: value for part in found for key, value in part.items()}

    loop = ReinforcementLoop(config, parts, folder, hook, evaluate)
    done = state["iteration"] if state else 0
    hook.gymnast_run_started(config=config, title="Training", step=done, total=config.loop.iterations, unit="iteration")
    try:
        before = evaluate("before", 0)
        if state is not None:
            loop.restore(state)
        _learn(config, loop, hook)
        parts.policy.eval().cpu()
        parts.policy.save(folder / "policy")
        after = evaluate("after", loop.iteration)
    finally:
        hook.gymnast_run_stopped(config=config)
        parts.world_model.close()
        parts.reward_model.close()
    summary: dict[str, Any] = {"output": str(folder), "iterations": loop.iteration, "updates": loop.updates}
    summary["seconds"] = time.monotonic() - began
    if after:
        summary |= {"before": before, "after": after, "difference": after.pop("difference")}
    write_json(folder / "summary.json", summary)
    hook.gymnast_run_done(config=config, summary=summary)
    return summary


def _learn(config: RunConfig, loop: ReinforcementLoop, hook: Any) -> None:
    total = config.loop.iterations
    if loop.iteration >= total:
        return
    callbacks = [callback for found in hook.gymnast_callbacks(config=config) for callback in found]
    trainer = build_trainer(config.trainer, callbacks)
    numbers = DataLoader(range(loop.iteration, total), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(loop, numbers)
