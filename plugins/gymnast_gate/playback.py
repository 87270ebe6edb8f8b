"""Actions that were taken once, executed in another world from the same start; and a policy with noise of its own.

Shapes: B episodes, N decisions, L actions a decision, A action dimensions, D factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.interfaces import Policy, WorldModel
from gymnast_core.rollouts.answers import checked_chunk
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.types import ActionChunk, Evaluation, Observation, Rollout, Task


def play_back(
    actions: Sequence[Tensor],
    tasks: Sequence[Task],
    world: WorldModel,
    policy: Policy,
    *,
    generator: torch.Generator,
    batch_size: int,
) -> list[Rollout]:
    """What a world shows when `actions[i]` (N, L, A) are executed from the start of `tasks[i]`, for each i.

    The actions are those of `policy`, or of one that sees the same.
    """
    if not tasks:
        return []
    return imagine(
        Playback(actions, policy), world, tasks, horizon=actions[0].shape[0] * actions[0].shape[1], temperature=1.0,
        generator=generator, batch_size=batch_size,
    )  # fmt: skip


class Playback(Policy):
    """Takes given actions, whatever it sees: those of the first episode first, in the order in which they are dealt."""

    api_version = 2

    def __init__(self, actions: Sequence[Tensor], like: Policy) -> None:
        super().__init__()
        self.chunk_length, self.action_dim = actions[0].shape[1:]
        self.needed = like.needed
        self._actions, self._first, self._decision = list(actions), 0, 0

    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        count, decisions = len(observation.instructions), len(self._actions[0])
        mine = self._actions[self._first : self._first + count]
        actions_BLA = torch.stack([actions_NLA[self._decision] for actions_NLA in mine])
        self._decision += 1
        if self._decision == decisions:
            self._first, self._decision = self._first + count, 0
        return ActionChunk(actions_BLA, torch.full((*actions_BLA.shape[:2], 1), torch.nan))

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        raise NotImplementedError("Actions that are played back have no probability.")


class OwnNoise(Policy):
    """A policy whose sampling takes its noise from a generator of its own.

    In two worlds the same seed then gives the same noise, whatever the worlds draw: what the worlds make of it differs,
    and little else (common random numbers). Each world's rollouts are distributed as ever.
    """

    api_version = 2

    def __init__(self, policy: Policy, generator: torch.Generator) -> None:
        super().__init__()
        self.chunk_length, self.action_dim = policy.chunk_length, policy.action_dim
        self.needed = policy.needed
        # A tuple hides the policy from torch: it is not this module's.
        self._policy, self._generator = (policy,), generator

    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        chunk = self._policy[0].act(observation, temperature=temperature, generator=self._generator)
        return checked_chunk(self._policy[0], chunk, len(observation.instructions))

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        return self._policy[0].evaluate(observation, chunk, temperature=temperature)
