"""What a gradient optimizer is told when a run goes on takes effect; what it has learned stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy
from torch import nn

from gymnast_core.runs.snapshot import load_snapshot
from gymnast_core.training.settings import apply_changes, settings_of


@dataclass
class Told(Learner):
    """AdamW with settings, and a second group of parameters with a rate of its own."""

    settings: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0

    def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": list(parameters[:-1])}, {"params": list(parameters[-1:]), "lr_scale": self.scale}]
        return torch.optim.AdamW(groups, lr=self.rate, **self.settings)


def test_what_a_resumed_run_is_told_takes_effect(tmp_path: Path) -> None:
    part, whole = loop_config(iterations=2), loop_config(iterations=3)
    begun = train(tmp_path, parts_of(SeeingPolicy(), part, Told(rate=1e-2, scale=10.0)), part)
    moments = begun.updater.torch_optimizer.state_dict()["state"]
    told = Told(rate=1e-3, scale=100.0, settings={"weight_decay": 0.5, "betas": (0.8, 0.95)})
    snapshot = load_snapshot(tmp_path / "snapshots")
    assert snapshot is not None and moments
    loop = train(tmp_path, parts_of(SeeingPolicy(), whole, told), whole, snapshot)
    first, second = loop.updater.torch_optimizer.param_groups
    assert first["weight_decay"] == second["weight_decay"] == 0.5 and list(first["betas"]) == [0.8, 0.95]
    assert first["lr"] == pytest.approx(1e-3) and second["lr"] == pytest.approx(1e-1)
    # What was learned went on.
    steps = [float(state["step"]) for state in loop.updater.torch_optimizer.state.values()]
    assert min(steps) > max(float(state["step"]) for state in moments.values()) > 0


def test_what_was_not_changed_stays_as_the_snapshot_has_it() -> None:
    """Some optimizers keep counters and estimates beside their settings."""
    weight = nn.Parameter(torch.ones(3))
    first, again = (torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1) for _ in range(2))
    told = settings_of(first)
    first.param_groups[0]["estimate"] = 7.0
    first.param_groups[0]["eps"] = 1e-5  # its own doing, not its author's
    again.load_state_dict(first.state_dict())
    apply_changes(again, settings_of(torch.optim.AdamW([weight], lr=0.2, weight_decay=0.1, betas=(0.5, 0.6))), told)
    (group,) = again.param_groups
    assert (group["estimate"], group["eps"], group["weight_decay"], group["betas"]) == (7.0, 1e-5, 0.1, [0.5, 0.6])
    assert group["lr"] == 0.1  # every step sets it
