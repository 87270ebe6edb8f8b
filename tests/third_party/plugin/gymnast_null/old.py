"""A policy from before there was an API version to say."""

from dataclasses import dataclass

import torch

from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk


class OldPolicy(Policy):
    """Stands still."""

    @dataclass(frozen=True)
    class Config:
        action_dim: int = 7
        """Components of an action."""

    def __init__(self, config):
        super().__init__()
        self.chunk_length, self.action_dim = 1, config.action_dim

    def act(self, observation, *, temperature=1.0, generator=None):
        actions_BLA = torch.zeros(len(observation.images_BVHWC), 1, self.action_dim)
        return ActionChunk(actions_BLA, torch.zeros_like(actions_BLA))

    def evaluate(self, observation, chunk, *, temperature=1.0):
        return chunk.log_prob_BLD, chunk.log_prob_BLD
