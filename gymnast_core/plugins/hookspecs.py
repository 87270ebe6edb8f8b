# mypy: disable-error-code="empty-body"
"""The hooks: what functions in a plugin module of the entry-point group `gymnast.hooks` are called, and when.

A plugin may take fewer arguments than a hook offers, never others. Its module is imported when a command
starts, so heavy imports belong inside its functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.config import RunConfig
    from gymnast_core.interfaces import Policy
    from gymnast_core.plugins.registry import Registries
    from gymnast_core.types import Reward, Rollout


def gymnast_register(registries: Registries) -> None:
    """Add components made at run time, e.g. `registries.reward_models.register("judge-b", JudgeB)`."""


def gymnast_callbacks(config: RunConfig) -> list[Any]:
    """Return `lightning.Callback` objects to add to the trainer of this run."""


def gymnast_run_started(config: Any, title: str, step: int, total: int, unit: str) -> None:
    """A run begins, or goes on after `step` of its `total` steps; `config.output` is its folder."""


def gymnast_metrics(config: Any, step: int, metrics: Mapping[str, float]) -> None:
    """The numbers of iteration `step` (from 1) by name, once it is complete."""


def gymnast_run_stopped(config: Any) -> None:
    """The run's steps ended or failed; also called on Ctrl-C."""


def gymnast_rollouts_done(config: RunConfig, rollouts: Sequence[Rollout], step: int) -> None:
    """Rollouts were imagined in iteration `step`; their judgement is under way. Do not modify them."""


def gymnast_rewards_scored(
    config: RunConfig, rollouts: Sequence[Rollout], rewards: Sequence[Reward], step: int
) -> None:
    """The rollouts of iteration `step` were scored; `rewards[i]` judges `rollouts[i]`. Do not modify them."""


def gymnast_evaluate(config: RunConfig, policy: Policy, label: str, iteration: int) -> Mapping[str, Any]:
    """Measure the policy before the run, after it, every `evaluation.every` iterations; return it for the summary."""


def gymnast_evaluation_done(
    config: Any, label: str, world: str, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
) -> None:
    """Rollouts of evaluation `label` in `world` were scored, maybe in batches; `rewards[i]` judges `rollouts[i]`."""


def gymnast_run_done(config: Any, summary: dict[str, Any]) -> None:
    """A run ended; `summary` is what the command prints (numbers and paths by name)."""
