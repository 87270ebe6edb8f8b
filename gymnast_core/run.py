"""`gymnast train`: config -> components -> lightning.Trainer -> run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from gymnast_core.config import RunConfig, load_config, to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.evaluation import Evaluation, evaluate, evaluation_from_json, load_tasks, paired_difference
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
    return Components(
        policy=known.policies.build(config.policy.name, config.policy.args),
        world_model=known.world_models.build(config.world_model.name, config.world_model.args),
        reward_model=known.reward_models.build(config.reward_model.name, config.reward_model.args),
        optimizer=optimizer,
        tasks=load_tasks(config.tasks),
        demonstrations=demonstrations,
    )


class _Evaluator:
    """Evaluates the policy in the evaluation world, once per label: a resumed run does not repeat what is done."""

    def __init__(self, config: RunConfig, parts: Components, folder: Path, hook: Any) -> None:
        self.config, self.parts, self.folder, self.hook = config, parts, folder, hook

    def __call__(self, label: str, iteration: int) -> Evaluation | None:
        part, loop = self.config.evaluation, self.config.loop
        if part.tasks is None:
            return None
        file = self.folder / "evaluations" / f"{label}.json"
        if file.exists():
            return evaluation_from_json(json.loads(file.read_text()))
        known = registries()
        world = known.world_models.build(part.world.name, part.world.args)
        judge = known.reward_models.build(part.reward_model.name, part.reward_model.args)
        result, rollouts, rewards = evaluate(
            self.parts.policy, world, judge, load_tasks(part.tasks), label=label,
            names=(part.world.name, part.reward_model.name), horizon=loop.horizon, temperature=part.temperature,
            seed=self.config.seed, iteration=iteration, batch_size=loop.imagine_batch_size,
        )  # fmt: skip
        self.hook.gymnast_evaluation_done(
            config=self.config, label=label, world=part.world.name, rollouts=rollouts, rewards=rewards
        )
        write_json(file, asdict(result))
        world.close()
        judge.close()
        return result


def train(config: RunConfig | None, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or continue a training. Returns the summary that is also written to summary.json.

    With `resume` the run folder's own config is used and `config` must be None. The result is the same, bit for bit,
    as that of a run that was never interrupted (same machine, same number of threads).
    """
    began = time.monotonic()
    state = None
    if resume is not None:
        if not (resume / "config.yaml").exists():
            raise ConfigError(f"{resume} is not a run folder: it has no config.yaml.")
        config = replace(load_config(RunConfig, str(resume / "config.yaml"), []), output=str(resume))
        state = load_latest_snapshot(resume / "snapshots")
    else:
        assert config is not None
        if config.output is None:
            config = replace(config, output=str(default_run_path(config.policy.name)))
    assert config.output is not None
    parts, folder, hook = build_components(config), Path(config.output), plugin_manager().hook
    if resume is None:
        create_run_folder(folder, to_yaml(config))
    evaluator = _Evaluator(config, parts, folder, hook)
    loop = ReinforcementLoop(config, parts, folder, hook)
    done = state["iteration"] if state else 0
    hook.gymnast_run_started(
        config=config, title="Training", step=done, total=config.loop.iterations, unit="iteration"
    )
    try:
        before = evaluator("before", 0)
        if state is not None:
            loop.restore(state)
        _learn(config, loop, hook, evaluator)
        parts.policy.eval().cpu()
        parts.policy.save(folder / "policy")
        after = evaluator("after", loop.iteration)
    finally:
        hook.gymnast_run_stopped(config=config)
        parts.world_model.close()
        parts.reward_model.close()
    summary = _summary(loop, before, after, time.monotonic() - began)
    write_json(folder / "summary.json", summary)
    hook.gymnast_run_done(config=config, summary=summary)
    return {"output": str(folder), **summary}


def _learn(config: RunConfig, loop: ReinforcementLoop, hook: Any, evaluator: _Evaluator) -> None:
    total = config.loop.iterations
    if loop.iteration >= total:
        return
    callbacks = [callback for found in hook.gymnast_callbacks(config=config) for callback in found]
    trainer = build_trainer(config.trainer, callbacks)
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer asks for {trainer.world_size} processes; `gymnast train` runs in one. Set trainer.devices=1."
        )
    loop.evaluator = evaluator
    numbers = DataLoader(range(loop.iteration, total), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(loop, numbers)


def _summary(
    loop: ReinforcementLoop, before: Evaluation | None, after: Evaluation | None, seconds: float
) -> dict[str, Any]:
    summary: dict[str, Any] = {"iterations": loop.iteration, "updates": loop.updates, "seconds": seconds}
    for label, result in (("before", before), ("after", after)):
        if result is not None:
            summary[label] = {
                "rate": result.rate,
                "interval": list(result.interval),
                "n": result.n,
                "unscored": result.unscored,
                "world": result.world,
            }
    if before is not None and after is not None:
        summary["difference"] = asdict(paired_difference(before, after))
    return summary
