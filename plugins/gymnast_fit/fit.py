"""`gymnast fit`: supervised training of a world model, a policy or a reward model on recorded episodes.

The component brings `training_loss`; this package brings the loop: seeded batches, gradient accumulation, AdamW or
Muon, warm-up and decay, an exponential moving average (EMA), validation, snapshots and exact resume, in one process or
several, on Lightning's Trainer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning

from gymnast_core.closing import close_all
from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts, Trainable
from gymnast_core.plugins import events
from gymnast_core.plugins.hooks import check_sections, tell
from gymnast_core.plugins.registry import Registry, registries
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import storing, write_json
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.short_episodes import long_enough
from gymnast_core.signals import TERMINATED, Terminated, terminating
from gymnast_core.training.sharding import check_shards
from gymnast_core.training.together import ending_together, follow, led
from gymnast_core.training.trainer import ShardedStrategy, precision_of
from gymnast_core.types import Episode
from gymnast_fit.batches import SeededBatches, episode_loader
from gymnast_fit.config import FitConfig
from gymnast_fit.module import FitModule, Fitted, keeps_state
from gymnast_fit.processes import ADVICE, fit_trainer, own_microbatches

logger = logging.getLogger(__name__)

FIXED = (
    "world_model", "policy", "reward_model", "episodes", "fit.batch_size", "fit.optimizer",
    "fit.short_episodes", "seed",
)  # fmt: skip
"""Keys that say what a training is; a resumed one keeps them."""

DATA = "data.json"
"""Of a run folder: how much there was to learn from."""


def fit(config: FitConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Train a component; its checkpoint (averaged weights) is written to OUTPUT/checkpoint. Returns the summary.

    With `resume`, the result is the same, bit for bit, as that of a run that was never interrupted (same machine, same
    number of threads and processes). In a process that is not the leader of several, returns {}. SIGTERM ends the
    training after its step, with a snapshot, by `SystemExit(143)`, and anything else at once, by `Terminated`.
    """
    check_sections(config.hooks)
    if resume is not None:
        stored = load_config(FitConfig, f"{resume}/config.yaml")
        refuse_changes(stored, config, FIXED, free_arguments(stored))
    trainer = fit_trainer(config)
    with terminating():
        if not trainer.is_global_zero:
            follow()
        return _fit(config, resume, trainer)


def _fit(config: FitConfig, resume: Path | None, trainer: lightning.Trainer) -> dict[str, Any]:
    """Build what is trained, and train it in this process."""
    kind, part = config.component
    component = _build(kind, part)
    _check_trainable(component, f"{kind}={part.name}", config.validation is not None)
    sharded = isinstance(trainer.strategy, ShardedStrategy)
    if sharded:
        check_shards(component)
    refuse = config.fit.short_episodes == "refuse"
    episodes = long_enough(_episodes(config.episodes, "episodes"), component, "episodes", refuse=refuse)
    held_out: Sequence[Episode] = []
    if config.validation is not None and (trainer.is_global_zero or sharded):
        source = long_enough(_episodes(config.validation, "validation"), component, "validation", refuse=refuse)
        # Spread evenly: crops of one episode follow each other.
        count = min(len(source), config.fit.validation_episodes)
        held_out = [source[place * len(source) // count] for place in range(count)]
    state = None if resume is None else load_latest_snapshot(resume / "snapshots")
    try:
        _parts(config, component).attach()
        if not trainer.is_global_zero:
            folder, precision = Path(config.output or "."), precision_of(config.trainer)
            module = FitModule(component, config, folder, held_out, lambda step, metrics: None, precision)
            _resumed(module, state, leader=False)
            with led():
                _train(module, trainer, config, episodes)
            return {}
        with run_folder(config, f"fit-{part.name}", resume) as (config, folder):
            _same_data(folder, len(episodes))
            return _lead(config, folder, component, trainer, state, episodes, held_out)
    finally:
        close_all([component])


def _same_data(folder: Path, episodes: int) -> None:
    """Write down how many episodes (or crops) a training has, or raise `DataError` where a resumed one had another
    number: which of them are drawn, and which ones a dataset's `part` holds out, depends on it."""
    file = folder / DATA
    if not file.exists():
        write_json(file, {"episodes": episodes})
        return
    before = read_object(file).integer("episodes")
    if before != episodes:
        raise DataError(
            f"The training in {folder} began with {before} episodes; its dataset holds {episodes} now. It would learn "
            "from some that were held out. Give it those that it began with, or begin a new run from its last "
            f"checkpoint, with more: `gymnast fit {folder}/config.yaml output=OTHER`, and the component's "
            "args.checkpoint."
        )


def _parts(config: FitConfig, component: Fitted) -> Parts:
    """The component, by its key, as the only part there is."""
    fitted: dict[str, Any] = {config.component[0]: component}
    return Parts(**fitted, config=config)


def _lead(
    config: FitConfig,
    folder: Path,
    component: Fitted,
    trainer: lightning.Trainer,
    state: dict[str, Any] | None,
    episodes: Sequence[Episode],
    held_out: Sequence[Episode],
) -> dict[str, Any]:
    """The training in the process that speaks and writes."""
    parts = _parts(config, component)

    def tell_metrics(step: int, metrics: Mapping[str, float]) -> None:
        tell("gymnast_metrics", events.StepDone(config, folder, step, parts, metrics))

    module = FitModule(component, config, folder, held_out, tell_metrics, precision_of(config.trainer))
    if 0 < config.fit.steps < config.fit.warmup_steps:
        logger.warning(
            "fit.warmup_steps is %d of fit.steps %d: the learning rate never reaches its peak. Lower fit.warmup_steps.",
            config.fit.warmup_steps, config.fit.steps,
        )  # fmt: skip
    title, total = f"Fitting {config.component[1].name}", config.fit.steps
    done = _resumed(module, state, leader=True)
    tell("gymnast_run_started", events.RunStarted(config, folder, done, parts, title, total, "step"))
    ended_by: BaseException | None = None
    try:
        with ending_together(trainer, ADVICE):
            _train(module, trainer, config, episodes)
    except BaseException as error:
        ended_by = error
        raise
    finally:
        module.let_go_of_ctrl_c()
        signal_sent = KeyboardInterrupt() if module.interrupted else Terminated()
        ended_by = ended_by or (signal_sent if module.terminated else None)
        tell("gymnast_run_stopped", events.RunStopped(config, folder, module.step, parts, ended_by))
    if module.terminated and module.interrupted:
        logger.warning(
            "Stopped after step %d, with a snapshot. Go on with: %s", module.step, resume_command("fit", folder)
        )
        raise KeyboardInterrupt
    if module.terminated:
        logger.warning("SIGTERM after step %d: go on with %s", module.step, resume_command("fit", folder))
        raise SystemExit(TERMINATED)
    try:
        saved, summary = _finish(component, module, folder, config)
        tell("gymnast_run_done", events.RunDone(config, folder, module.step, _parts(config, saved), summary))
    except BaseException as error:
        if isinstance(error, Terminated):
            logger.warning("SIGTERM after the last step: go on with %s", resume_command("fit", folder))
        tell("gymnast_run_stopped", events.RunStopped(config, folder, module.step, parts, error))
        raise
    if saved is not component:
        close_all([saved])
    return summary


def _resumed(module: FitModule, state: dict[str, Any] | None, leader: bool) -> int:
    """Continue from a snapshot's state, if there is one; the steps that are done."""
    if state is not None:
        module.resume_from(state, leader=leader)
    return module.step


def _train(
    module: FitModule,
    trainer: lightning.Trainer,
    config: FitConfig,
    episodes: Sequence[Episode],
) -> None:
    """Run the steps that are left of this process's microbatches."""
    loop = config.fit
    if module.step >= loop.steps:
        return
    mine = own_microbatches(config, trainer.global_rank, trainer.world_size)
    size = loop.batch_size // loop.microbatches
    part = slice(mine.start * size, mine.stop * size)
    batches = SeededBatches(len(episodes), loop.batch_size, config.seed, module.step, loop.steps, part)
    try:
        trainer.fit(module, episode_loader(episodes, batches, loop.workers))
    finally:
        module.writer.close()


def _finish(component: Fitted, module: FitModule, folder: Path, config: FitConfig) -> tuple[Fitted, dict[str, Any]]:
    """Validate and save the averaged weights; the component that holds them, and the summary of the run."""
    # JSON has no NaN: what could not be measured is null.
    quality = {name: value if math.isfinite(value) else None for name, value in module.validate_average().items()}
    module.use_average()
    if module.sharded:
        # The others have ended, and with them most of the weights: what they handed over goes into a new component.
        trained, component = component, _build(*config.component)
        component.module().load_state_dict(module.gathered)
        if keeps_state(trained):
            component.load_state_dict(trained.state_dict())
        _parts(config, component).attach()
    component.module().eval()
    with storing(folder / "checkpoint"):
        component.save(folder / "checkpoint")
    summary: dict[str, Any] = {"output": str(folder), "checkpoint": str(folder / "checkpoint"), "steps": module.step}
    summary |= {"validation": quality, "parameters": sum(p.numel() for p in module.network.parameters())}
    write_json(folder / "summary.json", summary)
    return component, summary


def _build(kind: str, part: ComponentConfig) -> Fitted:
    known = registries()
    kinds: dict[str, Registry[Any]] = {
        "world_model": known.world_models,
        "policy": known.policies,
        "reward_model": known.reward_models,
    }
    built: Fitted = kinds[kind].build(part.name, part.args, key=kind)
    return built


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
