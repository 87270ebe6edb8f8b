"""The check of optimizers passes those that keep their contract, and names the clause that another one breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import Optimizer
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.testing import check_optimizer
from gymnast_core.types import LossSum, Metric


class Reinforce(Optimizer):
    """REINFORCE with the group's mean as baseline."""

    api_version = 2
    group_size, epochs, minibatch_size, max_grad_norm = 4, 1, 2, 1.0

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def torch_optimizer(self, parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    def learning_rate(self, update):
        return 0.1

    def keep(self, judged: Judged) -> Tensor:
        return judged.valid_GK.any(1)

    def advantages(self, judged: Judged) -> Advantages:
        return Advantages.of_trajectories(self.centred(judged.values_GK.nan_to_num(), judged.valid_GK), judged)

    def centred(self, rewards_GK: Tensor, valid_GK: Tensor) -> Tensor:
        return rewards_GK - rewards_GK.sum(1, keepdim=True) / valid_GK.sum(1, keepdim=True).clamp(min=1)

    def loss(self, minibatch: Minibatch) -> LossSum:
        mask_BS, log_prob_BSD = minibatch.mask_BS, minibatch.log_prob_BSD
        log_prob_BSD = torch.where(mask_BS[..., None], log_prob_BSD, 0.0)
        advantages_BS = torch.where(mask_BS, minibatch.advantages_BS, 0.0)
        total, count = -(log_prob_BSD.sum(2) * advantages_BS).sum(), mask_BS.sum()
        size_BS = log_prob_BSD.detach().abs().sum(2)
        return LossSum(total, count, {"size": Metric(size_BS.sum() / count.clamp(min=1), count)})


class Critic(Reinforce):
    """With a baseline that is learned and remembers how often it was asked."""

    def __init__(self, config=None):
        super().__init__(config)
        self.critic = nn.Linear(16, 1)
        self.asked = 0.0

    def extra_modules(self, policy):
        return {"critic": self.critic}

    def advantages(self, judged):
        self.asked += 1.0
        found = super().advantages(judged)
        returns_B = judged.values_GK.nan_to_num().flatten()
        return replace(found, targets={"returns": returns_B, "asked": torch.full_like(returns_B, self.asked)})

    def loss(self, minibatch):
        found = super().loss(minibatch)
        error_BN = self.critic(minibatch.features_BNF)[..., 0] - minibatch.targets["returns"][:, None]
        weight_B = minibatch.targets["asked"] * minibatch.mask_BS.sum(1)
        return replace(found, total=found.total + (weight_B * error_BN.square().mean(1)).sum())

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


class Ascent(Reinforce):
    def loss(self, minibatch):
        found = super().loss(minibatch)
        return replace(found, total=-found.total)


class MaskBlind(Reinforce):
    def loss(self, minibatch):
        return super().loss(replace(minibatch, mask_BS=torch.ones_like(minibatch.mask_BS)))


class MasksByProduct(Reinforce):
    """0 · NaN is NaN."""

    def loss(self, minibatch):
        mask_BS = minibatch.mask_BS
        total = -(minibatch.log_prob_BSD.sum(2) * minibatch.advantages_BS * mask_BS).sum()
        return LossSum(total, mask_BS.sum())


class Mean(Reinforce):
    """What was right in API 1."""

    def loss(self, minibatch):
        found = super().loss(minibatch)
        return replace(found, total=found.mean, weight=1.0)


class PerBatch(Reinforce):
    """Advantages that are scaled by the minibatch's largest one."""

    def loss(self, minibatch):
        largest = torch.where(minibatch.mask_BS, minibatch.advantages_BS, 0.0).abs().max().clamp(min=1e-6)
        return super().loss(replace(minibatch, advantages_BS=minibatch.advantages_BS / largest))


class WrongWeight(Reinforce):
    def loss(self, minibatch):
        return replace(super().loss(minibatch), weight=1.0)


class Undivided(Reinforce):
    """No sum to differentiate where nothing has an advantage."""

    def loss(self, minibatch):
        found = super().loss(minibatch)
        return found if minibatch.advantages_BS.nan_to_num().any() else replace(found, total=torch.zeros(()))


class PlainMetrics(Reinforce):
    def loss(self, minibatch):
        return replace(super().loss(minibatch), metrics={"size": 1.0})


class AveragedMaximum(Reinforce):
    def loss(self, minibatch):
        seen = torch.where(minibatch.mask_BS[..., None], minibatch.log_prob_BSD.detach(), -1e3)
        return replace(super().loss(minibatch), metrics={"largest": Metric(seen.max())})


class NanSpreads(Reinforce):
    def advantages(self, judged):
        return Advantages.of_trajectories(self.centred(judged.values_GK, judged.valid_GK), judged)


class UnscoredAreZeros(Reinforce):
    def centred(self, rewards_GK, valid_GK):
        return rewards_GK - rewards_GK.mean(1, keepdim=True)


class UnscoredTaught(Reinforce):
    def advantages(self, judged):
        centred_GK = self.centred(judged.values_GK.nan_to_num(), judged.valid_GK)
        return Advantages(centred_GK.reshape(-1, 1).expand(-1, judged.mask_BS.shape[1]))


class Positional(Reinforce):
    def centred(self, rewards_GK, valid_GK):
        return super().centred(rewards_GK, valid_GK) * torch.arange(rewards_GK.shape[1])


class Batched(Reinforce):
    def centred(self, rewards_GK, valid_GK):
        return super().centred(rewards_GK, valid_GK) * torch.arange(len(rewards_GK))[:, None]


class Steps(Reinforce):
    def centred(self, rewards_GK, valid_GK):
        return super().centred(rewards_GK.round(decimals=1), valid_GK)


class ByTrajectory(Reinforce):
    def advantages(self, judged):
        found = super().advantages(judged)
        return Advantages(found.advantages_BS[:, :1])


class NeedsGroups(Reinforce):
    def advantages(self, judged):
        assert judged.rollouts[0].horizon
        return super().advantages(judged)


class BestGroups(Reinforce):
    """Keeps a group if it is better than others."""

    def keep(self, judged):
        means_G = judged.values_GK.nan_to_num().mean(1)
        return judged.valid_GK.any(1) & (means_G >= means_G.median() if len(means_G) else means_G.bool())


class HalfOptimized(Reinforce):
    def torch_optimizer(self, parameters):
        return torch.optim.SGD(parameters[:1], lr=0.1)


class CriticLeftOut(Critic):
    def torch_optimizer(self, parameters):
        critics = {id(parameter) for parameter in self.critic.parameters()}
        return torch.optim.SGD([p for p in parameters if id(p) not in critics], lr=0.1)


class NewCritics(Critic):
    def extra_modules(self, policy):
        return {"critic": nn.Linear(16, 1)}


class UnusedCritic(Critic):
    def loss(self, minibatch):
        return Reinforce.loss(self, minibatch)


class Forgetful(Reinforce):
    """What it remembers of the rewards is not in its state."""

    spread = 0.0

    def advantages(self, judged):
        self.spread = float(judged.values_GK.nan_to_num().std()) if judged.rewards else 0.0
        return super().advantages(judged)

    def loss(self, minibatch):
        found = super().loss(minibatch)
        return replace(found, total=found.total * (1 + self.spread))


@pytest.mark.parametrize("optimizer", [Reinforce, Critic])
def test_an_optimizer_that_keeps_its_contract_passes(optimizer: type[Optimizer]) -> None:
    verified = check_optimizer(optimizer)
    assert "shifting the rewards changes nothing" in verified
    assert "scaling the rewards changes nothing" not in verified
    assert "the parts of a minibatch add up: total, weight, gradient and metrics" in verified
    assert check_optimizer(optimizer()) == verified


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Ascent, "positive advantages to raise log-probabilities"),
        (MaskBlind, "masked entries"),
        (MasksByProduct, r"masked entries \(nan\) to be ignored"),
        (Mean, r"add up to the whole: its (total|weight)"),
        (PerBatch, "add up to the whole: its total"),
        (WrongWeight, "add up to the whole: its weight"),
        (Undivided, "a differentiable scalar as total, even of a part"),
        (PlainMetrics, "metric 'size' to be a `Metric`"),
        (AveragedMaximum, "add up to the whole: its metrics"),
        (NanSpreads, "advantages_BS to be finite"),
        (UnscoredAreZeros, "a sum of 0 over those rollouts of a group that were scored"),
        (UnscoredTaught, "0 for unscored rollouts"),
        (Positional, "permuted with their rewards"),
        (Batched, "the same in any order of the groups"),
        (Steps, "no change by a shift"),
        (ByTrajectory, r"advantages_BS to be \(20, 6\)"),
        (NeedsGroups, "an answer for these groups; got IndexError"),
        (BestGroups, "the same answer for a group alone"),
        (HalfOptimized, "exactly the given parameters"),
        (CriticLeftOut, "exactly the given parameters"),
        (NewCritics, "the same modules whenever it is asked"),
        (UnusedCritic, "a gradient for 'critic' of extra_modules"),
        (Forgetful, "a fresh optimizer with the state of another to go on like it"),
    ],
)
def test_an_optimizer_that_breaks_a_clause_is_caught(optimizer: type[Optimizer], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_optimizer(optimizer)


def test_a_demanded_invariance_is_checked() -> None:
    with pytest.raises(ContractError, match="no change by a scale"):
        check_optimizer(Reinforce, scale_invariant=True)
