"""`gymnast evaluate`: every policy in every world on the same tasks and seeds; resumable batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gymnast_core.closing import close_all, closing
from gymnast_core.config import ComponentConfig
from gymnast_core.devices import find_device
from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Component, Parts, Policy, RewardModel, WorldModel
from gymnast_core.money import in_dollars, total_usd
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.events import EvaluationDone, RunDone
from gymnast_core.plugins.hooks import check_sections, tell
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.success import success_of
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.evaluate import load_tasks, roll_out
from gymnast_evaluation.fitting import ask_all, check_all_needs, check_chunks
from gymnast_evaluation.resuming import check_resumable
from gymnast_evaluation.summary import Scores, brief, summarise
from gymnast_evaluation.trials import Trial, TrialFile
from gymnast_evaluation.videos import film, filmed_trials
from gymnast_pages.measure import Measure, judge_name


class JudgesFailing(GymnastError):
    """Too many rollouts could not be judged; the evaluation stops and can be resumed."""


@dataclass(frozen=True)
class Place:
    """Where policies are measured."""

    label: str
    world: WorldModel
    judge: RewardModel


def evaluate_command(config: EvaluateConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume an evaluation; writes the folder and returns what the command prints."""
    check_sections(config.hooks)
    if resume is not None:
        check_resumable(config, resume)
    ask_all(config.all_policies(), config.all_worlds())
    with terminating(), ExitStack() as opened:
        # Tasks may take long to make: a judge that refuses does so before them, and before there is a folder. An
        # evaluation that is resumed may have nothing left to judge, and then needs none.
        judges: dict[str, RewardModel] = {}
        for label in config.all_worlds() if resume is None else ():
            judges[label] = opened.enter_context(closing(_judge_of(config, label)))
        tasks = load_tasks(config.tasks, config.episodes)
        check_all_needs(config.all_policies(), config.all_worlds(), tasks[0], config.tasks.name)
        with run_folder(config, "evaluate", resume) as (config, folder), opened.pop_all():
            write_text(folder / "versions.json", json.dumps(versions(), indent=1))
            run = _Run(config, folder, tasks, judges)
            run.roll_out_what_is_missing()
            scores = Scores(run.file.trials, list(config.all_policies()), list(config.all_worlds()), config.group_by)
            names = {world: judge_name(part) for world, part in config.all_rewards().items()}
            summary = summarise(scores, names, reference=config.reference, seed=config.seed)
            write_json(folder / "summary.json", summary)
            tell("gymnast_run_done", RunDone(config, folder, summary=summary))
    return {"output": str(folder), **brief(summary)}


def _judge_of(config: EvaluateConfig, world: str) -> RewardModel:
    part = config.all_rewards()[world]
    return registries().reward_models.build(part.name, part.args, key=f"rewards.{world}")


class _Run:
    """The trials of one evaluation: which there are, which are done, and how the others are rolled out."""

    def __init__(
        self, config: EvaluateConfig, folder: Path, tasks: Sequence[Task], judges: Mapping[str, RewardModel]
    ) -> None:
        """`judges` are those that exist already, by the label of their world; whoever built them closes them."""
        self.config, self.folder, self.tasks, self.judges = config, folder, tasks, judges
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
        policies, worlds = self.config.all_policies(), self.config.all_worlds()
        wanted = {w: sum(self.batches[b] for p in policies for b in self.missing(p, w)) for w in worlds}
        if not any(wanted.values()):
            return
        device = find_device(self.config.device)
        with self._open([world for world in worlds if wanted[world]], wanted) as places:
            total = self.size * len(policies) * len(worlds)
            with Progress("Evaluating", total, unit="trial", start=total - sum(wanted.values())) as progress:
                for label, part in policies.items():
                    if any(self.missing(label, place.label) for place in places):
                        self._roll_out_policy(label, part, device, places, progress)

    def _roll_out_policy(
        self, label: str, part: ComponentConfig, device: torch.device, places: Sequence[Place], progress: Progress
    ) -> None:
        """Everything missing of one policy, which lives no longer than this call: two might not fit the memory."""
        with closing(registries().policies.build(part.name, part.args, key=f"policies.{label}")) as policy:
            check_chunks(self.config.horizon, label, policy)
            policy.to(device)
            policy.attach(Parts(policy=policy, tasks=self.tasks, config=self.config))
            for place in places:
                self._roll_out_in(label, policy, place, progress)

    @contextmanager
    def _open(self, labels: Sequence[str], wanted: Mapping[str, int]) -> Iterator[list[Place]]:
        """Worlds and judges, closed at the end. Judges come first: one that costs too much refuses early."""
        known, parts = registries(), self.config.all_worlds()
        opened: list[Component] = []
        try:
            judges = dict(self.judges)
            for label in labels:
                if label not in judges:
                    judges[label] = _judge_of(self.config, label)
                    opened.append(judges[label])
                judges[label].preflight(wanted[label], 1 + self.config.horizon)
            places = []
            for label in labels:
                world = known.world_models.build(parts[label].name, parts[label].args, key=f"worlds.{label}")
                opened.append(world)
                places.append(Place(label, world, judges[label]))
                # Policies come and go; these two stay together.
                self._parts(places[-1]).attach()
            yield places
        finally:
            close_all(opened)

    def _parts(self, place: Place, policy: Policy | None = None) -> Parts:
        return Parts(
            policy=policy, world_model=place.world, reward_model=place.judge, tasks=self.tasks, config=self.config
        )

    def _roll_out_in(self, label: str, policy: Policy, place: Place, progress: Progress) -> None:
        """The missing batches of a policy in a world; each one is judged while the next is rolled out."""
        config = self.config
        waiting: tuple[int, list[Rollout], Future[list[Reward]]] | None = None

        def finish(first: int, rollouts: list[Rollout], scored: Future[list[Reward]]) -> None:
            rewards = judge(place.judge, rollouts, scored, config.rescore)
            self._keep(label, place, first, rollouts, rewards)
            done = EvaluationDone(
                config, self.folder, parts=self._parts(place, policy), label=f"{label}-in-{place.label}",
                policy=label, world=place.label, rollouts=rollouts, rewards=rewards,
            )  # fmt: skip
            tell("gymnast_evaluation_done", done)
            progress.update(len(self.file.trials), self._numbers())

        for first in self.missing(label, place.label):
            tasks = [self.tasks[i % len(self.tasks)] for i in range(first, first + self.batches[first])]
            rollouts = roll_out(
                policy, place.world, tasks, first=first, horizon=config.horizon, temperature=config.temperature,
                seed=config.seed,
            )  # fmt: skip
            scored = submit(place.judge, rollouts)
            if waiting is not None:
                finish(*waiting)
            waiting = (first, rollouts, scored)
        if waiting is not None:
            finish(*waiting)

    def _keep(
        self, label: str, place: Place, first: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
    ) -> None:
        """Write videos and rows: rows last, since they say that the batch is done."""
        rows = [
            Trial(
                policy=label, world=place.label, index=rollout.group, task=rollout.task.id,
                instruction=rollout.task.instruction, trial=rollout.group // len(self.tasks), seed=self.config.seed,
                batch=first, value=success_of(reward), partial=reward.partial, outcome=rollout.outcome,
                error=reward.error, rationale=reward.rationale, cost_usd=reward.cost_usd, kind=place.judge.kind,
            )
            for rollout, reward in zip(rollouts, rewards, strict=True)
        ]  # fmt: skip
        self._check_judged(self.file.of(label, place.label) + rows, label, place.label)
        film(self.folder, label, place.label, rollouts, self.filmed)
        self.file.append(rows)

    def _check_judged(self, rows: Sequence[Trial], label: str, world: str) -> None:
        errors = [row.error for row in rows if row.error is not None]
        if len(errors) > self.config.max_error_rate * len(rows):
            raise JudgesFailing(
                f"{self.config.all_rewards()[world].name!r} could not judge {len(errors)} of {len(rows)} rollouts of "
                f"{label!r} in {world!r} (limit max_error_rate={self.config.max_error_rate}). First error: {errors[0]} "
                f"When it works again: {resume_command('evaluate', self.folder)} (max_error_rate=1 keeps such trials)"
            )

    def _numbers(self) -> dict[str, float | str]:
        """Means by what they mean: success over all worlds, and the mean reward by each other judge."""
        trials = self.file.trials
        judges = {world: judge_name(part) for world, part in self.config.all_rewards().items()}
        values: dict[str, list[float]] = {}
        for trial in trials:
            if trial.value is not None and trial.world in judges:
                values.setdefault(Measure(trial.kind, judges[trial.world]).name, []).append(trial.value)
        numbers: dict[str, float | str] = {name: sum(found) / len(found) for name, found in values.items()}
        unscored, cost = sum(trial.value is None for trial in trials), total_usd(trial.cost_usd for trial in trials)
        return (
            numbers | ({"unscored": unscored} if unscored else {}) | ({"cost": in_dollars(cost)} if cost != 0 else {})
        )
