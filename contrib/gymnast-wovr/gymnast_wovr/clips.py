"""Parts of a rollout, each a rollout by itself, so that any reward model can be asked about a moment of it."""

from __future__ import annotations

from dataclasses import replace

from gymnast_core.types import Rollout, Task


def length(rollout: Rollout) -> int:
    """Actions that did something: those until the world ended the episode, or all."""
    return rollout.horizon if rollout.ended_after is None else rollout.ended_after


def clip_ends(length: int, every: int) -> list[int]:
    """Actions after which clips end: every, 2·every, …, and always the last one."""
    return sorted({*range(every, length + 1, every), length})


def clip_start(end: int, frames: int | None) -> int:
    """Actions before the first frame of a clip of that many frames (None: the rollout from its start)."""
    return 0 if frames is None else max(end + 1 - frames, 0)


def clip(rollout: Rollout, end: int, frames: int | None = None) -> Rollout:
    """The rollout up to action `end`: from its start, or its last `frames` frames there.

    Its chunks have one action (N = end - start, L = 1); what the world knew after each of them is kept. A clip that
    begins later than the rollout has no environment and no expert any more: neither began at its first frame.
    """
    start, ended = clip_start(end, frames), rollout.ended_after
    tokens, outcome_S, proprio_TP = rollout.tokens_NLD, rollout.outcome_S, rollout.proprio_TP
    return replace(
        rollout,
        task=_task_from(rollout, start) if start else rollout.task,
        frames_TVHWC=rollout.frames_TVHWC[start : end + 1],
        proprio_TP=None if proprio_TP is None else proprio_TP[start : end + 1],
        actions_NLA=rollout.actions_NLA.flatten(0, 1)[start:end, None],
        log_prob_NLD=rollout.log_prob_NLD.flatten(0, 1)[start:end, None],
        tokens_NLD=None if tokens is None else tokens.flatten(0, 1)[start:end, None],
        outcome_S=None if outcome_S is None else outcome_S[start:end],
        ended_after=ended - start if ended is not None and start < ended <= end else None,
    )


def _task_from(rollout: Rollout, start: int) -> Task:
    """The task, as if it began at that frame of the rollout."""
    proprio_TP = rollout.proprio_TP
    return replace(
        rollout.task,
        frames_TVHWC=rollout.frames_TVHWC[start : start + 1],
        cameras=rollout.cameras,
        proprio_TP=None if proprio_TP is None else proprio_TP[start : start + 1],
        actions_TA=None,
        start=None,
        expert=None,
    )
