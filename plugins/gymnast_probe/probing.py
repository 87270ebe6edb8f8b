"""`gymnast probe`: every policy under every edit of the same tasks; resumable batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gymnast_core.closing import close_all, closing
from gymnast_core.config import load_config
from gymnast_core.devices import find_device
from gymnast_core.interfaces import Component, Parts, Policy, RewardModel, WorldModel
from gymnast_core.money import total_usd
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.events import RunDone
from gymnast_core.plugins.hooks import check_sections, tell
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.spending import spent_usd
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.training.judge import judge
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.evaluate import load_tasks, roll_out
from gymnast_evaluation.fitting import ask_all, check_all_needs, check_chunks
from gymnast_evaluation.resuming import has_rows
from gymnast_evaluation.trials import Trial, TrialFile
from gymnast_evaluation.videos import film, filmed_trials
from gymnast_pages.measure import judge_name
from gymnast_probe.config import ORIGINAL, ProbeConfig
from gymnast_probe.costs import is_booked, note_earlier, note_edit, note_judged
from gymnast_probe.interfaces import Edit, Edited, EditorFailed, NotApplicable, ProbeFailing
from gymnast_probe.kept import keep, read_kept
from gymnast_probe.library import build_edit, check_judged, edit_task
from gymnast_probe.page import build_probe_page
from gymnast_probe.pictures import keep_picture
from gymnast_probe.summary import summarise

_FIXED = ("world_model", "reward_model", "tasks", "horizon", "temperature", "episodes", "batch_size", "seed")
"""Keys that say what a trial is; a resumed probe keeps them."""
PICTURES = 4
"""Start frames kept of each edit, for the page."""


def probe_command(config: ProbeConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume a probe; writes the folder and returns what the command prints."""
    check_sections(config.hooks)
    # Written out, so that a resumed probe adds to them.
    config = replace(config, edits=config.all_edits())
    edits = {label: build_edit(label, settings) for label, settings in config.edits.items()}
    for edit in edits.values():
        edit.prepare()
    if resume is not None:
        _check_resumable(config, resume)
    ask_all(config.all_policies(), {"": config.world_model}, key="world_model")
    with terminating(), ExitStack() as opened:
        # Tasks may take long to make: a judge that refuses does so before them, and before there is a folder. A probe
        # that is resumed may have nothing left to judge, and then needs none.
        reward_model = opened.enter_context(closing(_judge_of(config))) if resume is None else None
        tasks = load_tasks(config.tasks, config.episodes)
        check_all_needs(config.all_policies(), {"": config.world_model}, tasks[0], config.tasks.name, key="world_model")
        with run_folder(config, "probe", resume) as (config, folder), opened.pop_all():
            write_text(folder / "versions.json", json.dumps(versions(), indent=1))
            run = _Run(config, folder, tasks, edits, reward_model)
            try:
                run.roll_out_what_is_missing()
            finally:
                close_all(edits.values())
            labels = [ORIGINAL, *edits]
            trials = [trial for trial in run.file.trials if trial.world in labels]
            judged_by = judge_name(config.reward_model)
            summary = summarise(trials, list(config.all_policies()), labels, judge=judged_by, seed=config.seed)
            summary["cost_usd"] = spent_usd(folder)
            write_json(folder / "summary.json", summary)
            build_probe_page(folder)
            tell("gymnast_run_done", RunDone(config, folder, summary=summary))
    return {"output": str(folder), **{key: summary[key] for key in ("policies", "unscored", "cost_usd")}}


def _judge_of(config: ProbeConfig) -> RewardModel:
    part = config.reward_model
    return registries().reward_models.build(part.name, part.args, key="reward_model")


@dataclass(frozen=True)
class Unedited:
    """A task that was not edited."""

    error: str
    """Why."""
    applies: bool = True
    """Whether the edit makes sense there."""
    cost_usd: float | None = 0.0
    """What was paid all the same; None: not known."""


class _Run:
    """The trials of one probe: rows of results.jsonl, whose "world" is the label of the edit."""

    def __init__(
        self,
        config: ProbeConfig,
        folder: Path,
        tasks: Sequence[Task],
        edits: dict[str, Edit],
        judge: RewardModel | None,
    ) -> None:
        """`judge` is closed by whoever built it; None: to be built, and closed, where something is to be judged."""
        self.config, self.folder, self.tasks, self.edits, self.judge = config, folder, tasks, edits, judge
        size = config.batch_size
        self.batches = {first: min(size, len(tasks) - first) for first in range(0, len(tasks), size)}
        self.file = TrialFile(folder / "results.jsonl", self.batches)
        self.filmed = filmed_trials(len(tasks), config.videos)
        note_earlier(folder, self.file.trials)

    def missing(self, policy: str) -> list[tuple[str, int]]:
        """Edit and first trial of the batches that are not done."""
        labels = (ORIGINAL, *self.edits)
        return [
            (label, first) for label in labels for first in self.batches if not self.file.holds(policy, label, first)
        ]

    def roll_out_what_is_missing(self) -> None:
        """Policy by policy: two might not fit the memory."""
        known, config, device = registries(), self.config, find_device(self.config.device)
        wanted = [label for label in config.all_policies() if self.missing(label)]
        if not wanted:
            return
        total = len(self.tasks) * len(config.all_policies()) * (1 + len(self.edits))
        opened: list[Component] = []
        try:
            reward_model = self.judge
            if reward_model is None:
                reward_model = _judge_of(config)
                opened.append(reward_model)
            reward_model.preflight(total - len(self.file.trials), 1 + config.horizon)
            world = known.world_models.build(config.world_model.name, config.world_model.args, key="world_model")
            opened.append(world)
            # Policies come and go; these two stay together.
            Parts(world_model=world, reward_model=reward_model, tasks=self.tasks, config=config).attach()
            due = {label for name in wanted for label, _ in self.missing(name)}
            edits = {label: edit for label, edit in self.edits.items() if label in due}
            check_judged(edits, self.tasks[0], reward_model, "edits")
            with Progress("Probing", total, unit="trial", start=len(self.file.trials)) as progress:
                for name in wanted:
                    self._roll_out_policy(name, device, world, reward_model, progress)
        finally:
            close_all(opened)

    def _roll_out_policy(
        self, name: str, device: torch.device, world: WorldModel, reward_model: RewardModel, progress: Progress
    ) -> None:
        """Everything missing of one policy, which lives no longer than this call."""
        part = self.config.all_policies()[name]
        with closing(registries().policies.build(part.name, part.args, key=f"policies.{name}")) as policy:
            check_chunks(self.config.horizon, name, policy)
            policy.to(device)
            policy.attach(Parts(policy=policy, tasks=self.tasks, config=self.config))
            for label, first in self.missing(name):
                self._roll_out(name, policy, label, first, self._edited(label, first), world, reward_model)
                progress.update(len(self.file.trials), {})

    def _edited(self, label: str, first: int) -> list[Edited | Unedited]:
        """Each task of a batch edited, or why it is not."""
        found: list[Edited | Unedited] = []
        for index in range(first, first + self.batches[first]):
            task = self.tasks[index]
            if label == ORIGINAL:
                found.append(Edited(task, task.instruction))
                continue
            try:
                found.append(self._edit(label, index, task))
            except NotApplicable as reason:
                found.append(Unedited(f"The edit does not apply: {reason}.", applies=False))
            except EditorFailed as error:
                note_edit(self.folder, index, error.cost_usd)
                found.append(Unedited(str(error), cost_usd=error.cost_usd))
        if label == ORIGINAL:
            return found
        pictures = len(list((self.folder / "pictures" / label).glob("*.png")))
        for index, item in enumerate(found, start=first):
            if isinstance(item, Edited) and pictures < PICTURES:
                keep_picture(self.folder, label, index, self.tasks[index], item)
                pictures += 1
        return found

    def _edit(self, label: str, index: int, task: Task) -> Edited:
        edit = self.edits[label]
        known = read_kept(self.folder, label, index, task) if edit.is_generated else None
        if known is not None:
            # Paid once: by the first row, or, if a batch was killed before it had rows, by the first that then has one.
            booked = is_booked(self.file.trials, label, index, known.cost_usd)
            return replace(known, cost_usd=0.0) if booked else known
        edited = edit_task(edit, label, task, self.config.seed)
        if edit.is_generated:
            note_edit(self.folder, index, edited.cost_usd)
            keep(self.folder, label, index, task, edited)
        return edited

    def _roll_out(
        self,
        name: str,
        policy: Policy,
        label: str,
        first: int,
        edited: Sequence[Edited | Unedited],
        world: WorldModel,
        reward_model: RewardModel,
    ) -> None:
        """One batch of a policy under an edit: rolled out as the policy sees it, judged by the goal that counts."""
        config = self.config
        places = [first + i for i, item in enumerate(edited) if isinstance(item, Edited)]
        items = [item for item in edited if isinstance(item, Edited)]
        done: dict[int, tuple[Rollout, Reward]] = {}
        if items:
            rollouts = roll_out(
                policy, world, [item.task for item in items], first=first, horizon=config.horizon,
                temperature=config.temperature, seed=config.seed,
            )  # fmt: skip
            judged = [
                replace(rollout, task=item.as_judged(), group=place)
                for rollout, item, place in zip(rollouts, items, places, strict=True)
            ]
            rewards = judge(reward_model, judged, again=config.rescore)
            note_judged(self.folder, first, [reward.cost_usd for reward in rewards])
            film(self.folder, name, label, judged, self.filmed)
            done = dict(zip(places, zip(judged, rewards, strict=True), strict=True))
        rows = []
        for index, item in enumerate(edited, start=first):
            outcome: float | None = None
            paid: float | None = 0.0
            shown = self.tasks[index].instruction
            if isinstance(item, Edited):
                rollout, reward = done[index]
                outcome, shown, paid = rollout.outcome, item.task.instruction, item.cost_usd
            else:
                reward, paid = Reward(None, error=item.error), item.cost_usd
            rows.append(
                Trial(
                    policy=name, world=label, index=index, task=self.tasks[index].id, instruction=shown, trial=0,
                    seed=config.seed, batch=first, value=reward.value, partial=reward.partial, outcome=outcome,
                    error=reward.error, rationale=reward.rationale, cost_usd=total_usd((reward.cost_usd, paid)),
                    kind=reward_model.kind, applies=isinstance(item, Edited) or item.applies,
                )
            )  # fmt: skip
        self._check_judged(rows, name, label)
        self.file.append(rows)

    def _check_judged(self, rows: Sequence[Trial], name: str, label: str) -> None:
        """Before they are kept as done: raises `ProbeFailing` if too many of a policy's trials under an edit failed."""
        known = [row for row in (*self.file.of(name, label), *rows) if row.applies]
        errors = [row.error for row in known if row.error is not None]
        if len(errors) > self.config.max_error_rate * len(known):
            raise ProbeFailing(
                f"{len(errors)} of {len(known)} trials of {name!r} under {label!r} could not be edited or judged "
                f"(limit max_error_rate={self.config.max_error_rate:g}). Last error: {errors[-1]} When it works again: "
                f"{resume_command('probe', self.folder)} (max_error_rate=1 keeps such trials)"
            )


def _check_resumable(config: ProbeConfig, folder: Path) -> None:
    """Refuse to mix trials of different experiments in one folder: raises `ConfigError`."""
    if not has_rows(folder):
        return
    stored = _plural(load_config(ProbeConfig, str(folder / "config.yaml")))
    # A label may begin like another one, so a part alone is no prefix to go by.
    policies = [f"policies.{label}" for label in stored.policies]
    fixed = [f"{policy}.{field}" for policy in policies for field in ("name", "args")]
    config = _plural(config)
    # An edit may be left out, and taken up again as it was.
    kept = [label for label in stored.edits if label in config.edits]
    fixed += [f"edits.{label}.{name}" for label in kept for name in {**stored.edits[label], **config.edits[label]}]
    free = [*free_arguments(stored), *(f"edits.{label}.args.max_usd" for label in kept)]
    refuse_changes(stored, config, [*_FIXED, *fixed], free)


def _plural(config: ProbeConfig) -> ProbeConfig:
    """The same config with its single policy among the others, and its edits written out."""
    return replace(config, policies=config.all_policies(), policy=None, edits=config.all_edits())
