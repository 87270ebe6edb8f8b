"""The parts keep to the device that they are on, and seldom wait for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerator import DEVICE, Accelerator, MixedDevices

sys.path.append(str(Path(__file__).parents[1] / "run"))

from small import INSTRUCTIONS, WORLD, build, policy_args

from gymnast_core.processes import Processes
from gymnast_core.rollouts.deal import Group
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.training.tally import Tally
from gymnast_core.training.update import Updater
from gymnast_core.types import Reward, Rollout, Task

# Two of them differ in their number of words: prompts that are padded, and prompts that are not.
TEXTS = {"even": [INSTRUCTIONS[0]] * 4, "uneven": [INSTRUCTIONS[0], "wait", INSTRUCTIONS[1], "wait"]}


def tasks(texts: list[str]) -> list[Task]:
    frames = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8)
    return [Task(f"task-{place}", text, frames) for place, text in enumerate(texts)]


def policy(**args: Any) -> Any:
    made = build("policies", "openvla-oft", {**policy_args(), **args})
    made.module().to(DEVICE)
    return made


def world() -> Any:
    made = build("world_models", "worldgym", WORLD)
    made.network.to(DEVICE)
    return made


def rolled_out(actor: Any, texts: list[str], horizon: int) -> tuple[list[Rollout], list[str]]:
    generator = torch.Generator().manual_seed(0)
    with Accelerator() as device:
        rollouts = imagine(actor, world(), tasks(texts), horizon=horizon, temperature=1.0, generator=generator)
    return rollouts, device.reads


def test_the_accelerator_notices_both_faults() -> None:
    with Accelerator() as device, pytest.raises(MixedDevices):
        torch.zeros(2, device=DEVICE) + torch.zeros(2)
    with Accelerator() as device:
        assert bool(torch.zeros(2, device=DEVICE).any())
        assert torch.zeros(3, device=DEVICE).cpu().shape == (3,)
    assert device.reads == ["value", "tensor (3,)"]


@pytest.mark.parametrize("texts", TEXTS.values(), ids=list(TEXTS))
def test_what_a_rollout_waits_for(texts: list[str]) -> None:
    """Probabilities are read, since actions are drawn on the host; the world sees whether they are finite, and hands
    over finished frames. Denoising reads nothing, and what was drawn is fetched at the end."""
    decision = ["tensor (16, 16)", "value", "tensor (4, 2, 1, 32, 32, 3)"]
    actions, log_probs, tokens = [f"tensor (4, {{}}, 2, {width})" for width in (2, 2, 2)]
    for decisions in (1, 3):
        _, reads = rolled_out(policy(), texts, 2 * decisions)
        assert reads == decisions * decision + [text.format(decisions) for text in (actions, log_probs, tokens)]


@pytest.mark.parametrize("texts", TEXTS.values(), ids=list(TEXTS))
def test_an_update_is_waited_for_as_often_with_many_microbatches(texts: list[str]) -> None:
    actor = policy()
    rollouts, _ = rolled_out(actor, texts, 4)
    groups = [Group(0, tuple(rollouts), (Reward(1.0), Reward(0.0), Reward(0.0), Reward(1.0)))]
    reads = []
    for micro in (4, 1):
        optimizer = build("optimizers", "grpo", {"group_size": 4, "minibatch_size": 4, "epochs": 1})
        updater = Updater(
            actor, {}, optimizer, [], seed=0, micro_batch_size=micro, precision="32-true", processes=Processes()
        )
        updater.torch_optimizer = optimizer.torch_optimizer(updater.parameters)
        with Accelerator() as device:
            updater.update(groups, 0, Tally())
        assert updater.updates == 1
        reads.append(device.reads)
    # The weight of the loss, all metrics at once, and three numbers: is the gradient finite, did something move?
    assert [len(one) for one in reads] == [5, 5], reads
