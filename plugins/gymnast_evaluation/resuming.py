"""What a resumed evaluation may not change: trials of different experiments must not meet in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnast_core.config import load_config
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.runs.folder import refuse_changes
from gymnast_evaluation.config import EvaluateConfig

FIXED = ("tasks", "horizon", "temperature", "episodes", "trials", "batch_size", "seed")
"""Keys that say what a trial is; a resumed evaluation keeps them."""


def has_rows(folder: Path) -> bool:
    """Whether a results.jsonl holds trials; before the first one anything may change."""
    results = folder / "results.jsonl"
    return results.exists() and results.stat().st_size > 0


def check_resumable(config: EvaluateConfig, folder: Path) -> None:
    """Raises `ConfigError` for a changed trial or a changed part; labels may be added."""
    if not has_rows(folder):
        return
    stored = _plural(load_config(EvaluateConfig, str(folder / "config.yaml")))
    known = {key: getattr(stored, key) for key in ("policies", "worlds", "rewards")}
    refuse_changes(stored, _plural(config), [*FIXED, *parts_of(known)], free_arguments(stored))


def parts_of(known: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """The keys of the parts that were there, each by its label."""
    # A label may begin like another one ("pi0", "pi0.5"), so the part alone is no prefix to go by.
    return [f"{key}.{label}.{field}" for key, parts in known.items() for label in parts for field in ("name", "args")]


def _plural(config: EvaluateConfig) -> EvaluateConfig:
    """The same config with its single parts among the others."""
    return replace(
        config, policies=config.all_policies(), worlds=config.all_worlds(), rewards=config.all_rewards(),
        policy=None, world_model=None, reward_model=None,
    )  # fmt: skip
