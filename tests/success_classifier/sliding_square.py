"""A square that moved to the left or to the right, or hardly at all."""

from __future__ import annotations

from dataclasses import replace

import torch

from gymnast_core.types import Episode, Rollout, Task, one_camera
from gymnast_success_classifier.reward import SuccessClassifier

SIZE = 16
LEFT, RIGHT = "move the square to the left", "move the square to the right"


def make_classifier(**changes: object) -> SuccessClassifier:
    config = SuccessClassifier.Config(instructions=[LEFT, RIGHT], image_size=SIZE, width=8, hidden=32)
    return SuccessClassifier(replace(config, **changes))


def make_episode(seed: int, size: int = SIZE) -> Episode:
    generator = torch.Generator().manual_seed(seed)
    ranges = ((4, 9), (-4, 5), (2, 11))
    start, move, row = (int(torch.randint(*bounds, (1,), generator=generator)) for bounds in ranges)
    frames_THWC = torch.full((5, SIZE, SIZE, 3), 30, dtype=torch.uint8)
    for frame, x in enumerate(torch.linspace(start, start + move, 5).round().int().tolist()):
        frames_THWC[frame, row : row + 3, x : x + 3] = torch.tensor([220, 60, 60], dtype=torch.uint8)
    frames_THWC = frames_THWC.repeat_interleave(size // SIZE, 1).repeat_interleave(size // SIZE, 2)
    outcomes = {LEFT: move <= -2, RIGHT: move >= 2}
    own = (LEFT, RIGHT)[seed % 2]
    return Episode(
        id=str(seed),
        instruction=own,
        frames_TVHWC=one_camera(frames_THWC),
        actions_TA=torch.zeros(4, 1),
        success=outcomes[own],
        outcomes=outcomes,
    )


def make_rollout(episode: Episode, instruction: str | None = None) -> Rollout:
    task = Task(episode.id, instruction or episode.instruction, episode.frames_TVHWC[:1], episode.cameras)
    zeros = torch.zeros(2, 2, 1)
    return Rollout(task, 0, episode.frames_TVHWC, zeros, zeros, temperature=1.0, cameras=episode.cameras)
