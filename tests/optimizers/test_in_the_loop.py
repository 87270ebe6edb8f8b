"""Whole iterations with a critic or an initial policy to be held: a resumed run ends as one that was never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner import loop_config, parts_of, train
from seeing import SeeingPolicy

from gymnast_core.interfaces import Optimizer
from gymnast_core.plugins import discovery, hooks
from gymnast_core.runs.snapshot import load_snapshot
from gymnast_optimizers.grpo import DAPO
from gymnast_optimizers.ppo import PPO
from gymnast_optimizers.reinforce import ReinforcePlusPlus

STEPS = {"group_size": 4, "minibatch_size": 6, "learning_rate": 0.05, "epochs": 2}
MADE = {
    "ppo": lambda: PPO(PPO.Config(**STEPS, critic_hidden=4, bootstrap=True)),
    "reinforce++": lambda: ReinforcePlusPlus(ReinforcePlusPlus.Config(**STEPS, reward_kl=0.2)),
    "dapo": lambda: DAPO(DAPO.Config(**STEPS)),
}


@pytest.fixture(autouse=True)
def no_installed_hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What reports and judges do during a run is tested with them."""
    found = discovery.sources
    hooks.plugin_manager.cache_clear()
    monkeypatch.setattr(discovery, "sources", lambda group: {} if group == "gymnast.hooks" else found(group))
    yield
    hooks.plugin_manager.cache_clear()


def run(folder: Path, optimizer: Optimizer, iterations: int, resumes: bool = False, every: int = 2, **loop: int):
    folder.mkdir(exist_ok=True)
    config = loop_config(iterations=iterations, max_draws=3, **loop)
    snapshot = load_snapshot(folder / "snapshots") if resumes else None
    assert (snapshot is not None) is resumes
    parts = parts_of(SeeingPolicy(), config, optimizer)
    parts.attach()
    return train(folder, parts, replace(config, checkpoint_every=every), snapshot)


@pytest.mark.parametrize("name", MADE)
def test_a_resumed_run_ends_as_one_that_was_never_stopped(name: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", MADE[name](), 4)
    run(tmp_path / "parts", MADE[name](), 2)
    resumed = run(tmp_path / "parts", MADE[name](), 4, resumes=True)
    assert resumed.iteration == whole.iteration == 4
    begun = SeeingPolicy().state_dict()
    wanted, found = whole.state_dict(), resumed.state_dict()
    assert any(not torch.equal(wanted[f"policy.{key}"], value) for key, value in begun.items())
    assert wanted.keys() == found.keys() and (name != "ppo" or any("critic" in key for key in wanted))
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key


def test_memory_changes_no_update(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", MADE["ppo"](), 2)
    parts = run(tmp_path / "parts", MADE["ppo"](), 2, micro_batch_size=1)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, atol=1e-5, rtol=1e-4)
