"""`gymnast train`: config -> parts -> lightning.Trainer -> run folder."""

import shlex
import sys
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from gymnast_core.closing import close_all
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import ConfigError, ContractError, GymnastError, PluginError
from gymnast_core.interfaces import Component, Parts
from gymnast_core.plugins import events
from gymnast_core.plugins.compose import build_parts
from gymnast_core.plugins.hooks import tell
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import check_deal
from gymnast_core.rollouts.imagine import check_horizon
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.snapshot import Snapshot, UnstorableState, check_storable, fitting, load_snapshot
from gymnast_core.signals import terminating
from gymnast_core.training.answers import check_numbers
from gymnast_core.training.engine import build_engine
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.record import RunRecord
from gymnast_core.training.sharding import check_shards
from gymnast_core.training.together import together
from gymnast_core.training.trainer import ShardedStrategy, build_trainer, precision_of

_ADVICE = "set loop.micro_batch_size lower. Go on from the last snapshot with gymnast train --resume RUN."

FIXED = (
    "world_model", "policy", "reward_model.name", "optimizer.name", "optimizer.args.group_size", "tasks",
    "demonstrations", "loop.horizon", "evaluation.before", "evaluation.world", "evaluation.reward_model",
    "evaluation.tasks", "evaluation.horizon", "evaluation.temperature", "seed",
)  # fmt: skip
"""Keys that say what a run is; a resumed run keeps them."""
MOST_ITERATIONS = 10**9
"""What no run reaches; a snapshot that claims more is damaged."""


def train(config: RunConfig | None, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or continue a training. Returns the summary that is also written to summary.json.

    With `resume` and no `config`, the run folder's own config is used. The result is the same, bit for bit, as that of
    a run that was never interrupted (same machine, same number of threads and processes). Of several processes, the
    leader alone tells and writes; the others return {}.
    """
    snapshot = None
    if resume is not None:
        stored = load_config(RunConfig, f"{resume}/config.yaml")
        config = config or stored
        refuse_changes(stored, config, FIXED, free_arguments(stored))
        snapshot = load_snapshot(resume / "snapshots")
    assert config is not None
    precision = precision_of(config.trainer)
    options = {key: value for key, value in config.trainer.items() if key != "precision"}
    wanted = events.CallbacksWanted(config, Path(config.output or ""))
    trainer = build_trainer(options, _callbacks(wanted), shards=True)
    with terminating(), together(trainer, _ADVICE):
        done = _done(snapshot)
        left = max(config.loop.iterations - done, 0) if trainer.is_global_zero else None
        engine = build_engine(config.engine)
        parts = build_parts(config, left=left, processes=Processes())
        try:
            parts.attach()
            engine.attach(parts)
            loop = ReinforcementLoop(config, parts, precision, engine)
            _check(config, parts, loop, trainer)
            if not trainer.is_global_zero:
                _run(config, parts, loop, trainer, snapshot, None)
                return {}
            with run_folder(config, config.policy.name, resume) as (config, folder):
                return _lead(config, parts, loop, trainer, snapshot, folder)
        finally:
            close_all((engine, *parts.components().values()))


def _callbacks(wanted: events.CallbacksWanted) -> list[Callback]:
    """Those of all hooks. Raises `PluginError` if one returned something else."""
    answers = tell("gymnast_callbacks", wanted, passing=(GymnastError,))
    for answer in answers:
        if not isinstance(answer, list) or not all(isinstance(callback, Callback) for callback in answer):
            raise PluginError(
                f"A hook gymnast_callbacks returned a {type(answer).__name__}, {answer!r:.80}; it returns a list of "
                "lightning.Callback, or None. `gymnast plugins` lists the hook plugins."
            )
    return [callback for answer in answers for callback in answer]


def _done(snapshot: Snapshot | None) -> int:
    """Iterations behind a run. Raises `CheckpointError` if the snapshot does not know."""
    if snapshot is None:
        return 0
    with fitting(snapshot.path):
        done = snapshot.state["iteration"]
        if not isinstance(done, int) or not 0 <= done <= MOST_ITERATIONS:
            raise ValueError(f"it says that {str(done)[:40]} iterations are done")
    return done


def _check(config: RunConfig, parts: Parts, loop: ReinforcementLoop, trainer: Trainer) -> None:
    """Refuse what would only show after the run began: raises `ConfigError`."""
    policy, optimizer = parts.policy, parts.optimizer
    assert policy is not None and optimizer is not None
    check_numbers(optimizer)
    check_horizon(policy, config.loop.horizon)
    check_horizon(policy, config.evaluation_horizon, "evaluation.horizon")
    processes, batch = trainer.world_size, config.loop.imagine_batch_size
    check_deal(config.loop.tasks_per_iteration, optimizer.group_size, batch, processes)
    if isinstance(trainer.strategy, ShardedStrategy):
        check_shards(policy)
        if optimizer.demonstrations_per_rollout:
            raise ConfigError(
                f"optimizer={config.optimizer.name} mixes demonstrations into its updates, and trainer.strategy=fsdp2 "
                "cannot share those out. Set trainer.strategy=ddp."
            )
    loop.configure_optimizers()
    for name, component in parts.components().items():
        _check_state(component, name)


def _check_state(component: Component, name: str) -> None:
    """Before the first snapshot would fail, which an iteration comes before: raises `ContractError`."""
    try:
        check_storable(component.state_dict(), name)
    except UnstorableState as error:
        raise ContractError(
            f"{type(component).__name__}.state_dict: {error}. It returns nested dicts and lists of tensors, Python's "
            "numbers, strings and None. `gymnast check` tries it."
        ) from error


def _lead(
    config: RunConfig,
    parts: Parts,
    loop: ReinforcementLoop,
    trainer: Trainer,
    snapshot: Snapshot | None,
    folder: Path,
) -> dict[str, Any]:
    """The run in the process that speaks and writes."""
    print(f"Run folder: {folder}", file=sys.stderr, flush=True)
    try:
        record = _run(config, parts, loop, trainer, snapshot, folder)
    except BaseException:
        print(
            f"Stopped. What it did so far: gymnast view {shlex.quote(str(folder))}. Go on with: "
            f"{resume_command('train', folder)}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        raise
    try:
        write_json(folder / "summary.json", record.summary)
        record.tell("gymnast_run_done", events.RunDone, summary=record.summary)
    except BaseException as error:
        record.tell("gymnast_run_stopped", events.RunStopped, error=error)
        raise
    return record.summary


def _run(
    config: RunConfig,
    parts: Parts,
    loop: ReinforcementLoop,
    trainer: Trainer,
    snapshot: Snapshot | None,
    folder: Path | None,
) -> RunRecord:
    """The iterations that are left, in this process."""
    done = _done(snapshot)
    loop.record = RunRecord(config, parts, folder, done)
    if snapshot is not None:
        loop.restore(snapshot)
    if folder is None:
        try:
            trainer.fit(loop, loop.steps)
            loop.record.check_finished()
        finally:
            loop.record.close()
        return loop.record
    total = config.loop.iterations
    loop.record.tell(
        "gymnast_run_started", events.RunStarted, title="Training", step=done, total=total, unit="iteration"
    )
    ended_by: BaseException | None = None
    try:
        trainer.fit(loop, loop.steps)
        loop.record.check_finished()
    except BaseException as error:
        ended_by = error
        raise
    finally:
        loop.record.close()
        loop.record.tell("gymnast_run_stopped", events.RunStopped, error=ended_by)
    return loop.record
