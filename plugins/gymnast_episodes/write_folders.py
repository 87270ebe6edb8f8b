"""Writers of the two folder formats of WorldGym: training episodes and trials."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_episodes.encode import encode_video
from gymnast_episodes.robots import GRIPPER, robot
from gymnast_episodes.writers import EpisodeWriter, Record, rate_of

log = logging.getLogger(__name__)

_MODEL_WIDTH = 10
"""Columns of WorldGym's actions."""
_TOLERANCE = 1e-5
"""Robot units by which an action may change through rounding."""


class WorldGymWriter(EpisodeWriter):
    """`NAME.mp4`, `NAME.npz` with `arr_0` (T, 10) in model units, `NAME.json` with the instruction.

    An episode has T - 1 actions. The last row, which leads to no frame, is an action of zeros in the source's units,
    but for the gripper, which stays as it was. Without `robot`, actions are stored as they are, in their own width.
    """

    def write(self, index: int, episode: Episode) -> Record:
        name = f"{index:09d}"
        actions_TA, changed = self._model_units(episode)
        encode_video(self.root / f"{name}.mp4", episode.view(), rate_of(episode), self.options.pixel_format)
        np.savez(self.root / f"{name}.npz", actions_TA.numpy())
        about = {"instruction": episode.instruction, "source": episode.id}
        (self.root / f"{name}.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        return {"id": episode.id, "length": len(episode.frames_TVHWC), "changed": changed}

    def finish(self, written: Sequence[Record]) -> None:
        changed = sum(record["changed"] for record in written)
        if changed:
            log.warning(
                "%d actions of %d episodes lie outside of what robot %r can do; the closest ones were written.",
                changed,
                sum(record["changed"] > 0 for record in written),
                self.options.robot,
            )

    def _model_units(self, episode: Episode) -> tuple[torch.Tensor, int]:
        """(T, A) as stored, and how many actions a reader will get back differently."""
        actions_TA = torch.cat([episode.actions_TA.float().cpu(), torch.zeros(1, episode.actions_TA.shape[1])])
        if actions_TA.shape[1] > GRIPPER:
            actions_TA[-1, GRIPPER] = actions_TA[-2, GRIPPER]
        if self.options.robot is None:
            return actions_TA, 0
        arm = robot(self.options.robot)
        if actions_TA.shape[1] != arm.width:
            raise DataError(
                f"Episode {episode.id!r} has actions of width {actions_TA.shape[1]}, but robot {arm.name!r} takes "
                f"{arm.width}. Choose the robot that the episodes are of."
            )
        model_TA = torch.nn.functional.pad(arm.to_model(actions_TA), (0, _MODEL_WIDTH - arm.width))
        different = (arm.from_model(model_TA) - actions_TA).abs() > _TOLERANCE
        return model_TA, int(different[:-1].any(dim=1).sum())


class TrialsWriter(EpisodeWriter):
    """`NAME.png` with the first frame, `NAME.json` with the instruction: what the dataset `trials` reads."""

    holds = ("video", "png")
    needs_fps = False

    def write(self, index: int, episode: Episode) -> Record:
        name = f"{index:06d}"
        Image.fromarray(episode.view()[0].cpu().numpy()).save(self.root / f"{name}.png")
        about = {"instruction": episode.instruction, "source": episode.id}
        (self.root / f"{name}.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
        return {"id": episode.id}
