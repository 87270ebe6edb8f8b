"""`gymnast evaluate`: every policy in every world on the same tasks and seeds; resumable batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gymnast_core.config import ComponentConfig, load_config, to_yaml
from gymnast_core.errors import ConfigError, GymnastError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.hooks import Notify
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.folder import open_run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.evaluate import choose_device, judge_again, load_tasks, roll_out
from gymnast_evaluation.summary import Scores, brief, summarise
from gymnast_evaluation.trials import Trial, TrialFile
from gymnast_evaluation.videos import film, filmed_trials

_Opened = dict[str, tuple[WorldModel, RewardModel]]
_FIXED = ("tasks", "horizon", "temperature", "episodes", "trials", "batch_size", "seed")
"""Keys that say what a trial is; a resumed evaluation keeps them."""


class JudgesFailing(GymnastError):
    """Too many rollouts could not be judged; the evaluation stops and can be resumed."""


def evaluate_command(config: EvaluateConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume an evaluation; writes the folder and returns what the command prints."""
    if resume is not None:
        _check_resumable(config, resume)
    tasks = load_tasks(config.tasks, config.episodes)
    config, folder = open_run_folder(config, "evaluate", resume)
    if resume is not None:
        write_text(folder / "config.yaml", to_yaml(config))
    write_text(folder / "versions.json", json.dumps(versions(), indent=1))
    run = _Run(config, folder, tasks)
    run.roll_out_what_is_missing()
    scores = Scores(run.file.trials, list(config.all_policies()), list(config.all_worlds()), config.group_by)
    summary = summarise(scores, reference=config.reference, seed=config.seed)
    write_json(folder / "summary.json", summary)
    Notify().gymnast_run_done(config=config, summary=summary)
    return {"output": str(folder), **brief(summary)}


class _Run:
    """The trials of one evaluation: which there are, which are done, and how the others are rolled out."""

    def __init__(self, config: EvaluateConfig, folder: Path, tasks: Sequence[Task]) -> None:
        self.config, self.folder, self.tasks, self.tell = config, folder, tasks, Notify()
        self.size = len(tasks) * config.trials
        size = config.batch_size
        self.batches = {first: min(size, self.size - first) for first in range(0, self.size, size)}
        self.file = TrialFile(folder / "results.jsonl", self.batches)
        self.filmed = filmed_trials(self.size, config.videos)

    def missing(self, policy: str, world: str) -> list[int]:
        """First trials of the batches that are not done."""
        return [first for first in self.batches if not self.file.holds(policy, world, first)]

    def roll_out_what_is_missing(self) -> None:
        """Raises `ConfigError` if a policy's chunks do not fit the horizon, `JudgesFailing`, and what plugins raise."""
        known, config = registries(), self.config
        policies, worlds = config.all_policies(), config.all_worlds()
        wanted = {w: sum(self.batches[b] for p in policies for b in self.missing(p, w)) for w in worlds}
        if not any(wanted.values()):
            return
        for part in policies.values():  # a misspelt name must not show after hours
            known.policies.load(part.name)
        device = choose_device(config.device)
        with self._open_worlds([world for world in worlds if wanted[world]], wanted) as opened:
            total = self.size * len(policies) * len(worlds)
            with Progress("Evaluating", total, unit="trial", start=total - sum(wanted.values())) as progress:
                for label, part in policies.items():
                    if any(self.missing(label, world) for world in opened):
                        self._roll_out_policy(label, part, device, opened, progress)

    def _roll_out_policy(
        self, label: str, part: ComponentConfig, device: torch.device, opened: _Opened, progress: Progress
    ) -> None:
        """Everything missing of one policy, which lives no longer than this call: two might not fit the memory."""
        policy = registries().policies.build(part.name, part.args, key=f"policies.{label}")
        _check_horizon(self.config.horizon, label, policy)
        policy.to(device)
        for world, (model, judge) in opened.items():
            self._roll_out_in(label, policy, world, model, judge, progress)

    @contextmanager
    def _open_worlds(self, labels: Sequence[str], wanted: dict[str, int]) -> Iterator[_Opened]:
        """Label -> world and judge, closed at the end. Judges come first: one that costs too much refuses early."""
        known, parts, judge_parts = registries(), self.config.all_worlds(), self.config.all_rewards()
        opened: list[WorldModel | RewardModel] = []
        try:
            judges = {}
            for label in labels:
                part = judge_parts[label]
                judges[label] = known.reward_models.build(part.name, part.args, key=f"rewards.{label}")
                opened.append(judges[label])
                judges[label].preflight(wanted[label], 1 + self.config.horizon)
            models = {}
            for label in labels:
                part = parts[label]
                models[label] = known.world_models.build(part.name, part.args, key=f"worlds.{label}")
                opened.append(models[label])
            yield {label: (models[label], judges[label]) for label in labels}
        finally:
            for component in opened:
                component.close()

    def _roll_out_in(
        self, label: str, policy: Policy, world: str, model: WorldModel, judge: RewardModel, progress: Progress
    ) -> None:
        """The missing batches of a policy in a world; each one is judged while the next is rolled out."""
        config = self.config
        waiting: tuple[int, list[Rollout], Future[list[Reward]]] | None = None
        for first in self.missing(label, world):
            tasks = [self.tasks[i % len(self.tasks)] for i in range(first, first + self.batches[first])]
            rollouts = roll_out(
                policy, model, tasks, first=first, horizon=config.horizon, temperature=config.temperature,
                seed=config.seed,
            )  # fmt: skip
            scored = judge.submit(rollouts)
            if waiting is not None:
                self._finish(label, world, judge, *waiting, progress)
            waiting = (first, rollouts, scored)
        if waiting is not None:
            self._finish(label, world, judge, *waiting, progress)

    def _finish(
        self,
        label: str,
        world: str,
        judge: RewardModel,
        first: int,
        rollouts: list[Rollout],
        scored: Future[list[Reward]],
        progress: Progress,
    ) -> None:
        """Wait for the judge, then write videos and rows: rows last, since they say that the batch is done."""
        config = self.config
        rewards = judge_again(judge, rollouts, scored.result(), config.rescore)
        rows = [
            Trial(
                policy=label, world=world, index=rollout.group, task=rollout.task.id,
                instruction=rollout.task.instruction, trial=rollout.group // len(self.tasks), seed=config.seed,
                batch=first, value=reward.value, partial=reward.partial, outcome=rollout.outcome, error=reward.error,
                rationale=reward.rationale, cost_usd=reward.cost_usd,
            )
            for rollout, reward in zip(rollouts, rewards, strict=True)
        ]  # fmt: skip
        self._check_judged(self.file.of(label, world) + rows, label, world)
        film(self.folder, label, world, rollouts, self.filmed)
        self.file.append(rows)
        self.tell.gymnast_evaluation_done(
            config=config, label=f"{label}-in-{world}", world=config.all_worlds()[world].name, rollouts=rollouts,
            rewards=rewards,
        )  # fmt: skip
        progress.update(len(self.file.trials), self._numbers())

    def _check_judged(self, rows: Sequence[Trial], label: str, world: str) -> None:
        errors = [row.error for row in rows if row.error is not None]
        if len(errors) > self.config.max_error_rate * len(rows):
            raise JudgesFailing(
                f"{self.config.all_rewards()[world].name!r} could not judge {len(errors)} of {len(rows)} rollouts of "
                f"{label!r} in {world!r} (limit max_error_rate={self.config.max_error_rate}). First error: {errors[0]} "
                f"When it works again: gymnast evaluate --resume {self.folder} (max_error_rate=1 keeps such trials)"
            )

    def _numbers(self) -> dict[str, float]:
        trials = self.file.trials
        values = [trial.value for trial in trials if trial.value is not None]
        numbers: dict[str, float] = {"success": sum(values) / len(values)} if values else {}
        unscored, dollars = len(trials) - len(values), sum(trial.cost_usd for trial in trials)
        return numbers | ({"unscored": unscored} if unscored else {}) | ({"dollars": dollars} if dollars else {})


def _check_horizon(horizon: int, label: str, policy: Policy) -> None:
    length = policy.chunk_length
    if horizon % length:
        raise ConfigError(
            f"A horizon of {horizon} actions is not a multiple of the chunk length {length} of the policy {label!r}; "
            f"set horizon={horizon // length * length or length}."
        )


def _check_resumable(config: EvaluateConfig, folder: Path) -> None:
    """Refuse to mix trials of different experiments in one folder; before the first one anything may change."""
    results = folder / "results.jsonl"
    if not results.exists() or not results.stat().st_size:
        return
    stored = load_config(EvaluateConfig, str(folder / "config.yaml"))
    changed = [key for key in _FIXED if getattr(config, key) != getattr(stored, key)]
    parts = {"policies": "all_policies", "worlds": "all_worlds", "rewards": "all_rewards"}
    for key, method in parts.items():
        now, before = getattr(config, method)(), getattr(stored, method)()
        changed += [f"{key}.{label}" for label in before if now.get(label) != before[label]]
    if changed:
        raise ConfigError(
            f"{folder} was evaluated with another {', '.join(changed)}. Leave that as it was to resume, or start anew "
            "with output=FOLDER. New labels under policies and worlds may be added."
        )
