"""`gymnast adapt`: train on the target in the world model; measure the target and the rest before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gymnast_adapt.config import AdaptConfig
from gymnast_adapt.page import build_adaptation_page
from gymnast_adapt.summary import summarise
from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.config.schema import EvaluationConfig
from gymnast_core.errors import ConfigError
from gymnast_core.hub import args_of_saved
from gymnast_core.plugins.compose import load_tasks, needs_of, offers_of, registries
from gymnast_core.plugins.events import RunDone
from gymnast_core.plugins.hooks import check_sections, tell
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.spending import spent_usd
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.training.run import train
from gymnast_core.types import Task
from gymnast_evaluation.command import evaluate_command
from gymnast_evaluation.config import EvaluateConfig

FREE = ("output", "device", "videos", "hooks", "trainer")
"""What a resumed adaptation may change; the rest says what it is."""
TRAINING, TARGET, RETENTION = "training", "target", "retention"
"""Folders of the parts: the run of `gymnast train`, and two of `gymnast evaluate`."""
IMAGINED, REAL = "imagined", "environment"
"""What the worlds are called."""


def adapt_command(config: AdaptConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Adapt, or go on with it; writes the folder and returns what the command prints.

    Every part is a run of its own that goes on where it stopped. Raises what `gymnast train` and `gymnast evaluate`
    raise, and `ConfigError` for a policy that cannot be loaded from a checkpoint.
    """
    check_sections(config.hooks)
    _check_policy(config.policy)
    offers_of(config.world_model)
    if resume is not None:
        stored = load_config(AdaptConfig, str(resume / "config.yaml"))
        fixed = [item.name for item in fields(AdaptConfig) if item.name not in FREE]
        refuse_changes(stored, config, fixed, free_arguments(stored))
    targets = load_tasks(config.starts(), "target")
    others = load_tasks(config.retention, "retention") if config.retention is not None else None
    with terminating(), run_folder(config, "adapt", resume) as (config, folder):
        folder = folder.resolve()  # parts are found by it, however it is spelt the next time
        write_text(folder / "versions.json", json.dumps(versions(), indent=1))
        _part(folder / TRAINING, _training(config, folder))
        measured = {TARGET: _measure(config, folder, config.starts(), targets, config.targets, config.trials, TARGET)}
        if others is not None:
            assert config.retention is not None
            measured[RETENTION] = _measure(config, folder, config.retention, others, config.retained, 1, RETENTION)
        summary = summarise(measured, str(folder / TRAINING / "policy"), spent_usd(folder / TRAINING))
        write_json(folder / "summary.json", summary)
        build_adaptation_page(folder)
        tell("gymnast_run_done", RunDone(config, folder, summary=summary))
    return {"output": str(folder), **summary}


def _check_policy(part: ComponentConfig) -> None:
    known = registries().policies
    config_class = known.load(part.name).Config
    if "checkpoint" not in {item.name for item in fields(config_class)}:
        raise ConfigError(
            f"The policy {part.name!r} has no argument `checkpoint`, so the adapted one cannot be loaded and measured. "
            "Train it with gymnast train, or choose a policy that is loaded from checkpoints."
        )
    needs_of(part)


def _training(config: AdaptConfig, folder: Path) -> RunConfig:
    """The run of `gymnast train`, protection included."""
    protect, policy, optimizer = config.protect, config.policy, config.optimizer
    if protect.kl_coefficient:
        optimizer = replace(optimizer, args={**optimizer.args, "kl_coefficient": protect.kl_coefficient})
    if protect.lora_rank:
        tuning = {**(policy.args.get("train") or {}), "lora_rank": protect.lora_rank}
        policy = replace(policy, args={**policy.args, "train": tuning})
    starts: dict[str, Any] = {"targets": _plain(config.starts()), "count": config.targets}
    if protect.tasks is not None:
        starts |= {"others": _plain(protect.tasks), "share": protect.share}
    return RunConfig(
        world_model=config.world_model, policy=policy, reward_model=config.reward_model, optimizer=optimizer,
        tasks=ComponentConfig("adaptation", starts), evaluation=EvaluationConfig(tasks=None), loop=config.loop,
        trainer=config.trainer, hooks=config.hooks, seed=config.seed, output=str(folder / TRAINING),
    )  # fmt: skip


def _part(folder: Path, config: RunConfig) -> None:
    """Train, unless that was done; go on if it was begun."""
    if (folder / "summary.json").exists():
        return
    # Begun without a snapshot, it begins anew in its folder.
    train(config, resume=folder if (folder / "config.yaml").exists() else None)


def _measure(
    config: AdaptConfig,
    folder: Path,
    part: ComponentConfig,
    tasks: Sequence[Task],
    count: int | None,
    trials: int,
    name: str,
) -> dict[str, Any]:
    """The policy before and after, on the same tasks and seeds: summary.json of an evaluation."""
    worlds, rewards = {IMAGINED: config.world_model}, {IMAGINED: config.reward_model}
    if tasks[0].start is not None:
        worlds[REAL], rewards[REAL] = config.environment, config.environment_reward
    adapted = args_of_saved(config.policy.args, folder / TRAINING / "policy")
    wanted = EvaluateConfig(
        tasks=part, policies={"before": config.policy, "after": replace(config.policy, args=adapted)},
        worlds=worlds, rewards=rewards, horizon=config.loop.horizon, temperature=config.temperature,
        episodes=min(count or len(tasks), len(tasks)), trials=trials, batch_size=config.batch_size,
        rescore=config.loop.rescore, max_error_rate=config.loop.max_error_rate, videos=config.videos,
        device=config.device, hooks=config.hooks, seed=config.seed, output=str(folder / name),
    )  # fmt: skip
    begun = (folder / name / "config.yaml").exists()
    evaluate_command(wanted, resume=folder / name if begun else None)
    return read_object(folder / name / "summary.json", allow_nan=True).values


def _plain(part: ComponentConfig) -> Mapping[str, Any]:
    return {"name": part.name, "args": part.args}
