"""Proximal policy optimisation with a critic on the policy's features, as World4RL trains in a learned world.

PPO: arXiv 1707.06347, eq. 7 and 9. GAE: arXiv 1506.02438, eq. 11-16. World4RL: arXiv 2509.19080. Value clipping is that
of the published implementation ("The 37 Implementation Details of PPO", 2022, detail 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.config.ranges import Count, Fraction, NotNegative, Positive, Seed
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.learning import Advantages, Judged, Minibatch
from gymnast_core.types import LossSum, Metric
from gymnast_optimizers.aggregation import masked_metric, masked_sum
from gymnast_optimizers.critic import ValueHead
from gymnast_optimizers.gae import generalised_advantages, of_decisions
from gymnast_optimizers.moments import Moments
from gymnast_optimizers.rescoring import feature_width, rescore, with_the_end
from gymnast_optimizers.surrogate import ClippedConfig, ClippedSurrogate, chunk_length


class PPO(ClippedSurrogate):
    """Advantages over a critic's values, a decision (chunk of actions) being one step; the clipped surrogate loss.

    Takes rewards of each action where the judge gives them (`progress`, `verified`), and the whole reward at the last
    action that counts where it does not. Needs a policy that shows its features. Metrics: `explained_variance` of the
    returns by the values that the critic gave before the update (1: all of it, 0 or less: none), `value_loss`,
    `value_clip_fraction`.
    """

    @dataclass(frozen=True)
    class Config(ClippedConfig):
        discount: Fraction = 1.0
        """Gamma, a decision; 1 is right for a reward at the end of a short horizon."""
        trace: Fraction = 0.95
        """Lambda of GAE, a decision: 1 trusts what happened alone (Monte Carlo), 0 the critic alone."""
        bootstrap: bool = False
        """What the horizon is: false, the end, after which nothing is earned; true, a cut: an episode that was not
        finished by then is credited with the critic's value of its last frame. True double counts a reward that judges
        the end, and is meant for rewards of each step. An episode that its environment ended is never credited, whether
        it was terminated or truncated, which rollouts do not tell apart: let `loop.horizon` be the cut, and the
        environment's own time limit beyond it."""
        normalise_advantages: bool = True
        """Whether advantages are whitened over all decisions of the batch, in all processes."""
        value_clip: Positive | None = 0.2
        """How far, in units of reward, a value may move from where it was before the update and still earn; None: any
        way."""
        value_coefficient: NotNegative = 0.5
        """Weight of the critic's loss, half the squared error, beside the policy's."""
        critic_learning_rate: Positive = 1e-3
        """Peak learning rate of the critic, on the policy's schedule."""
        critic_hidden: Count = 256
        """Units of the critic's hidden layer."""
        normalise_features: bool = True
        """Whether the critic sees the features after a layer norm: right for the hidden states of large networks, whose
        scale is anything; wrong for a few numbers whose size is what they say."""
        critic_trains_policy: bool = False
        """Whether the critic's gradient reaches the policy through its features."""
        features: Count | None = None
        """Width of the policy's features; None: found by one decision on the first task."""
        critic_seed: Seed = 0
        """Of the critic's first weights."""

    def __init__(self, config: PPO.Config | None = None):
        config = config if config is not None else self.Config()
        super().__init__(config)
        self.config: PPO.Config = config
        self._parts = Parts()
        self._critic: ValueHead | None = None

    def attach(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def critic(self) -> ValueHead:
        if self._critic is None:
            raise ConfigError("The critic of ppo has not been built: `extra_modules` builds it.")
        return self._critic

    def extra_modules(self, policy: Policy) -> Mapping[str, nn.Module]:
        if self._critic is None:
            features = self.config.features or feature_width(policy, self._parts)
            config = self.config
            self._critic = ValueHead(
                features, config.critic_hidden, config.critic_seed, normalises=config.normalise_features
            )
        return {"critic": self._critic}

    def parameter_groups(self, trained: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        """The critic's parameters have a rate of their own."""
        critics = {id(parameter) for parameter in self.critic.parameters()}
        scale = self.config.critic_learning_rate / self.config.learning_rate
        policys = super().parameter_groups([p for p in trained if id(p) not in critics])
        own = super().parameter_groups([p for p in trained if id(p) in critics])
        return [*policys, *({**group, "lr_scale": scale} for group in own)]

    def keep(self, judged: Judged) -> Tensor:
        """A critic is the baseline, so rewards need not differ: every group teaches that was judged at all."""
        return judged.valid_GK.any(1)

    def advantages(self, judged: Judged) -> Advantages:
        """GAE of each decision, the same for all of its actions; targets: the returns, the values before the update."""
        mask_BS, valid_B = judged.mask_BS, judged.valid_GK.flatten()
        values_BN, last_B = self._values(judged)
        decisions = values_BN.shape[1]
        length = mask_BS.shape[1] // decisions
        counted_BN = mask_BS[:, ::length] & valid_B[:, None] if length else torch.zeros(0, decisions).bool()
        rewards_BN = of_decisions(judged.step_rewards_BS, mask_BS, decisions)
        gae_BN = generalised_advantages(
            rewards_BN, values_BN, counted_BN, last_B=last_B, discount=self.config.discount, trace=self.config.trace
        )
        processes = self._parts.processes
        returns_BN = gae_BN + torch.where(counted_BN, values_BN, 0.0)
        unexplained = Moments.of(returns_BN - values_BN, counted_BN, processes).variance
        whole = Moments.of(returns_BN, counted_BN, processes).variance
        explained = 1.0 - unexplained / whole if whole > 1e-12 else 0.0
        if self.config.normalise_advantages:
            gae_BN = Moments.of(gae_BN, counted_BN, processes).whiten(gae_BN, counted_BN, 1e-8)
        advantages_BS = gae_BN.repeat_interleave(length, dim=1) if length else mask_BS.float()
        targets = {
            "returns": returns_BN,
            "values": values_BN,
            "explained_variance": torch.full((len(valid_B),), explained),
        }
        return Advantages(torch.where(mask_BS, advantages_BS, 0.0), targets)

    def loss(self, minibatch: Minibatch) -> LossSum:
        """The surrogate's loss plus `value_coefficient` times half the (clipped) squared error of the values."""
        found = super().loss(minibatch)
        if minibatch.features_BNF is None:
            raise ConfigError("The policy shows no features_BF in `evaluate`; ppo's critic cannot do without.")
        features_BNF = minibatch.features_BNF
        values_BN = self.critic(features_BNF if self.config.critic_trains_policy else features_BNF.detach())
        old_BN, returns_BN = minibatch.targets["values"], minibatch.targets["returns"]
        error_BN = (values_BN - returns_BN).square()
        is_clipped_BN = torch.zeros_like(error_BN, dtype=torch.bool)
        if self.config.value_clip is not None:
            near_BN = old_BN + (values_BN - old_BN).clamp(-self.config.value_clip, self.config.value_clip)
            clipped_BN = (near_BN - returns_BN).square()
            is_clipped_BN = clipped_BN > error_BN
            error_BN = torch.maximum(error_BN, clipped_BN)
        by = self.config.loss_average
        error_BSD, mask_BS = self._wide(0.5 * error_BN, minibatch), self.mask(minibatch)
        total, _ = masked_sum(error_BSD, mask_BS, by=by)
        explained_B = minibatch.targets["explained_variance"]
        metrics = {
            "value_loss": masked_metric(error_BSD, mask_BS, by=by),
            "value_clip_fraction": masked_metric(self._wide(is_clipped_BN, minibatch), mask_BS, by=by),
            "explained_variance": Metric(explained_B.sum() / max(len(explained_B), 1), float(len(explained_B))),
        }
        total = found.total + self.config.value_coefficient * total
        return replace(found, total=total, metrics={**found.metrics, **metrics})

    def _wide(self, values_BN: Tensor, minibatch: Minibatch) -> Tensor:
        """A number of each decision beside every factor, action or decision that the surrogate counts: one weight
        serves both losses."""
        if self.config.ratio == "decision":
            return values_BN[..., None]
        factors = minibatch.log_prob_BSD.shape[2] if self.config.ratio == "factor" else 1
        return values_BN.repeat_interleave(chunk_length(minibatch), dim=1)[..., None].expand(-1, -1, factors)

    @torch.no_grad()
    def _values(self, judged: Judged) -> tuple[Tensor, Tensor]:
        """What the critic expects at each decision (B, N), and what follows the last one (B,): the critic's value of
        the last frame and the potential that shaped rewards have there; 0 of unjudged rollouts."""
        count = len(judged.rollouts)
        decisions = judged.rollouts[0].actions_NLA.shape[0] if count else 1
        values_BN, last_B = torch.zeros(count, decisions), torch.zeros(count)
        rows = judged.valid_GK.flatten().nonzero().flatten().tolist()
        policy = self._parts.policy
        if not rows or policy is None:
            return values_BN, last_B
        bootstrap = self.config.bootstrap
        asked = [with_the_end(judged.rollouts[row]) if bootstrap else judged.rollouts[row] for row in rows]
        features_BNF = rescore(policy, asked, self._parts).features_BNF
        if features_BNF is None or features_BNF.shape[-1] != self.critic.features:
            width = "no" if features_BNF is None else features_BNF.shape[-1]
            raise ConfigError(
                f"optimizer.args.features is {self.critic.features}, and the policy shows {width} features. Leave it "
                "out: the width is found by itself."
            )
        found = self.critic(features_BNF.to(self.critic.device)).cpu()
        values_BN[rows] = found[:, :decisions]
        if bootstrap:
            goes_on = torch.tensor(
                [judged.rewards[row].finish_step is None and judged.rollouts[row].ended_after is None for row in rows]
            )
            last_B[rows] = torch.where(goes_on, found[:, -1] + _end_potentials(judged, rows), 0.0)
        return values_BN, last_B


def _end_potentials(judged: Judged, rows: Sequence[int]) -> Tensor:
    """Of these rollouts, float32. Shaped rewards fall by the potential at the horizon, as if the episode ended there;
    where it goes on, that is given back: F = gamma · Phi(s') - Phi(s) at a cut, too (Ng et al. 1999, theorem 1)."""
    rewards = [judged.rewards[row] for row in rows]
    return torch.tensor([0.0 if reward.step_values_S is None else reward.end_potential for reward in rewards])
