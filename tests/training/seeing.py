"""A policy that sees: its log-probabilities tell which frame, camera, reading and instruction it was shown.

The world counts: every picture and every reading says which camera it is, how many actions were taken in its episode,
and what they added up to. So a frame too early, a camera too many or a reading of a neighbour changes a number that a
test knows. Sums are of integers, so that a batch of another size gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.types import ActionChunk, Evaluation, Needs, Observation, Offers, Reward, Rollout, Step, Task

CAMERAS = ("front", "left", "wrist")
SIZE = 2
"""Pixels of a side."""


def frame(camera: int, steps: int, place: int) -> Tensor:
    """What a camera shows after `steps` actions that added up to `place`, (H, W, C)."""
    picture = torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = camera + 1, steps + 10, place + 100
    return picture


def frames(steps: int, place: int) -> Tensor:
    """All cameras, (V, H, W, C)."""
    return torch.stack([frame(camera, steps, place) for camera in range(len(CAMERAS))])


def readings(steps: int, place: int) -> Tensor:
    """Proprioception, (P,)."""
    return torch.tensor([float(steps), float(place)])


def task(name: str, place: int, context: int = 2) -> Task:
    """A task whose context ends at step 0; the frames before it have negative step numbers."""
    before = range(1 - context, 1)
    return Task(
        id=name,
        instruction=f"go to {place}",
        frames_TVHWC=torch.stack([frames(step, place) for step in before]),
        cameras=CAMERAS,
        actions_TA=torch.zeros(context - 1, 1),
        proprio_TP=torch.stack([readings(step, place) for step in before]),
    )


class CountingWorld(WorldModel):
    """Adds up actions, and shows it to three cameras and two readings."""

    api_version = 2
    device = torch.device("cpu")

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    @classmethod
    def offers(cls, config: Config) -> Offers:
        return Offers(CAMERAS, proprio=2)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> list[list[int]]:
        return [[0, int(task.frames_TVHWC[-1, 0, 0, 0, 2]) - 100] for task in tasks]

    def step(self, state: list[list[int]], actions_BLA: Tensor) -> Step:
        shown, felt = [], []
        for episode, actions_LA in zip(state, actions_BLA, strict=True):
            for action in actions_LA[:, 0].tolist():
                episode[0] += 1
                episode[1] += round(action)
                shown.append(frames(*episode))
                felt.append(readings(*episode))
        count, length = actions_BLA.shape[:2]
        proprio = torch.stack(felt).reshape(count, length, 2)
        return Step(torch.stack(shown).reshape(count, length, len(CAMERAS), SIZE, SIZE, 3), proprio)


class SeeingPolicy(Policy):
    """Goes up or down, with odds that depend on everything it is shown, each part by a factor of its own."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        cameras: tuple[str, ...] = ("wrist", "front")
        history: int = 2
        proprio: bool = True
        chunk_length: int = 2

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.chunk_length, self.action_dim = self.config.chunk_length, 1
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.bias = nn.Parameter(torch.zeros(2))
        self.shown: list[Observation] = []
        """What `act` was shown."""

    @classmethod
    def needs(cls, config: Config) -> Needs:
        return Needs(config.cameras, config.history, 2 if config.proprio else None)

    def _log_probs(self, observation: Observation, temperature: float | Tensor) -> Tensor:
        images_BTVS = observation.images_BTVHWC.long().sum((3, 4))  # the channels stay apart
        count = len(images_BTVS)
        code_B = _mixed(images_BTVS.reshape(count, -1))
        if observation.proprio_BTP is not None:
            code_B = code_B + 7 * _mixed(observation.proprio_BTP.long().reshape(count, -1))
        code_B = code_B + torch.tensor([sum(map(ord, text)) for text in observation.instructions])
        seen_B = torch.sin(code_B.double() * 0.37).float()
        logit_B = self.scale * seen_B
        logits_B2 = torch.stack([logit_B, -logit_B], dim=1) + self.bias
        heat_B = torch.as_tensor(temperature).expand(count)
        log_probs_B2 = (logits_B2 / torch.where(heat_B > 0, heat_B, 1.0)[:, None]).log_softmax(-1)
        return log_probs_B2[:, None, None, :].expand(count, self.chunk_length, 1, 2)

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        self.shown.append(observation)
        log_probs = self._log_probs(observation, temperature)
        if temperature == 0:
            tokens = log_probs.argmax(-1)
        else:
            draws = torch.multinomial(log_probs.exp().reshape(-1, 2), 1, generator=generator)
            tokens = draws.reshape(log_probs.shape[:-1])
        chosen = log_probs.gather(-1, tokens[..., None])[..., 0]
        return ActionChunk(2.0 * tokens.float() - 1.0, chosen, tokens)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        log_probs = self._log_probs(observation, temperature)
        assert chunk.tokens_BLD is not None
        chosen = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return Evaluation(chosen, -(log_probs.exp() * log_probs).sum(-1), observation.latest_proprio_BP)

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()}, directory / "model.safetensors"
        )


def _mixed(numbers_BX: Tensor) -> Tensor:
    """An integer for each row that depends on every number and on its place."""
    return (numbers_BX * (torch.arange(numbers_BX.shape[1]) * 2 + 3)).sum(1)


@dataclass
class UpReward(RewardModel):
    """1 for episodes that ended above their start; finished when they first were."""

    api_version = 2
    config: object = None
    finishes: bool = True
    calls: list[int] = field(default_factory=list)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.calls.append(len(rollouts))
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        places = rollout.view("front")[:, 0, 0, 2].long() - rollout.view("front")[0, 0, 0, 2].long()
        up = (places[1:] > 0).nonzero()
        finish = int(up[0]) + 1 if len(up) and self.finishes else None
        return Reward(float(places[-1] > 0), finish_step=finish)
