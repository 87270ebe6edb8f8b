"""The run folder's `videos/`: which rollouts are kept, and the index that says what each one shows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.reading import as_record, read_list
from gymnast_core.runs.atomic import storing, write_text
from gymnast_core.success import is_success
from gymnast_core.types import Reward, Rollout
from gymnast_pages.measure import SUCCESS, Measure
from gymnast_pages.video import side_by_side, write_poster, write_video

IMAGINED = "imagined"
ENVIRONMENT = "environment"
TRAINING, EVALUATION = "training", "evaluation"
ITERATION = "iteration-"
"""How phases begin that are named after an iteration."""


@dataclass(frozen=True)
class Clip:
    """One video of the run and the judgement of what it shows."""

    file: str
    """Name inside `videos/`; unique."""
    poster: str
    """Name of the still image inside `videos/`."""
    title: str
    kind: str
    """"imagined" (a learned world) or "environment" (a world that knows its own outcome)."""
    phase: str
    """When: "before", "after" or "iteration-000003"."""
    task: str
    """Task id; before/after pairs join on it."""
    instruction: str
    value: float | None
    """Success in [0, 1], or a score (see `reward_kind`); None when unscored."""
    partial: float | None
    rationale: str
    error: str | None
    """Why the rollout could not be scored."""
    reward_kind: str = "success"
    """The reward model's kind: "success" or "score"."""
    judge: str = ""
    """The reward model's name."""
    source: str = ""
    """"training": what an iteration learned from; "evaluation": what the policy was measured on; "": not noted, as in
    earlier runs."""

    @property
    def of_training(self) -> bool:
        """Whether it shows what an iteration learned from. Where that was not noted, all that is named after an
        iteration is taken for it."""
        return self.source == TRAINING or (not self.source and self.phase.startswith(ITERATION))

    @property
    def when(self) -> str:
        """ "before training", "iteration 3", or "evaluation after iteration 3"."""
        title = phase_title(self.phase)
        return f"evaluation after {title}" if not self.of_training and self.phase.startswith(ITERATION) else title

    @property
    def measure(self) -> Measure:
        return Measure(self.reward_kind, self.judge)


def read_clips(videos: Path) -> list[Clip]:
    """The clips of a `videos/` folder whose files exist; empty when there is none."""
    index = videos / "index.json"
    if not index.exists():
        return []
    try:
        clips = [as_record(Clip, entry, str(index)) for entry in read_list(index, allow_nan=True)]
    except DataError as error:
        raise DataError(f"{error} Delete that file to rebuild the report without it.") from error
    return [clip for clip in clips if (videos / clip.file).exists()]


def record(
    videos: Path,
    phase: str,
    kind: str,
    rollouts: Sequence[Rollout],
    rewards: Sequence[Reward],
    measure: Measure = SUCCESS,
    *,
    source: str,
) -> list[Clip]:
    """Write the rollouts' videos as the only ones of that phase, kind and source, and update the index.

    Repeating a phase (a second batch in the same iteration, a resumed run) replaces its videos.
    """
    if not rollouts:
        return []
    of_training = source == TRAINING
    others = [
        clip for clip in read_clips(videos) if (clip.phase, clip.kind, clip.of_training) != (phase, kind, of_training)
    ]
    stem = _stem(phase, kind, source)
    clips = []
    for number, (rollout, reward) in enumerate(zip(rollouts, rewards, strict=True), start=1):
        name = f"{stem}-{number:02d}"
        picture_THWC = side_by_side(rollout.frames_TVHWC)
        write_video(picture_THWC, videos / f"{name}.mp4")
        write_poster(picture_THWC, videos / f"{name}.jpg")
        clips.append(_clip(name, phase, kind, rollout, reward, measure, source))
    write_text(videos / "index.json", json.dumps([asdict(clip) for clip in others + clips], indent=1))
    _remove_surplus(videos, stem, len(clips))
    return clips


def kind_of(rollouts: Sequence[Rollout]) -> str:
    """Only an environment knows its own outcome; what does not is imagined."""
    return ENVIRONMENT if any(rollout.outcome is not None for rollout in rollouts) else IMAGINED


def balanced(
    rollouts: Sequence[Rollout], rewards: Sequence[Reward], count: int, measure: Measure = SUCCESS
) -> list[int]:
    """Indices of up to `count` rollouts, half successes and half failures when there are enough of both; of other
    rewards, half the highest and half the lowest.

    Unscored rollouts are taken only when there is nothing else to show.
    """
    values = {i: reward.value for i, reward in enumerate(rewards) if reward.value is not None}
    unscored = [i for i in range(len(rewards)) if i not in values]
    if measure.is_success:
        successes = _spread(rollouts, [i for i, value in values.items() if is_success(value)])
        failures = _spread(rollouts, [i for i, value in values.items() if not is_success(value)])
    else:
        order = sorted(values, key=lambda i: values[i], reverse=True)
        successes, failures = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :][::-1]
    half = count // 2
    chosen = successes[:half] + failures[: count - half]
    rest = successes[half:] + failures[count - half :] + unscored
    return (chosen + rest)[:count]


def same_tasks(rollouts: Sequence[Rollout], shown: Sequence[str], count: int, below: int | None = None) -> list[int]:
    """Indices of up to `count` rollouts of different tasks: those in `shown` first, then those of the trials below the
    number `below`, in task order.

    Outcomes play no part, so the videos are a fair sample of the evaluation.
    """
    first_of_task: dict[str, int] = {}
    for index, rollout in enumerate(rollouts):
        first_of_task.setdefault(rollout.task.id, index)
    known = [first_of_task.pop(task) for task in shown if task in first_of_task]
    others = [i for i in first_of_task.values() if below is None or rollouts[i].group < below]
    return (known + _spread(rollouts, others))[:count]


def _spread(rollouts: Sequence[Rollout], indices: Sequence[int]) -> list[int]:
    """Reorder so that different instructions come before repeats of one."""
    seen: dict[str, int] = {}
    turns = []
    for index in indices:
        instruction = rollouts[index].task.instruction
        seen[instruction] = seen.get(instruction, 0) + 1
        turns.append((seen[instruction], index))
    return [index for _, index in sorted(turns)]


def _stem(phase: str, kind: str, source: str) -> str:
    """How the files are called: those of an evaluation between iterations not as those of the iteration."""
    apart = f"{EVALUATION}-" if source == EVALUATION and phase.startswith(ITERATION) else ""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{apart}{phase}-{kind}").lstrip(".")


def _clip(name: str, phase: str, kind: str, rollout: Rollout, reward: Reward, measure: Measure, source: str) -> Clip:
    where = "Imagined" if kind == IMAGINED else "Environment"
    clip = Clip(
        file=f"{name}.mp4",
        poster=f"{name}.jpg",
        title="",
        kind=kind,
        phase=phase,
        task=rollout.task.id,
        instruction=rollout.task.instruction,
        value=reward.value,
        partial=reward.partial,
        rationale=reward.rationale,
        error=reward.error,
        reward_kind=measure.kind,
        judge=measure.judge,
        source=source,
    )
    return replace(clip, title=f"{where}, {clip.when}: {rollout.task.instruction}")


def phase_title(phase: str) -> str:
    """ "iteration-000003" -> "iteration 3"; "before" -> "before training"."""
    number = phase.removeprefix(ITERATION)
    if number != phase and number.isdigit():
        return f"iteration {int(number)}"
    return f"{phase} training" if phase in ("before", "after") else phase


def _remove_surplus(videos: Path, stem: str, count: int) -> None:
    for path in videos.glob(f"{stem}-*"):
        number = path.stem.removeprefix(f"{stem}-")
        if path.suffix in (".mp4", ".jpg") and number.isdigit() and int(number) > count:
            with storing(path):
                path.unlink()
