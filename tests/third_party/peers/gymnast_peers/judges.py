"""One judge sees where the cart ended; the other asks the run's own world model what an expert would have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gymnast_core.interfaces import Parts, RewardModel, WorldModel
from gymnast_core.types import Reward, Rollout


class RailEnd(RewardModel):
    """Success: the wrist camera sees the cart in the right third; finished when it first does. Progress is rewarded."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        camera: str = "front"
        """Which camera it looks at."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        if len(rollout.frames_TVHWC) < 2 or not rollout.task.instruction:
            return Reward(None, error="There is nothing to see, or nothing to do.")
        rows_TW = rollout.view(self.config.camera)[:, 0, :, 0].float()
        pixels = torch.arange(rows_TW.shape[1]) / (rows_TW.shape[1] - 1)
        place_T = (rows_TW * pixels).sum(1) / rows_TW.sum(1).clamp(min=1)
        there = (place_T[1:] > 0.66).nonzero()
        finish = int(there[0]) + 1 if len(there) else None
        return Reward(float(place_T[-1] > 0.66), step_values_S=place_T.diff(), finish_step=finish)


class ExpertInWorld(RewardModel):
    """Minus the mean absolute difference, in [-1, 0], between what the policy saw and what full speed to the right
    shows in the run's own world model (after VLA-RFT's verified reward, arXiv 2510.00406)."""

    api_version = 2
    kind = "score"

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._world_model: WorldModel | None = None
        self.scored = 0

    def attach(self, parts: Parts) -> None:
        self._world_model = parts.world_model

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        if self._world_model is None:
            return [Reward(None, error="This judge needs a world model; it was attached to none.")] * len(rollouts)
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        assert self._world_model is not None
        state = self._world_model.reset([rollout.task], generator=torch.Generator().manual_seed(0))
        expert = self._world_model.step(state, torch.ones(1, rollout.horizon, 1)).frames_BLVHWC[0]
        difference_S = (rollout.frames_TVHWC[1:].float() - expert.float()).abs().flatten(1).mean(1) / 255
        self.scored += 1
        return Reward(-float(difference_S.mean()), step_values_S=-difference_S)

    def state_dict(self) -> dict[str, int]:
        return {"scored": self.scored}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.scored = state["scored"]
