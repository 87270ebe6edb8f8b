"""`gymnast fit`: supervised training of a world model, a policy or a reward model on recorded episodes.

The component brings `training_loss`; this package brings the loop: seeded batches, gradient accumulation, AdamW or
Muon, warm-up and decay, an exponential moving average (EMA), validation, snapshots and exact resume, in one process or
several, on Lightning's Trainer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Trainable
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.hooks import Notify
from gymnast_core.plugins.registry import Registry
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.folder import open_run_folder
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.training.processes import ending_together, follow, led
from gymnast_core.training.trainer import ShardedStrategy
from gymnast_core.types import Episode
from gymnast_fit.batches import SeededBatches, episode_loader
from gymnast_fit.config import FitConfig
from gymnast_fit.module import FitModule
from gymnast_fit.processes import ADVICE, fit_trainer, own_microbatches
from gymnast_fit.sharding import check_shards

logger = logging.getLogger(__name__)


def fit(config: FitConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Train a component; its checkpoint (averaged weights) is written to OUTPUT/checkpoint. Returns the summary.

    With `resume`, the result is the same, bit for bit, as that of a run that was never interrupted (same machine, same
    number of threads and processes). In a process that is not the leader of several, returns {}. SIGTERM ends the
    training after its step, with a snapshot, by `SystemExit(143)`.
    """
    trainer = fit_trainer(config)
    if not trainer.is_global_zero:
        follow()
    kind, part = config.component
    component = _build(kind, part)
    _check_trainable(component, f"{kind}={part.name}", config.validation is not None)
    sharded = isinstance(trainer.strategy, ShardedStrategy)
    if sharded:
        check_shards(component)
    episodes = _episodes(config.episodes, "episodes")
    held_out: Sequence[Episode] = []
    if config.validation is not None and (trainer.is_global_zero or sharded):
        source = _episodes(config.validation, "validation")
        held_out = [source[i] for i in range(min(len(source), config.fit.validation_episodes))]
    state = None if resume is None else load_latest_snapshot(resume / "snapshots")
    if not trainer.is_global_zero:
        module = FitModule(component, config, Path(config.output or "."), held_out, hook=None)
        with led():
            _train(module, trainer, config, state, episodes)
        return {}
    config, folder = open_run_folder(config, f"fit-{part.name}", resume)
    hook = Notify()
    module = FitModule(component, config, folder, held_out, hook)
    done = 0 if state is None else state["step"]
    hook.gymnast_run_started(
        config=config, title=f"Fitting {part.name}", step=done, total=config.fit.steps, unit="step"
    )  # fmt: skip
    try:
        with ending_together(trainer, ADVICE):
            _train(module, trainer, config, state, episodes)
    finally:
        hook.gymnast_run_stopped(config=config)
    if module.terminated:
        logger.warning("SIGTERM after step %d: go on with gymnast fit --resume %s", module.step, folder)
        raise SystemExit(143)
    summary = _finish(component, module, folder, config)
    hook.gymnast_run_done(config=config, summary=summary)
    return summary


def _train(
    module: FitModule,
    trainer: lightning.Trainer,
    config: FitConfig,
    state: dict[str, Any] | None,
    episodes: Sequence[Episode],
) -> None:
    """Run the steps that are left of this process's microbatches."""
    loop = config.fit
    if state is not None:
        module.resume_from(state, leader=trainer.is_global_zero)
    if module.step >= loop.steps:
        return
    mine = own_microbatches(config, trainer.global_rank, trainer.world_size)
    size = loop.batch_size // loop.microbatches
    part = slice(mine.start * size, mine.stop * size)
    batches = SeededBatches(len(episodes), loop.batch_size, config.seed, module.step, loop.steps, part)
    try:
        trainer.fit(module, episode_loader(episodes, batches, loop.workers))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that reads episodes ended: {' '.join(str(error).split())} Most often memory ran out: lower "
            f"fit.workers ({loop.workers})."
        ) from error


def _finish(component: Trainable, module: FitModule, folder: Path, config: FitConfig) -> dict[str, Any]:
    """Validate and save the averaged weights; the summary of the run."""
    # JSON has no NaN: what could not be measured is null.
    quality = {name: value if math.isfinite(value) else None for name, value in module.validate_average().items()}
    module.use_average()
    if module.sharded:
        # The others have ended, and with them most of the weights: what they handed over goes into a new component.
        component = _build(*config.component)
        component.module().load_state_dict(module.gathered)
    component.module().eval()
    component.save(folder / "checkpoint")
    summary: dict[str, Any] = {"output": str(folder), "checkpoint": str(folder / "checkpoint"), "steps": module.step}
    summary |= {"validation": quality, "parameters": sum(p.numel() for p in module.network.parameters())}
    write_json(folder / "summary.json", summary)
    return summary


def _build(kind: str, part: ComponentConfig) -> Trainable:
    known = registries()
    kinds: dict[str, Registry[Any]] = {
        "world_model": known.world_models,
        "policy": known.policies,
        "reward_model": known.reward_models,
    }
    return kinds[kind].build(part.name, part.args)


def _check_trainable(component: Trainable, label: str, validates: bool) -> None:
    needed = ("module", "training_loss", "save", *(("validate",) if validates else ()))
    missing = [name for name in needed if getattr(type(component), name) is getattr(Trainable, name)]
    if missing == ["validate"]:
        raise ConfigError(f"{label} cannot be validated: it does not define validate(). Set validation=null.")
    if missing:
        raise ConfigError(
            f"{label} cannot be trained: it does not define {'(), '.join(missing)}(). Choose one that learns; "
            "`gymnast plugins` lists what is installed."
        )


def _episodes(part: ComponentConfig, key: str) -> Sequence[Episode]:
    episodes = registries().datasets.build(part.name, part.args, key=key).episodes()
    if not len(episodes):
        hint = " Set validation=null to go without." if key == "validation" else ""
        raise DataError(f"{key}: the dataset {part.name!r} holds no episodes.{hint}")
    return episodes
