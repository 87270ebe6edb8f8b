"""The public checks pass on small plugins that keep their contract and catch ones that break a clause."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from gymnast_core import testing
from gymnast_core.errors import ConfigError, ContractError, DataError
from gymnast_core.interfaces import Loss, Policy, RewardModel, WorldModel
from gymnast_core.testing.making import make_tasks
from gymnast_core.types import ActionChunk, Reward


@dataclass(frozen=True)
class Nothing:
    """A config without fields."""


class World(WorldModel):
    """Noise around the start frame, shifted by the first action; states are lists of (frame, generator)."""

    action_dim = 3
    Config = Nothing

    def __init__(self):
        self.device = torch.device("cpu")

    def reset(self, tasks, *, generator=None):
        seeds = torch.randint(1 << 30, (len(tasks),), generator=generator)
        return [
            [task.frames_THWC[-1].clone(), torch.Generator().manual_seed(int(seed))]
            for task, seed in zip(tasks, seeds, strict=True)
        ]

    def noise(self, generator):
        return int(torch.randint(9, (1,), generator=generator))

    def step(self, state, actions_BLA):
        if actions_BLA.shape[2] != self.action_dim:
            raise DataError("width")
        frames = torch.empty(*actions_BLA.shape[:2], *state[0][0].shape, dtype=torch.uint8)
        for i, episode in enumerate(state):
            for j in range(actions_BLA.shape[1]):
                moved = episode[0].int() + self.noise(episode[1]) + int(actions_BLA[i, j, 0] * 50)
                episode[0] = moved.remainder(256).to(torch.uint8)
                frames[i, j] = episode[0]
        return frames


class FloatWorld(World):
    def step(self, state, actions_BLA):
        return super().step(state, actions_BLA).float()


class FixedChunkWorld(World):
    def step(self, state, actions_BLA):
        return super().step(state, actions_BLA)[:, :1]


class GlobalNoiseWorld(World):
    def noise(self, generator):
        return int(torch.randint(9, (1,)))


class SharedStateWorld(World):
    def reset(self, tasks, *, generator=None):
        self.current = super().reset(tasks, generator=generator)
        return self.current

    def step(self, state, actions_BLA):
        return super().step(self.current, actions_BLA)


class MutatingWorld(World):
    def step(self, state, actions_BLA):
        frames = super().step(state, actions_BLA)
        actions_BLA.zero_()
        return frames


class AnyWidthWorld(World):
    def step(self, state, actions_BLA):
        return super().step(state, actions_BLA[..., :3])


class ReusedBufferWorld(World):
    buffer = torch.empty(2, 3, 64, 64, 3, dtype=torch.uint8)

    def step(self, state, actions_BLA):
        frames = super().step(state, actions_BLA)
        self.buffer[:, : frames.shape[1]] = frames
        return self.buffer[:, : frames.shape[1]]


class OverconfidentWorld(World):
    def outcomes(self, state):
        return [2.0] * len(state)


def test_a_world_model_that_keeps_its_contract_passes():
    verified = testing.check_world_model(World)
    assert "states alive at once are independent" in verified
    assert testing.check_world_model(World(), tasks=make_tasks(3, 16)) == verified


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (FloatWorld, r"FloatWorld\.step: expected the frames.*uint8; got .*float32.*WorldModel\.step"),
        (FixedChunkWorld, r"after 3 actions to be \(2, 3, 64, 64, 3\)"),
        (GlobalNoiseWorld, "randomness from `generator` only"),
        (SharedStateWorld, "states that do not influence each other"),
        (MutatingWorld, "actions_BLA to be left as it was"),
        (AnyWidthWorld, "a DataError for actions of width 4, not 3; got no error"),
        (ReusedBufferWorld, "returned frames to stay"),
        (OverconfidentWorld, "outcomes"),
        (lambda: object(), "not a WorldModel"),
    ],
)
def test_a_world_model_that_breaks_a_clause_is_caught(world, message):
    with pytest.raises(ContractError, match=message):
        testing.check_world_model(world)


class TokenPolicy(Policy):
    """Chooses one of 5 tokens for each dimension from the mean brightness."""

    @dataclass(frozen=True)
    class Config:
        checkpoint: str | None = None
        """Folder that `save` wrote."""

    def __init__(self, config=None):
        super().__init__()
        self.config = config or self.Config()
        self.chunk_length, self.action_dim = 2, 3
        self.head = nn.Linear(1, 2 * 3 * 5)
        start = torch.rand(30, generator=torch.Generator().manual_seed(0))
        self.head.load_state_dict({"weight": start[:, None], "bias": start.flip(0)})
        if self.config.checkpoint:
            saved = json.loads(Path(self.config.checkpoint, "head.json").read_text())
            self.head.load_state_dict({name: torch.tensor(values) for name, values in saved.items()})

    def log_probs(self, observation, temperature):
        brightness = observation.images_BVHWC.float().mean((1, 2, 3, 4))[:, None] / 255
        return (self.head(brightness).view(-1, 2, 3, 5) / (temperature or 1.0)).log_softmax(-1)

    @torch.no_grad()
    def act(self, observation, *, temperature=1.0, generator=None):
        log_probs = self.log_probs(observation, temperature)
        draws = torch.multinomial(log_probs.exp().flatten(0, 2), 1, generator=generator)
        tokens = draws.view(log_probs.shape[:3]) if temperature else log_probs.argmax(-1)
        log_prob = log_probs.gather(-1, tokens[..., None])[..., 0]
        return ActionChunk(tokens.float() / 4, log_prob, tokens)

    def evaluate(self, observation, chunk, *, temperature=1.0):
        log_probs = self.log_probs(observation, temperature)
        log_prob = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return log_prob, -(log_probs.exp() * log_probs).sum(-1)

    def save(self, directory):
        weights = {name: tensor.tolist() for name, tensor in self.head.state_dict().items()}
        (directory / "head.json").write_text(json.dumps(weights))


class ColdPolicy(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        return super().evaluate(observation, chunk, temperature=1.0)


class DetachedPolicy(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        return tuple(value.detach() for value in super().evaluate(observation, chunk, temperature=temperature))


class GlobalPolicy(TokenPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        return super().act(observation, temperature=temperature)


class ForgetfulPolicy(TokenPolicy):
    def save(self, directory):
        weights = {name: (tensor * 0).tolist() for name, tensor in self.head.state_dict().items()}
        (directory / "head.json").write_text(json.dumps(weights))


class NarrowPolicy(TokenPolicy):
    def __init__(self, config=None):
        super().__init__(config)
        self.action_dim = 7


class NeighbourPolicy(TokenPolicy):
    def log_probs(self, observation, temperature):
        found = super().log_probs(observation, temperature)
        return (found + torch.arange(5.0) * len(found)).log_softmax(-1)


class WarmGreedyPolicy(TokenPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        return super().act(observation, temperature=temperature or 1.0, generator=generator)


class SilentPolicy(TokenPolicy):
    """For evaluation only: it does not say how likely its actions are."""

    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        return dataclasses.replace(chunk, log_prob_BLD=torch.full_like(chunk.log_prob_BLD, math.nan), tokens_BLD=None)

    def evaluate(self, observation, chunk, *, temperature=1.0):
        raise ConfigError("This policy is for evaluation only.")


class TalkativePolicy(SilentPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        return chunk.log_prob_BLD, chunk.log_prob_BLD


class SilentNeighbourPolicy(SilentPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        return dataclasses.replace(chunk, actions_BLA=chunk.actions_BLA + len(observation.instructions))


class RestlessPolicy(SilentPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        noise = torch.rand(chunk.actions_BLA.shape, generator=generator)
        return dataclasses.replace(chunk, actions_BLA=chunk.actions_BLA + noise)


def test_a_policy_for_evaluation_only_owes_no_likelihood():
    assert "evaluate refuses" in testing.check_policy(SilentPolicy())


def test_a_policy_that_keeps_its_contract_passes():
    policy = TokenPolicy().train()
    verified = testing.check_policy(policy)
    assert "a saved policy loads as the same policy" in verified
    assert policy.training
    assert policy.head.weight.grad is None


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (ColdPolicy, "evaluate: expected act's log-probabilities"),
        (TalkativePolicy, "a GymnastError, because act's log-probabilities are NaN"),
        (SilentNeighbourPolicy, "the same in any batch, here on its own"),
        (RestlessPolicy, "one action at temperature 0"),
        (DetachedPolicy, "a differentiable log_prob"),
        (GlobalPolicy, "generator"),
        (ForgetfulPolicy, "save: expected the same policy when loaded"),
        (NarrowPolicy, r"actions_BLA to be \(3, 2, 7\)"),
        (NeighbourPolicy, "the same in any batch"),
        (WarmGreedyPolicy, "one most likely action at temperature 0"),
    ],
)
def test_a_policy_that_breaks_a_clause_is_caught(policy, message):
    with pytest.raises(ContractError, match=message):
        testing.check_policy(policy)


class Judge(RewardModel):
    """The mean brightness."""

    Config = Nothing

    def judge(self, rollout):
        if not len(rollout.frames_THWC):
            return Reward(None, error="no frames")
        return Reward(float(rollout.frames_THWC.float().mean()) / 255)

    def score(self, rollouts):
        return [self.judge(rollout) for rollout in rollouts]


class RankingJudge(Judge):
    def score(self, rollouts):
        return [Reward(i / len(rollouts)) for i in range(len(rollouts))]


class SkippingJudge(Judge):
    def score(self, rollouts):
        return super().score(rollouts)[1:]


class PaintingJudge(Judge):
    def judge(self, rollout):
        rollout.frames_THWC[0] = 0
        return Reward(0.0)


class TupleJudge(Judge):
    def score(self, rollouts):
        return tuple(super().score(rollouts))


class FailingJudge(Judge):
    def judge(self, rollout):
        return Reward(None, error="no network")


@pytest.mark.parametrize("judge", [Judge, FailingJudge])
def test_a_reward_model_that_keeps_its_contract_passes(judge):
    assert "rewards are in order" in testing.check_reward_model(judge)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (RankingJudge, "the same reward on its own"),
        (SkippingJudge, "a list of 4 Rewards"),
        (PaintingJudge, "rollouts to be left"),
        (TupleJudge, "a list of 4"),
    ],
)
def test_a_reward_model_that_breaks_a_clause_is_caught(judge, message):
    with pytest.raises(ContractError, match=message):
        testing.check_reward_model(judge)
