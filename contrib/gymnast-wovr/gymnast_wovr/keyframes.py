"""Where failed rollouts went wrong, and the task that starts shortly before it.

The rule. A rollout failed if its outcome, or else its stored success, is below 0.5 (a stored score says nothing); a
recorded episode, if its label is `success: false`. It went wrong at step w: with a judge, the last step at which the
judge's score of the rollout so far (`Reward.partial`, else `value`) was at its highest, since from there on it only
lost; without one, its last step. What follows the end of the episode is no part of it. The policy starts at the
keyframe w - lead, but not before frame `context`, and the world model is shown the first frame and the last `context`
frames up to the keyframe, with the actions that led to each (WoVR, arXiv 2602.13977).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from gymnast_core.interfaces import RewardModel
from gymnast_core.success import is_success
from gymnast_core.types import Episode, Rollout, Task
from torch import Tensor

from gymnast_wovr.clips import clip, clip_ends, length

BATCH = 16
"""Failures whose clips are judged in one call."""


@dataclass(frozen=True)
class Failure:
    """A rollout that failed."""

    id: str
    rollout: Rollout


def stored_failures(folder: Path) -> Iterator[Failure]:
    """Failures among the rollouts that a run folder keeps, in order. Raises `DataError` if it is no run's."""
    from gymnast_judging.stored import stored_places

    for place in stored_places(folder, all_rollouts=True):
        for name, rollout, reward in zip(place.ids, *place.load(), strict=True):
            value = rollout.outcome
            if value is None and place.reward_kind == "success":
                value = reward.value
            if value is not None and not is_success(value):
                yield Failure(f"{folder.name}/{name}", rollout)


def recorded_failures(episodes: Sequence[Episode], seed: int) -> Iterator[Failure]:
    """Failures among recorded episodes, in an order drawn by the seed."""
    from gymnast_judging.clips import clip_rollout

    order = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed)).tolist()
    for index in order:
        episode = episodes[index]
        if episode.success is False:
            yield Failure(episode.id, clip_rollout(episode, 0))


def wrong_steps(failures: Sequence[Failure], judge: RewardModel | None, every: int) -> list[int | None]:
    """The step at which each rollout went wrong; None where the judge could not judge any of its clips."""
    if judge is None:
        return [length(failure.rollout) for failure in failures]
    found: list[int | None] = []
    for first in range(0, len(failures), BATCH):
        ends = [clip_ends(length(failure.rollout), every) for failure in failures[first : first + BATCH]]
        batch = list(zip(failures[first : first + BATCH], ends, strict=True))
        rewards = iter(judge.score([clip(failure.rollout, end) for failure, steps in batch for end in steps]))
        for _, steps in batch:
            judged = [(step, next(rewards)) for step in steps]
            scores = [
                (reward.value if reward.partial is None else reward.partial, step)
                for step, reward in judged
                if reward.value is not None
            ]
            # Of equal scores the later step.
            found.append(max(scores)[1] if scores else None)
    return found


def keyframe_task(failure: Failure, wrong: int, *, context: int, lead: int) -> Task:
    """The task that starts `lead` steps before step `wrong`; its rollout has at least `context` actions."""
    rollout = failure.rollout
    keyframe = max(wrong - lead, context)
    last = slice(keyframe - context + 1, keyframe + 1)
    # A rollout that began at a keyframe itself goes back to the first frame of all.
    frames_TVHWC = torch.cat([seen_by(rollout.task, rollout.cameras)[:1], rollout.frames_TVHWC[last]])
    begun, readings = rollout.task.proprio_TP, rollout.proprio_TP
    return Task(
        id=f"{failure.id}@{keyframe}",
        instruction=rollout.task.instruction,
        frames_TVHWC=frames_TVHWC,
        cameras=rollout.cameras,
        actions_TA=rollout.actions_NLA.flatten(0, 1)[keyframe - context : keyframe].clone(),
        proprio_TP=None if begun is None or readings is None else torch.cat([begun[:1], readings[last]]),
        partial_credit_criteria=rollout.task.partial_credit_criteria,
    )


def seen_by(task: Task, cameras: Sequence[str]) -> Tensor:
    """The task's context frames in these cameras, (T, V, H, W, C). Raises `DataError` if it lacks one."""
    return torch.stack([task.view(camera) for camera in cameras], dim=1)
