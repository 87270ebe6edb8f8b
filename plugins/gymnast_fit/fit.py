"""`gymnast fit`: supervised training of a world model, a policy or a reward model on recorded episodes.

The component brings `training_loss`; this package brings the loop: seeded batches, AdamW or Muon, warm-up and decay,
an exponential moving average (EMA), validation, snapshots and exact resume, on Lightning's Trainer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.hooks import Notify
from gymnast_core.interfaces import Trainable
from gymnast_core.registry import Registry, registries
from gymnast_core.snapshot import load_latest_snapshot, open_run_folder, write_json
from gymnast_core.trainer import build_trainer
from gymnast_core.types import Episode
from gymnast_fit.batches import SeededBatches, episode_loader
from gymnast_fit.config import FitConfig
from gymnast_fit.module import FitModule


def fit(config: FitConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Train a component; its checkpoint (averaged weights) is written to OUTPUT/checkpoint. Returns the summary.

    With `resume`, the result is the same, bit for bit, as that of a run that was never interrupted (same machine, same
    number of threads).
    """
    kind, part = config.component
    component = _build(kind, part)
    _check_trainable(component, f"{kind}={part.name}", config.validation is not None)
    episodes = _episodes(config.episodes, "episodes")
    held_out: Sequence[Episode] = []
    if config.validation is not None:
        source = _episodes(config.validation, "validation")
        held_out = [source[i] for i in range(min(len(source), config.fit.validation_episodes))]
    trainer = _trainer(config)
    state = None if resume is None else load_latest_snapshot(resume / "snapshots")
    config, folder = open_run_folder(config, f"fit-{part.name}", resume)
    hook, steps = Notify(), config.fit.steps
    module = FitModule(component, config, folder, held_out, hook)
    if state is not None:
        module.resume_from(state)
    hook.gymnast_run_started(
        config=config, title=f"Fitting {part.name}", step=module.step, total=steps, unit="step"
    )  # fmt: skip
    try:
        if module.step < steps:
            batches = SeededBatches(len(episodes), config.fit.batch_size, config.seed, module.step, steps)
            trainer.fit(module, episode_loader(episodes, batches, config.fit.workers))
    finally:
        hook.gymnast_run_stopped(config=config)
    # JSON has no NaN: what could not be measured is null.
    quality = {name: value if math.isfinite(value) else None for name, value in module.validate_average().items()}
    module.use_average()
    module.network.eval()
    component.save(folder / "checkpoint")
    summary: dict[str, Any] = {"output": str(folder), "checkpoint": str(folder / "checkpoint"), "steps": module.step}
    summary |= {"validation": quality, "parameters": sum(p.numel() for p in module.network.parameters())}
    write_json(folder / "summary.json", summary)
    hook.gymnast_run_done(config=config, summary=summary)
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


def _trainer(config: FitConfig) -> lightning.Trainer:
    trainer = build_trainer(config.trainer)
    # Under manual optimisation nothing undoes the loss scaling of float16.
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise ConfigError(f"trainer.precision={trainer.precision} needs loss scaling; use bf16-mixed or 32-true.")
    return trainer
