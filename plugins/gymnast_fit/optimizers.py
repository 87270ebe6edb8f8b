"""Learning rates, gradient optimizers and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gymnast_core.errors import ConfigError
from gymnast_core.training.masters import MasterWeights
from gymnast_core.training.schedules import Schedule
from gymnast_fit.config import FitLoopConfig


def learning_rate_factor(step: int, config: FitLoopConfig) -> float:
    """The share of its peak that the learning rate has; its decay ends where a step after the last would be."""
    steps = max(1, config.steps - config.warmup_steps)
    return Schedule(config.warmup_steps, config.decay, steps, config.decay_floor).rate(step, peak=1.0)


def build_optimizers(module: nn.Module, config: FitLoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon (torch.optim.Muon) on the matrices of repeated blocks and AdamW on the rest.

    Raises `ConfigError` if there is nothing for Muon to train.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices = [name for name in _block_matrices(module) if name in trained] if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not matrices:
        raise ConfigError("fit.optimizer is muon, but the network has no matrices in repeated blocks; set it to adamw.")
    rest = [p for name, p in trained.items() if name not in matrices]
    betas = (config.betas[0], config.betas[1])
    # Weight decay is for matrices: on norms and biases it only shrinks what should be free.
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                [trained[name] for name in matrices], lr=config.muon_learning_rate, weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    return optimizers


class FineWeights(nn.Module):
    """A network whose parameters are float32 or finer: what a moving average is to be of."""

    def __init__(self, network: nn.Module, masters: MasterWeights) -> None:
        super().__init__()
        self._seen = (network, masters)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        network, masters = self._seen
        return (masters.of(parameter) for parameter in network.parameters())

    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]:
        return self._seen[0].buffers()


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An average that begins with the network's weights; each `update_parameters` makes it decay·average + (1 -
    decay)·weights. Buffers (running statistics) are copied."""
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
    # PyTorch takes the weights of the first update for the start; the initial ones are, in WorldGym and DiT.
    average.n_averaged.fill_(1)
    return average.requires_grad_(False)


def _block_matrices(module: nn.Module) -> list[str]:
    """Names of the 2-D parameters inside an nn.ModuleList; a table of embeddings is not a matrix that multiplies."""
    lists = [name for name, child in module.named_modules() if isinstance(child, nn.ModuleList)]
    inside = tuple(f"{name}." if name else "" for name in lists)
    tables = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    return [
        name for name, p in module.named_parameters() if p.ndim == 2 and name.startswith(inside) and id(p) not in tables
    ]
