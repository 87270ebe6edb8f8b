"""Labelled episodes as rollouts: what a judge is shown of them, and what it must not see."""

from __future__ import annotations

import torch

from gymnast_core.types import Episode, Rollout, Task, one_camera


def clip_rollout(episode: Episode, number: int, camera: str | None = None) -> Rollout:
    """The episode as a judge meets a policy's rollout. Its label stays behind: `outcome` is None.

    With a `camera`, that one alone is shown. Raises `DataError` if there is no such camera.
    """
    actions_NLA, proprio_TP = episode.actions_TA[:, None], episode.proprio_TP
    frames_TVHWC, cameras = episode.frames_TVHWC, episode.cameras
    if camera is not None:
        frames_TVHWC, cameras = one_camera(episode.view(camera)), (camera,)
    return Rollout(
        task=Task(
            id=episode.id,
            instruction=episode.instruction,
            frames_TVHWC=frames_TVHWC[:1],
            cameras=cameras,
            proprio_TP=None if proprio_TP is None else proprio_TP[:1],
        ),
        group=number,
        frames_TVHWC=frames_TVHWC,
        actions_NLA=actions_NLA,
        log_prob_NLD=torch.zeros(*actions_NLA.shape[:2], 1),
        temperature=1.0,
        cameras=cameras,
        proprio_TP=proprio_TP,
    )
