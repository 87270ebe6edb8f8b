"""What the algorithms share: how gradient steps are taken, whatever the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from torch import nn

from gymnast_core.config.ranges import Choices, Count, Fraction, NotNegative, Positive, Range, ZeroOrMore, check_values
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Optimizer
from gymnast_core.training.schedules import DECAYS, Schedule


@dataclass(frozen=True)
class GradientConfig:
    """Batching, AdamW and its learning-rate schedule. Defaults are World-Gymnast's (arXiv 2602.02454)."""

    group_size: Count = 8
    """Episodes imagined for each task draw (K)."""
    epochs: Count = 1
    """Passes over each batch of rollouts."""
    minibatch_size: Count = 160
    """Trajectories a gradient step."""
    max_grad_norm: Positive = 1.0
    """Gradient norm (L2 over all parameters) above which gradients are scaled down."""
    learning_rate: Positive = 5e-6
    """Peak learning rate of AdamW. Small policies want more: about 1e-4 for a million parameters."""
    warmup_updates: ZeroOrMore = 0
    """Gradient steps over which the learning rate rises linearly to its peak."""
    learning_rate_decay_updates: Count | None = None
    """Gradient steps after the warm-up over which it falls; None: constant."""
    decay: Annotated[str, Choices(*DECAYS)] = "cosine"
    """How it falls: along a half cosine, in a straight line ("linear"), or not at all ("constant")."""
    decay_floor: Fraction = 0.0
    """Share of the peak at which it ends, and stays."""
    weight_decay: NotNegative = 0.0
    """AdamW's decoupled decay, of matrices only (not of norms and biases)."""
    betas: list[Annotated[float, Range(least=0, below=1)]] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's two moment decays."""


class GradientSteps(Optimizer):
    """The part of an `Optimizer` that turns a `GradientConfig` into AdamW and a schedule."""

    api_version = 2

    def __init__(self, config: GradientConfig):
        _check(config)
        self.config = config
        self.group_size = config.group_size
        self.epochs = config.epochs
        self.minibatch_size = config.minibatch_size
        self.max_grad_norm = config.max_grad_norm

    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        trained = [p for p in parameters if p.requires_grad]
        if not trained:
            raise ConfigError(
                "The policy has no trainable parameters (every one has requires_grad=False): policy.args freezes it, "
                "or it is for evaluation only. Measure it with `gymnast evaluate`."
            )
        groups = [group for group in self.parameter_groups(trained) if group["params"]]
        beta1, beta2 = self.config.betas
        return torch.optim.AdamW(groups, lr=self.learning_rate(0), betas=(beta1, beta2))

    def parameter_groups(self, trained: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        """AdamW's groups, some of which may be empty: matrices decay, vectors do not."""
        return [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]

    def learning_rate(self, update: int) -> float:
        config = self.config
        schedule = Schedule(config.warmup_updates, config.decay, config.learning_rate_decay_updates, config.decay_floor)
        return schedule.rate(update, config.learning_rate)


def _check(config: GradientConfig) -> None:
    # Also of a config that was made in Python, which no file or command line has checked.
    check_values(type(config), asdict(config), "optimizer.args")
    if len(config.betas) != 2:
        raise ConfigError(f"optimizer.args.betas is {list(config.betas)}; give two numbers, e.g. [0.9, 0.95].")
    if config.learning_rate_decay_updates is None and (config.decay == "linear" or config.decay_floor):
        raise ConfigError(
            f"optimizer.args.decay={config.decay} and decay_floor={config.decay_floor:g} have no effect without "
            "optimizer.args.learning_rate_decay_updates: give the gradient steps over which the learning rate falls."
        )
