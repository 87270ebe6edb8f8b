"""The smallest world model that keeps the contract."""

from dataclasses import dataclass

import torch

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel


class NullWorld(WorldModel):
    """Shows the start frame, darker by `fade` levels an action."""

    action_dim = 7

    @dataclass(frozen=True)
    class Config:
        fade: int = 1
        """Levels of 255 an action."""

    def __init__(self, config):
        self.config = config
        self.device = torch.device("cpu")

    def reset(self, tasks, *, generator=None):
        return [task.frames_THWC[-1].clone() for task in tasks]

    def step(self, state, actions_BLA):
        if actions_BLA.shape[2] != self.action_dim:
            raise DataError(f"Actions have {actions_BLA.shape[2]} dimensions; expected {self.action_dim}.")
        frames = []
        for _ in range(actions_BLA.shape[1]):
            for i, frame_HWC in enumerate(state):
                state[i] = (frame_HWC.int() - self.config.fade).clamp(0).to(torch.uint8)
            frames.append(torch.stack(state))
        return torch.stack(frames, dim=1)
