"""`gymnast judge`: every labelled clip put to a reward model, its verdicts held against the truth; resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from gymnast_core.closing import closing
from gymnast_core.config import load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.money import in_dollars, total_usd
from gymnast_core.plugins.registry import registries
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.types import Episode
from gymnast_judging.clips import clip_rollout
from gymnast_judging.config import JudgeConfig
from gymnast_judging.page import build_confusion_page, chosen_films, video_path
from gymnast_judging.rows import RowFile
from gymnast_judging.scoring import Asked, ErrorLimit, judged
from gymnast_judging.summary import brief, summarise
from gymnast_judging.verdicts import Verdict
from gymnast_pages.measure import judge_name
from gymnast_pages.video import write_poster, write_video

_FIXED = ("reward_model", "clips", "camera", "threshold")
"""Keys that say what a verdict is; a resumed measurement keeps them."""


def judge_command(config: JudgeConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume a measurement; writes the folder and returns what the command prints."""
    if resume is not None:
        stored = load_config(JudgeConfig, str(resume / "config.yaml"))
        refuse_changes(stored, config, _FIXED, free_arguments(stored))
    with terminating(), ExitStack() as opened:
        # Clips may take long to make: a judge that refuses does so before them, and before there is a folder. A
        # measurement that is resumed may have nothing left to ask, and then needs none.
        judge = _opened(config, opened) if resume is None else None
        clips = _clips(config)
        _check_labels(config, clips)
        with run_folder(config, "judge", resume) as (config, folder), opened.pop_all() as held:
            return _judge(config, folder, clips, lambda: _opened(config, held) if judge is None else judge)


def _opened(config: JudgeConfig, opened: ExitStack) -> RewardModel:
    """The judge, which is closed with `opened`."""
    part = config.reward_model
    judge = opened.enter_context(closing(registries().reward_models.build(part.name, part.args, key="reward_model")))
    if judge.kind == "success" and not 0.0 <= config.threshold < 1.0:
        raise ConfigError(f"threshold is {config.threshold}; it must lie in [0, 1).")
    return judge


def _judge(
    config: JudgeConfig, folder: Path, clips: Sequence[Episode], judge: Callable[[], RewardModel]
) -> dict[str, Any]:
    write_text(folder / "versions.json", json.dumps(versions(), indent=1))
    file = RowFile(folder / "results.jsonl", Verdict)
    done = {row.index for row in file.rows if row.error is None and row.index < len(clips)}
    missing = _Missing(clips, done, config.camera)
    batches = missing.batches(config.batch_size)
    # Whether a clip has a label is known once it is read: a judge is built when there is one to ask about.
    if (first := next(batches, None)) is not None:
        _ask(config, folder, missing, first, batches, file, judge())
    rows = _latest(file.rows, len(clips))
    _film(config, folder, rows, clips)
    summary = summarise(
        rows, reward_model=judge_name(config.reward_model), clips=config.clips.name, threshold=config.threshold,
        bins=config.bins, unlabelled=len(clips) - len(rows),
        cost_usd=total_usd(row.cost_usd for row in file.rows),
    )  # fmt: skip
    summary["asked"] = len(clips)
    write_json(folder / "summary.json", summary)
    build_confusion_page(folder)
    return {"output": str(folder), **brief(summary)}


def _check_labels(config: JudgeConfig, clips: Sequence[Episode]) -> None:
    """Raises `DataError`, before a judge is asked or paid, if no clip says whether it is a success."""
    if all(clips[index].success is None for index in range(len(clips))):
        raise DataError(
            f"None of the {len(clips)} clips of {config.clips.name!r} says whether it is a success, so nothing can be "
            "compared. `gymnast collect` records it; a LeRobotDataset has it in the column gymnast/success of its "
            "episodes (meta/episodes, or meta/episodes.jsonl), true or false."
        )


@dataclass
class _Missing:
    """The clips that have no verdict yet."""

    clips: Sequence[Episode]
    done: set[int]
    camera: str | None
    unlabelled: int = 0
    """Clips without a label among those that were read so far: nobody is asked about them."""

    def __len__(self) -> int:
        """Clips to ask about: at most, until all of them are read."""
        return len(self.clips) - len(self.done) - self.unlabelled

    def batches(self, size: int) -> Iterator[Asked[tuple[int, bool]]]:
        """Numbers and truths of labelled clips, with their rollouts; frames are read as they are needed."""
        items: list[tuple[int, bool]] = []
        rollouts = []
        for number in (i for i in range(len(self.clips)) if i not in self.done):
            episode = self.clips[number]
            if episode.success is not None:
                items.append((number, episode.success))
                rollouts.append(clip_rollout(episode, number, self.camera))
            else:
                self.unlabelled += 1
            if len(items) == size:
                yield Asked(items, rollouts)
                items, rollouts = [], []
        if items:
            yield Asked(items, rollouts)


def _ask(
    config: JudgeConfig,
    folder: Path,
    missing: _Missing,
    first: Asked[tuple[int, bool]],
    others: Iterator[Asked[tuple[int, bool]]],
    file: RowFile[Verdict],
    judge: RewardModel,
) -> None:
    done = len(missing.done)
    judge.attach(Parts(reward_model=judge, config=config))
    judge.preflight(len(missing), max(rollout.frame_count for rollout in first.rollouts))
    again = resume_command("judge", folder)
    limit = ErrorLimit(config.max_error_rate, config.reward_model.name, again, judged=done)
    with Progress("Judging", len(missing.clips), unit="clip", start=done) as progress:
        for asked, rewards in judged(judge, chain([first], others), rescore=config.rescore):
            rows = [
                Verdict(
                    index=index, clip=rollout.task.id, instruction=rollout.task.instruction, success=success,
                    value=reward.value, partial=reward.partial, votes=list(reward.votes), error=reward.error,
                    rationale=reward.rationale, cost_usd=reward.cost_usd, reward_kind=judge.kind,
                    abstained=reward.abstained,
                )
                for (index, success), rollout, reward in zip(asked.items, asked.rollouts, rewards, strict=True)
            ]  # fmt: skip
            file.append(rows)
            done += len(rows)
            progress.update(
                done + missing.unlabelled, _numbers(config, _latest(file.rows, len(missing.clips)), file.rows)
            )
            limit.add(rewards)


def _numbers(config: JudgeConfig, rows: Sequence[Verdict], asked: Sequence[Verdict]) -> dict[str, float | str]:
    right = [row.judged(config.threshold) == row.success for row in rows if row.value is not None]
    unscored, cost = len(rows) - len(right), total_usd(row.cost_usd for row in asked)
    numbers: dict[str, float | str] = {"accuracy": sum(right) / len(right)} if right else {}
    return numbers | ({"unscored": unscored} if unscored else {}) | ({"cost": in_dollars(cost)} if cost != 0 else {})


def _latest(rows: Sequence[Verdict], clips: int) -> list[Verdict]:
    """The last row of each clip, in order: a clip that failed may have been judged in a later process."""
    by_index = {row.index: row for row in rows if row.index < clips}
    return [by_index[index] for index in sorted(by_index)]


def _film(config: JudgeConfig, folder: Path, rows: Sequence[Verdict], clips: Sequence[Episode]) -> None:
    for row in chosen_films(rows, config.threshold, config.videos):
        path = video_path(folder, row.index)
        if not path.exists():
            frames_THWC = clips[row.index].view(config.camera)
            write_poster(frames_THWC, path.with_suffix(".jpg"))
            write_video(frames_THWC, path)


def _clips(config: JudgeConfig) -> Sequence[Episode]:
    clips = registries().datasets.build(config.clips.name, config.clips.args, key="clips").episodes()
    if not len(clips):
        raise DataError(f"The dataset {config.clips.name!r} holds no episodes.")
    count = len(clips) if config.episodes is None else min(config.episodes, len(clips))
    return clips if count == len(clips) else _First(clips, count)


class _First(Sequence[Episode]):
    """The first episodes of a dataset, still read when they are indexed."""

    def __init__(self, episodes: Sequence[Episode], length: int) -> None:
        self._episodes, self._length = episodes, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._episodes[range(self._length)[index]]
