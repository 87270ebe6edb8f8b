"""`gymnast probe`: every policy under every edit of the same tasks; resumable batch by batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gymnast_core.config import load_config, to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.folder import open_run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.types import Reward, Rollout, Task
from gymnast_evaluation.evaluate import choose_device, judge_again, load_tasks, roll_out
from gymnast_evaluation.trials import Trial, TrialFile
from gymnast_evaluation.videos import film, filmed_trials
from gymnast_probe.config import ORIGINAL, ProbeConfig
from gymnast_probe.interfaces import Edit, Edited, EditorFailed, NotApplicable
from gymnast_probe.kept import keep, read_kept
from gymnast_probe.library import build_edit, edit_task
from gymnast_probe.page import build_probe_page
from gymnast_probe.pictures import keep_picture
from gymnast_probe.summary import DOES_NOT_APPLY, summarise

_FIXED = ("world_model", "reward_model", "tasks", "horizon", "temperature", "episodes", "batch_size", "seed")
"""Keys that say what a trial is; a resumed probe keeps them."""
PICTURES = 4
"""Start frames kept of each edit, for the page."""


def probe_command(config: ProbeConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume a probe; writes the folder and returns what the command prints."""
    # Written out, so that a resumed probe adds to them.
    config = replace(config, edits=config.all_edits())
    edits = {label: build_edit(label, settings) for label, settings in config.edits.items()}
    for edit in edits.values():
        edit.prepare()
    if resume is not None:
        _check_resumable(config, resume)
    tasks = load_tasks(config.tasks, config.episodes)
    config, folder = open_run_folder(config, "probe", resume)
    if resume is not None:
        write_text(folder / "config.yaml", to_yaml(config))
    write_text(folder / "versions.json", json.dumps(versions(), indent=1))
    run = _Run(config, folder, tasks, edits)
    try:
        run.roll_out_what_is_missing()
    finally:
        for edit in edits.values():
            edit.close()
    labels = [ORIGINAL, *edits]
    trials = [trial for trial in run.file.trials if trial.world in labels]
    summary = summarise(trials, list(config.all_policies()), labels, seed=config.seed)
    write_json(folder / "summary.json", summary)
    build_probe_page(folder)
    return {"output": str(folder), **{key: summary[key] for key in ("policies", "unscored", "cost_usd")}}


class _Run:
    """The trials of one probe: rows of results.jsonl, whose "world" is the label of the edit."""

    def __init__(self, config: ProbeConfig, folder: Path, tasks: Sequence[Task], edits: dict[str, Edit]) -> None:
        self.config, self.folder, self.tasks, self.edits = config, folder, tasks, edits
        size = config.batch_size
        self.batches = {first: min(size, len(tasks) - first) for first in range(0, len(tasks), size)}
        self.file = TrialFile(folder / "results.jsonl", self.batches)
        self.filmed = filmed_trials(len(tasks), config.videos)

    def missing(self, policy: str) -> list[tuple[str, int]]:
        """Edit and first trial of the batches that are not done."""
        labels = (ORIGINAL, *self.edits)
        return [
            (label, first) for label in labels for first in self.batches if not self.file.holds(policy, label, first)
        ]

    def roll_out_what_is_missing(self) -> None:
        """Policy by policy: two might not fit the memory."""
        known, config, device = registries(), self.config, choose_device(self.config.device)
        wanted = [label for label in config.all_policies() if self.missing(label)]
        if not wanted:
            return
        judge = known.reward_models.build(config.reward_model.name, config.reward_model.args, key="reward_model")
        world: WorldModel | None = None
        total = len(self.tasks) * len(config.all_policies()) * (1 + len(self.edits))
        try:
            judge.preflight(total - len(self.file.trials), 1 + config.horizon)
            world = known.world_models.build(config.world_model.name, config.world_model.args, key="world_model")
            with Progress("Probing", total, unit="trial", start=len(self.file.trials)) as progress:
                for name in wanted:
                    policy = _policy(name, config, device)
                    for label, first in self.missing(name):
                        self._roll_out(name, policy, label, first, self._edited(label, first), world, judge)
                        progress.update(len(self.file.trials), {})
        finally:
            judge.close()
            if world is not None:
                world.close()

    def _edited(self, label: str, first: int) -> list[Edited | str]:
        """Each task of a batch edited, or why it is not."""
        found: list[Edited | str] = []
        for index in range(first, first + self.batches[first]):
            task = self.tasks[index]
            if label == ORIGINAL:
                found.append(Edited(task, task.instruction))
                continue
            try:
                found.append(self._edit(label, index, task))
            except NotApplicable as reason:
                found.append(f"{DOES_NOT_APPLY}: {reason}.")
            except EditorFailed as error:
                found.append(str(error))
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
            return known
        edited = edit_task(edit, label, task, self.config.seed)
        if edit.is_generated:
            keep(self.folder, label, index, task, edited)
        return edited

    def _roll_out(
        self,
        name: str,
        policy: Policy,
        label: str,
        first: int,
        edited: Sequence[Edited | str],
        world: WorldModel,
        judge: RewardModel,
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
                replace(rollout, task=replace(rollout.task, instruction=item.judged), group=place)
                for rollout, item, place in zip(rollouts, items, places, strict=True)
            ]
            rewards = judge_again(judge, judged, judge.score(judged), config.rescore)
            film(self.folder, name, label, judged, self.filmed)
            done = dict(zip(places, zip(judged, rewards, strict=True), strict=True))
        rows = []
        for index, item in enumerate(edited, start=first):
            shown = item.task.instruction if isinstance(item, Edited) else self.tasks[index].instruction
            rollout, reward = done.get(index, (None, Reward(None, error=item if isinstance(item, str) else "")))
            paid = item.cost_usd if isinstance(item, Edited) else 0.0
            rows.append(
                Trial(
                    policy=name, world=label, index=index, task=self.tasks[index].id, instruction=shown, trial=0,
                    seed=config.seed, batch=first, value=reward.value, partial=reward.partial,
                    outcome=None if rollout is None else rollout.outcome, error=reward.error,
                    rationale=reward.rationale, cost_usd=reward.cost_usd + paid,
                )
            )  # fmt: skip
        self.file.append(rows)


def _policy(label: str, config: ProbeConfig, device: torch.device) -> Policy:
    part = config.all_policies()[label]
    policy = registries().policies.build(part.name, part.args, key=f"policies.{label}")
    if config.horizon % policy.chunk_length:
        length = policy.chunk_length
        raise ConfigError(
            f"A horizon of {config.horizon} actions is not a multiple of the chunk length {length} of the policy "
            f"{label!r}; set horizon={config.horizon // length * length or length}."
        )
    policy.to(device)
    return policy


def _check_resumable(config: ProbeConfig, folder: Path) -> None:
    """Refuse to mix trials of different experiments in one folder."""
    results = folder / "results.jsonl"
    if not results.exists() or not results.stat().st_size:
        return
    stored = load_config(ProbeConfig, str(folder / "config.yaml"))
    changed = [key for key in _FIXED if getattr(config, key) != getattr(stored, key)]
    for key in ("policies", "edits"):
        now, before = getattr(config, f"all_{key}")(), getattr(stored, f"all_{key}")()
        changed += [f"{key}.{label}" for label in before if label in now and now[label] != before[label]]
    if changed:
        raise ConfigError(
            f"{folder} was probed with another {', '.join(changed)}. Leave that as it was to resume, or start anew "
            "with output=FOLDER. New labels under policies and edits may be added."
        )
