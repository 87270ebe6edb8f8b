"""Learning rates beside PyTorch's schedulers, beside what earlier editions computed, and in both loops alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from gymnast_core.errors import ConfigError
from gymnast_core.training.schedules import Schedule
from gymnast_fit.config import FitLoopConfig
from gymnast_fit.optimizers import learning_rate_factor
from gymnast_optimizers.grpo import GRPO

PEAK, WARMUP, STEPS = 3e-4, 7, 40


def rates(build: Callable[[torch.optim.Optimizer], LRScheduler], steps: int) -> list[float]:
    """What a scheduler of PyTorch gives, from its first step on."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_schedules_are_pytorchs(decay: str, floor: float) -> None:
    schedule = Schedule(WARMUP, decay, STEPS, floor)
    rise = rates(lambda optimizer: LinearLR(optimizer, 1 / WARMUP, 1.0, WARMUP - 1), WARMUP)
    fall: dict[str, Callable[[torch.optim.Optimizer], LRScheduler]] = {
        "cosine": lambda optimizer: CosineAnnealingLR(optimizer, STEPS, floor * PEAK),
        "linear": lambda optimizer: LinearLR(optimizer, 1.0, floor, STEPS),
    }
    expected = rise + rates(fall[decay], STEPS + 1)
    assert [schedule.rate(step, PEAK) for step in range(len(expected))] == pytest.approx(expected, rel=1e-9, abs=1e-18)
    assert schedule.rate(10**6, PEAK) == pytest.approx(floor * PEAK)
    assert Schedule(WARMUP, "constant", STEPS, floor).rate(10**6, PEAK) == PEAK


def test_what_earlier_editions_computed_is_computed_still() -> None:
    optimizer = GRPO(GRPO.Config(learning_rate=PEAK, warmup_updates=WARMUP, learning_rate_decay_updates=STEPS))
    fit = FitLoopConfig(steps=WARMUP + STEPS, warmup_steps=WARMUP)
    for step in range(2 * STEPS):
        progress = min((step - WARMUP) / STEPS, 1.0)
        train_rate = PEAK * 0.5 * (1.0 + math.cos(math.pi * progress))
        fit_factor = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        if step < WARMUP:
            train_rate, fit_factor = PEAK * (step + 1) / WARMUP, (step + 1) / WARMUP
        assert optimizer.learning_rate(step) == train_rate
        assert learning_rate_factor(step, fit) == fit_factor


@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_both_loops_have_the_same_schedules_under_the_same_names(decay: str) -> None:
    optimizer = GRPO(
        GRPO.Config(
            learning_rate=1.0, warmup_updates=WARMUP, learning_rate_decay_updates=STEPS, decay=decay, decay_floor=0.2
        )
    )
    fit = FitLoopConfig(steps=WARMUP + STEPS, warmup_steps=WARMUP, decay=decay, decay_floor=0.2)
    steps = range(WARMUP + STEPS)
    assert [optimizer.learning_rate(step) for step in steps] == [learning_rate_factor(step, fit) for step in steps]


@pytest.mark.parametrize("config", [{"decay": "linear"}, {"decay_floor": 0.1}])
def test_a_decay_without_its_length_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="learning_rate_decay_updates"):
        GRPO(GRPO.Config(**config))  # type: ignore[arg-type]
