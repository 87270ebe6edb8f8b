"""A world small enough to know the answer: the policy's tokens move a dot on a line; its place is the reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Policy, RewardModel, WorldModel
from gymnast_core.types import ActionChunk, Evaluation, Observation, Reward, Rollout, Step, Task, one_camera

WIDTH = 16


def line_task(position: int, name: str = "task") -> Task:
    frames = one_camera(picture(torch.tensor([position])))
    return Task(id=f"{name}-{position}", instruction="go right", frames_TVHWC=frames)


def picture(positions_B: Tensor) -> Tensor:
    frames = torch.zeros(len(positions_B), 1, WIDTH, 3, dtype=torch.uint8)
    frames[torch.arange(len(positions_B)), 0, positions_B] = 255
    return frames


def place(frame_HWC: Tensor) -> int:
    return int(frame_HWC[0, :, 0].argmax())


class LineWorld(WorldModel):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        pass

    device = torch.device("cpu")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"positions": torch.tensor([place(task.view()[-1]) for task in tasks])}

    def step(self, state: dict[str, Tensor], actions_BLA: Tensor) -> Step:
        frames = []
        for action_BA in actions_BLA.unbind(1):
            state["positions"] = (state["positions"] + action_BA[:, 0].round().long()).clamp(0, WIDTH - 1)
            frames.append(picture(state["positions"]))
        return Step(torch.stack(frames, dim=1)[:, :, None])


class LinePolicy(Policy):
    """Chooses left or right with one logit pair that sees nothing."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        chunk_length: int = 2

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.chunk_length, self.action_dim = config.chunk_length, 1
        self.logits = nn.Parameter(torch.zeros(2))

    def _log_probs(self, batch: int, temperature: float | Tensor) -> Tensor:
        heat_B = torch.as_tensor(temperature).expand(batch)
        logits = self.logits / torch.where(heat_B > 0, heat_B, 1.0)[:, None, None, None]
        return logits.log_softmax(-1).expand(batch, self.chunk_length, 1, 2)

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        log_probs = self._log_probs(len(observation.instructions), temperature)
        if temperature == 0:
            tokens = log_probs.argmax(-1)
        else:
            draws = torch.multinomial(log_probs.exp().reshape(-1, 2), 1, generator=generator)
            tokens = draws.reshape(log_probs.shape[:-1])
        chosen = log_probs.gather(-1, tokens[..., None])[..., 0]
        return ActionChunk((2.0 * tokens - 1.0).float(), chosen, tokens)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        log_probs = self._log_probs(len(observation.instructions), temperature)
        assert chunk.tokens_BLD is not None
        chosen = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return Evaluation(chosen, -(log_probs.exp() * log_probs).sum(-1))

    def save(self, directory) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        save_file({"logits": self.logits.detach()}, str(directory / "model.safetensors"))


@dataclass
class RightReward(RewardModel):
    """1 if the dot ended right of where it started; every `fail_every`-th rollout cannot be judged."""

    api_version = 2

    fail_every: int = 0
    calls: list[int] = field(default_factory=list)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.calls.append(len(rollouts))
        rewards = []
        for index, rollout in enumerate(rollouts):
            if self.fail_every and index % self.fail_every == 0:
                rewards.append(Reward(None, error="the judge is asleep", cost_usd=0.25))
            else:
                moved = place(rollout.view()[-1]) - place(rollout.view()[0])
                rewards.append(Reward(float(moved > 0), cost_usd=0.25))
        return rewards
