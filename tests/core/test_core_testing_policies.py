"""The check of policies passes on one that keeps its contract, and catches ones that break a clause."""

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
from gymnast_core.interfaces import Policy
from gymnast_core.seeds import episode_generators
from gymnast_core.testing.making import make_tasks
from gymnast_core.types import ActionChunk, Evaluation, LossSum, Metric, Needs


class TokenPolicy(Policy):
    """Chooses one of 5 tokens for each dimension from the brightness of two cameras in two frames, the readings, and
    the length of the instruction."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        checkpoint: str | None = None
        """Folder that `save` wrote."""

    def __init__(self, config=None):
        super().__init__()
        self.config = config or self.Config()
        self.chunk_length, self.action_dim = 2, 3
        self.head = nn.Linear(2 * 2 + 2 + 1, 2 * 3 * 5)
        start = torch.rand(30, 8, generator=torch.Generator().manual_seed(0))
        self.head.load_state_dict({"weight": start[:, 1:], "bias": start[:, 0]})
        if self.config.checkpoint:
            saved = json.loads(Path(self.config.checkpoint, "head.json").read_text())
            self.head.load_state_dict({name: torch.tensor(values) for name, values in saved.items()})

    @classmethod
    def needs(cls, config):
        return Needs(("front", "wrist"), history=2, proprio=2)

    def features(self, observation):
        assert observation.cameras == ("front", "wrist") and observation.images_BTVHWC.shape[1:3] == (2, 2)
        brightness = observation.images_BTVHWC.float().mean((3, 4, 5)).flatten(1) / 255
        lengths = torch.tensor([[len(text) / 50] for text in observation.instructions])
        return torch.cat([brightness, observation.latest_proprio_BP, lengths], 1)

    def log_probs(self, features, temperature):
        heat = torch.as_tensor(temperature).reshape(-1, 1, 1, 1)
        return (self.head(features).view(-1, 2, 3, 5) / torch.where(heat == 0, 1.0, heat)).log_softmax(-1)

    @torch.no_grad()
    def act(self, observation, *, temperature=1.0, generator=None):
        log_probs = self.log_probs(self.features(observation), temperature)
        draws = torch.multinomial(log_probs.exp().flatten(0, 2), 1, generator=generator)
        tokens = draws.view(log_probs.shape[:3]) if temperature else log_probs.argmax(-1)
        log_prob = log_probs.gather(-1, tokens[..., None])[..., 0]
        return ActionChunk(tokens.float() / 4, log_prob, tokens)

    def evaluate(self, observation, chunk, *, temperature=1.0):
        features = self.features(observation)
        log_probs = self.log_probs(features, temperature)
        log_prob = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return Evaluation(log_prob, -(log_probs.exp() * log_probs).sum(-1), features)

    def losses(self, episodes, generator):
        """Of every action of an episode, given noise for the head's input."""
        losses = []
        for episode, own in zip(episodes, episode_generators(generator, len(episodes)), strict=True):
            noise = torch.rand(len(episode.actions_TA), 7, generator=own)
            losses.append(-self.log_probs(noise * episode.proprio_TP[0, 0], 1.0)[..., 0].sum((1, 2)))
        return losses

    def training_loss(self, episodes, *, generator):
        losses = torch.cat(self.losses(episodes, generator))
        return LossSum(losses.sum(), len(losses), {"mean_loss": Metric(losses.mean().detach(), len(losses))})

    def save(self, directory):
        weights = {name: tensor.tolist() for name, tensor in self.head.state_dict().items()}
        (directory / "head.json").write_text(json.dumps(weights))


class Cold(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        return super().evaluate(observation, chunk, temperature=1.0)


class OneTemperature(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        if isinstance(temperature, torch.Tensor):
            temperature = temperature[0]
        return super().evaluate(observation, chunk, temperature=temperature)


class Detached(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        found = super().evaluate(observation, chunk, temperature=temperature)
        return dataclasses.replace(found, log_prob_BLD=found.log_prob_BLD.detach())


class Pair(TokenPolicy):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        found = super().evaluate(observation, chunk, temperature=temperature)
        return found.log_prob_BLD, found.entropy_BLD


class Peeking(TokenPolicy):
    """Its features tell the critic which action was taken."""

    def evaluate(self, observation, chunk, *, temperature=1.0):
        found = super().evaluate(observation, chunk, temperature=temperature)
        return dataclasses.replace(found, features_BF=found.features_BF + chunk.actions_BLA.mean((1, 2))[:, None])


class Global(TokenPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        return super().act(observation, temperature=temperature)


class Forgetful(TokenPolicy):
    def save(self, directory):
        weights = {name: (tensor * 0).tolist() for name, tensor in self.head.state_dict().items()}
        (directory / "head.json").write_text(json.dumps(weights))


class Stubborn(TokenPolicy):
    def load_state_dict(self, state, strict=True):
        return None


class Narrow(TokenPolicy):
    def __init__(self, config=None):
        super().__init__(config)
        self.action_dim = 7


class Neighbourly(TokenPolicy):
    """Batch normalisation, as it were."""

    def features(self, observation):
        found = super().features(observation)
        return found - found.mean(0)


class PaddedByNeighbours(TokenPolicy):
    """The longest instruction of the batch matters, as where padding is not masked."""

    def features(self, observation):
        return super().features(observation) + max(map(len, observation.instructions)) / 100


class WarmGreedy(TokenPolicy):
    def act(self, observation, *, temperature=1.0, generator=None):
        return super().act(observation, temperature=temperature or 1.0, generator=generator)


class Mean(TokenPolicy):
    def training_loss(self, episodes, *, generator):
        return LossSum(torch.cat(self.losses(episodes, generator)).mean(), 1.0)


class Balanced(TokenPolicy):
    """Weighs an episode by the batch's longest, which only sums of the whole batch know."""

    def training_loss(self, episodes, *, generator):
        losses = [loss.sum() / max(map(len, (e.actions_TA for e in episodes))) for loss in
                  self.losses(episodes, generator)]  # fmt: skip
        return LossSum(torch.stack(losses).sum(), len(losses))


class SharedNoise(TokenPolicy):
    """The first episode of each part gets the same noise."""

    def losses(self, episodes, generator):
        return super().losses(episodes, torch.Generator().manual_seed(0))


class WrongGradients(TokenPolicy):
    """The value adds up, the gradient does not."""

    def training_loss(self, episodes, *, generator):
        loss = super().training_loss(episodes, generator=generator)
        scaled = loss.total / len(episodes)
        return dataclasses.replace(loss, total=scaled - scaled.detach() + loss.total.detach())


class Number(TokenPolicy):
    def training_loss(self, episodes, *, generator):
        return super().training_loss(episodes, generator=generator).total


class Nameless(TokenPolicy):
    @classmethod
    def needs(cls, config):
        return Needs(("front", "front"), history=2, proprio=2)


class Silent(TokenPolicy):
    """For evaluation only: it does not say how likely its actions are."""

    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        return dataclasses.replace(chunk, log_prob_BLD=torch.full_like(chunk.log_prob_BLD, math.nan), tokens_BLD=None)

    def evaluate(self, observation, chunk, *, temperature=1.0):
        raise ConfigError("This policy is for evaluation only.")


class Talkative(Silent):
    def evaluate(self, observation, chunk, *, temperature=1.0):
        return Evaluation(chunk.log_prob_BLD, chunk.log_prob_BLD)


class SilentNeighbour(Silent):
    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        return dataclasses.replace(chunk, actions_BLA=chunk.actions_BLA + len(observation.instructions))


class Restless(Silent):
    def act(self, observation, *, temperature=1.0, generator=None):
        chunk = super().act(observation, temperature=temperature, generator=generator)
        noise = torch.rand(chunk.actions_BLA.shape, generator=generator)
        return dataclasses.replace(chunk, actions_BLA=chunk.actions_BLA + noise)


def test_a_policy_that_keeps_its_contract_passes():
    policy = TokenPolicy().train()
    verified = testing.check_policy(policy)
    assert "it is shown what it needs: 2 cameras, 2 frames, 2 readings" in verified
    assert "a saved policy loads as the same policy" in verified
    assert "training_loss adds up over any parts" in verified
    assert "its weights go through a snapshot and back" in verified
    assert not any(line.startswith("not shown") for line in verified)
    assert policy.training and policy.head.weight.grad is None


def test_what_makes_no_difference_to_a_policy_is_said():
    class Blind(TokenPolicy):
        """Looks at the front camera's current frame alone."""

        def features(self, observation):
            found = super().features(observation)
            kept = torch.zeros(7)
            kept[2] = 1.0
            return found * kept

    verified = testing.check_policy(Blind())
    unseen = [line for line in verified if line.startswith("not shown")]
    wanted = ("the camera wrist", "what it saw before", "proprioception", "the instruction")
    assert unseen == [f"not shown: that {what} matters to it" for what in wanted]


def test_a_policy_for_evaluation_only_owes_no_likelihood():
    assert "evaluate refuses" in testing.check_policy(Silent())


def test_a_loss_that_cannot_use_made_up_episodes_is_not_shown():
    class Picky(TokenPolicy):
        """Wants longer episodes."""

        def training_loss(self, episodes, *, generator):
            raise DataError("too short")

    assert any("made-up episodes do not suit it (too short)" in line for line in testing.check_policy(Picky()))


def test_tasks_that_lack_what_it_needs_are_the_user_s_mistake():
    tasks = make_tasks(2, cameras=("front",))
    with pytest.raises(ConfigError, match="wrist is lacking"):
        testing.check_policy(TokenPolicy(), tasks=tasks)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Cold, "evaluate: expected act's log-probabilities"),
        (OneTemperature, "each row at its own temperature"),
        (Talkative, "a GymnastError, because act's log-probabilities are NaN"),
        (SilentNeighbour, "the same in any batch, here on its own"),
        (Restless, "one action at temperature 0"),
        (Detached, "a differentiable log_prob"),
        (Pair, "an Evaluation"),
        (Peeking, "features_BF that do not depend on the chunk"),
        (Global, "generator"),
        (Forgetful, "save: expected the same policy when loaded"),
        (Stubborn, "load_state_dict: expected the policy as it was"),
        (Narrow, r"actions_BLA to be \(3, 2, 7\)"),
        (Neighbourly, "the same in any batch"),
        (PaddedByNeighbours, "the same in any batch"),
        (WarmGreedy, "one most likely action at temperature 0"),
        (Nameless, "names that differ"),
        (Mean, "must add up to what all give at once"),
        (Balanced, "must add up to what all give at once"),
        (SharedNoise, "must add up to what all give at once"),
        (WrongGradients, "gradients included"),
        (Number, "a LossSum"),
    ],
)
def test_a_policy_that_breaks_a_clause_is_caught(policy, message):
    with pytest.raises(ContractError, match=message):
        testing.check_policy(policy)
