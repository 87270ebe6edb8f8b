"""A street with a walker: what is real, what is dreamt of it, and who judges, each with faults to choose from.

A dot walks along a line of 25 places from the middle to the place that the instruction names, and is there if it ends
at most one place away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gymnast_core.interfaces import Dataset, Policy, RewardModel, WorldModel
from gymnast_core.plugins.registry import registries
from gymnast_core.types import ActionChunk, EnvironmentStart, Evaluation, Observation, Reward, Rollout, Step, Task

LENGTH, MIDDLE = 25, 12
GOALS = (14, 10)


def picture(places: Tensor, blue: int = 0) -> Tensor:
    """(B, 1 camera, 12, LENGTH, 3)."""
    frames = torch.zeros(len(places), 1, 12, LENGTH, 3, dtype=torch.uint8)
    frames[..., 2] = blue
    frames[torch.arange(len(places)), :, :, places] = 255
    return frames


def place_of(frames_BHWC: Tensor) -> Tensor:
    return frames_BHWC[:, 0, :, 0].int().argmax(-1)


def goal_of(instruction: str) -> int:
    return int(instruction.removeprefix("go to "))


class Street(WorldModel):
    """What is real; it knows who arrived."""

    api_version = 2
    device = torch.device("cpu")
    resets: ClassVar[list[int]] = []

    @dataclass(frozen=True)
    class Config:
        fault: str = ""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, Any]:
        self.resets.append(len(tasks))
        goals = torch.tensor([goal_of(task.instruction) for task in tasks])
        return {"places": torch.full((len(tasks),), MIDDLE), "goals": goals, "actions": 0}

    def step(self, state: dict[str, Any], actions_BLA: Tensor) -> Step:
        shown, arrived, ended = [], [], []
        for action_BA in actions_BLA.unbind(1):
            state["actions"] += 1
            # Later actions than two do nothing in a street that is over after them.
            over = self.config.fault == "short" and state["actions"] >= 2
            if not over or state["actions"] == 2:
                state["places"] = (state["places"] + action_BA[:, 0].round().long()).clamp(0, LENGTH - 1)
            shown.append(self._shown(state["places"]))
            arrived.append(self._outcome(state))
            ended.append(torch.full((len(action_BA),), over))
        return Step(
            torch.stack(shown, dim=1), outcome_BL=torch.stack(arrived, dim=1), ended_BL=torch.stack(ended, dim=1)
        )

    def _shown(self, places: Tensor) -> Tensor:
        return picture(places)

    def _outcome(self, state: dict[str, Any]) -> Tensor:
        return ((state["places"] - state["goals"]).abs() <= 1).float()


class Dream(Street):
    """What is imagined of it. Whatever it shows, it says that all went well."""

    resets: ClassVar[list[int]] = []

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, Any]:
        torch.rand(3, generator=generator)  # worlds draw, too
        return super().reset(tasks, generator=generator)

    def step(self, state: dict[str, Any], actions_BLA: Tensor) -> Step:
        return super().step(state, torch.ones_like(actions_BLA) if self.config.fault == "deaf" else actions_BLA)

    def _shown(self, places: Tensor) -> Tensor:
        if self.config.fault == "stuck":
            return picture(torch.full_like(places, MIDDLE))
        if self.config.fault == "mirror":
            return picture((2 * MIDDLE - places).clamp(0, LENGTH - 1))
        return picture(places, 40 if self.config.fault == "fog" else 0)

    def _outcome(self, state: dict[str, Any]) -> Tensor:
        return torch.ones(len(state["places"]))


class Walker(Policy):
    """Steps toward the goal with odds that its `skill` gives, and to the right with those of its `drift`."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        skill: float = 0.5

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.chunk_length, self.action_dim = 2, 1
        self.skill, self.drift = nn.Parameter(torch.tensor(self.config.skill)), nn.Parameter(torch.tensor(0.0))

    def _log_probs(self, observation: Observation) -> Tensor:
        places = place_of(observation.latest_BVHWC[:, 0])
        goals = torch.tensor([goal_of(text) for text in observation.instructions])
        logits_B = self.skill * torch.where(goals >= places, 1.0, -1.0) + self.drift
        both_B2 = torch.stack([logits_B, -logits_B], dim=1).log_softmax(-1)
        return both_B2[:, None, None].expand(-1, 2, 1, 2)

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        log_probs = self._log_probs(observation)
        drawn = torch.rand(log_probs.shape[:-1], generator=generator)
        tokens = (drawn > log_probs[..., 0].exp()).long()
        chosen = log_probs.gather(-1, tokens[..., None])[..., 0]
        return ActionChunk(1.0 - 2.0 * tokens, chosen, tokens)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        log_probs = self._log_probs(observation)
        assert chunk.tokens_BLD is not None
        chosen = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return Evaluation(chosen, -(log_probs.exp() * log_probs).sum(-1))

    def save(self, directory: Any) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(directory / "model.safetensors"))


class Onlooker(RewardModel):
    """Says who arrived, by the last frame; or what its rule says."""

    api_version = 2
    calls: ClassVar[list[int]] = []

    @dataclass(frozen=True)
    class Config:
        rule: str = "sees"
        """sees, always, never, inverted, one-sided (sees on the right, always on the left), right (who ends right of
        the middle), or asleep (an error)."""
        graded: bool = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        self.calls.append(len(rollouts))
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Reward:
        if self.config.rule == "asleep":
            return Reward(None, error="the judge is asleep")
        place, goal = int(place_of(rollout.view()[-1:])[0]), goal_of(rollout.task.instruction)
        sees = abs(place - goal) <= 1
        says = {
            "sees": sees, "always": True, "never": False, "inverted": not sees,
            "one-sided": sees or goal < MIDDLE, "right": place > MIDDLE,
        }[self.config.rule]  # fmt: skip
        # Surer of what it sees than of what it makes up.
        graded = (0.9 if sees else 0.6) if says else 0.1
        return Reward(float(says), partial=graded if self.config.graded else None)


class Walks(Dataset):
    api_version = 2

    @dataclass(frozen=True)
    class Config:
        count: int = 512
        environment: bool = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def tasks(self) -> Sequence[Task]:
        return [self._task(i) for i in range(self.config.count)]

    def _task(self, i: int) -> Task:
        goal = GOALS[i % 2]
        start = EnvironmentStart("toy", i) if self.config.environment else None
        frames = picture(torch.tensor([MIDDLE]))
        return Task(f"walk-{goal}/{i}", f"go to {goal}", frames, start=start)


def install() -> None:
    """Register these parts in this process."""
    known = registries()
    known.world_models.register("street", Street)
    known.world_models.register("dream", Dream)
    known.policies.register("walker", Walker)
    known.reward_models.register("onlooker", Onlooker)
    known.datasets.register("walks", Walks)


PARTS = [
    "world_model=dream", "policy=walker", "reward_model=onlooker", "tasks=walks", "optimizer.name=grpo",
    "optimizer.args.group_size=8", "optimizer.args.learning_rate=0.05", "optimizer.args.minibatch_size=64",
    "optimizer.args.epochs=2", "evaluation.world=street", "loop.horizon=6", "loop.tasks_per_iteration=24",
    "loop.max_draws=1", "trainer.accelerator=cpu",
]  # fmt: skip


def without_outcome(rollout: Rollout) -> Rollout:
    return replace(rollout, outcome_S=None)
