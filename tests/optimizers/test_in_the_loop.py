"""Whole iterations with a critic or an initial policy to be held: a resumed run ends as one that was never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner import loop_config, parts_of, train
from seeing import SeeingPolicy

from gymnast_core.errors import CheckpointError
from gymnast_core.interfaces import Optimizer
from gymnast_core.plugins import discovery, hooks
from gymnast_core.runs.snapshot import load_snapshot
from gymnast_optimizers.grpo import DAPO, GRPO
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


def run(
    folder: Path,
    optimizer: Optimizer,
    iterations: int,
    resumes: bool = False,
    every: int = 2,
    policy: SeeingPolicy | None = None,
    **loop: int,
):
    folder.mkdir(exist_ok=True)
    config = loop_config(iterations=iterations, max_draws=3, **loop)
    snapshot = load_snapshot(folder / "snapshots") if resumes else None
    assert (snapshot is not None) is resumes
    parts = parts_of(policy or SeeingPolicy(), config, optimizer)
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


HELD = {
    "grpo": lambda: GRPO(GRPO.Config(**STEPS, kl_coefficient=0.1)),
    "reinforce++": MADE["reinforce++"],
}


@pytest.mark.parametrize("name", HELD)
def test_a_run_that_is_held_to_its_beginning_refuses_another_one(name: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", HELD[name](), 2, every=1)
    run(tmp_path / "parts", HELD[name](), 1, every=1)
    other = SeeingPolicy()
    with torch.no_grad():
        other.scale.mul_(1.5)
    with pytest.raises(CheckpointError, match=r"holds other weights now than it did then\. Put the checkpoint"):
        run(tmp_path / "parts", HELD[name](), 2, resumes=True, every=1, policy=other)
    resumed = run(tmp_path / "parts", HELD[name](), 2, resumes=True, every=1)
    assert torch.equal(resumed.policy.scale, whole.policy.scale)


def test_a_run_that_is_not_held_to_its_beginning_has_all_in_its_snapshot(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", MADE["dapo"](), 2, every=1)
    run(tmp_path / "parts", MADE["dapo"](), 1, every=1)
    other = SeeingPolicy()
    with torch.no_grad():
        other.scale.mul_(1.5)
    resumed = run(tmp_path / "parts", MADE["dapo"](), 2, resumes=True, every=1, policy=other)
    assert torch.equal(resumed.policy.scale, whole.policy.scale)


def test_memory_changes_no_update(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", MADE["ppo"](), 2)
    parts = run(tmp_path / "parts", MADE["ppo"](), 2, micro_batch_size=1)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, atol=1e-5, rtol=1e-4)
