"""The smallest world model that keeps the contract."""

from dataclasses import dataclass

import torch

from gymnast_core.config.ranges import Count, ZeroOrMore
from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Offers, Step


class NullWorld(WorldModel):
    """Shows the start frame, darker by `fade` levels an action."""

    api_version = 2
    action_dim = 7

    @dataclass(frozen=True)
    class Config:
        fade: ZeroOrMore = 1
        """Levels of 255 an action."""
        cameras: Count = 1
        """Cameras that a task shows."""

    def __init__(self, config):
        self.config = config
        self.device = torch.device("cpu")

    @classmethod
    def offers(cls, config):
        return Offers(config.cameras)

    def reset(self, tasks, *, generator=None):
        return [task.frames_TVHWC[-1].clone() for task in tasks]

    def step(self, state, actions_BLA):
        if actions_BLA.shape[2] != self.action_dim:
            raise DataError(f"Actions have {actions_BLA.shape[2]} dimensions; expected {self.action_dim}.")
        frames = []
        for _ in range(actions_BLA.shape[1]):
            for i, frame_VHWC in enumerate(state):
                state[i] = (frame_VHWC.int() - self.config.fade).clamp(0).to(torch.uint8)
            frames.append(torch.stack(state))
        return Step(torch.stack(frames, dim=1))
