"""`gymnast train` with trainer.strategy=fsdp2: two processes that share the weights out make the update of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from launching import gymnast
from safetensors.torch import load_file
from small import Models

TWO = ["trainer.devices=2", "trainer.strategy=fsdp2"]
# A critic that stays whole, gradients that are clipped, and a process that has nothing to learn from in an iteration.
OPTIONS = [
    "loop.iterations=2", "loop.groups_per_update=1", "loop.imagine_batch_size=2", "loop.micro_batch_size=1",
    "checkpoint_every=1", "evaluation.tasks=null", "reward_model={name: random, args: {seed: 3}}",
    "optimizer.name=ppo", "optimizer.args.minibatch_size=3", "optimizer.args.epochs=2",
    "optimizer.args.learning_rate=1e-3", "optimizer.args.max_grad_norm=0.05",
]  # fmt: skip


def train(folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    done = gymnast("train", *arguments, folder=folder)
    assert done.returncode == 0, done.stderr


def assert_same(actual: Path, expected: Path) -> None:
    """The policy and the critic that two runs saved."""
    for name in ("policy/model.safetensors", "optimizer/critic.safetensors"):
        found, wanted = load_file(actual / "run" / name), load_file(expected / "run" / name)
        assert found.keys() == wanted.keys()
        for key, x in wanted.items():
            # A key's bias adds the same to all of a query's logits: its gradient is rounding, which Adam makes large.
            parts = (0, 2) if key.endswith("attn.qkv.bias") else (0, 1, 2)
            for part in parts if len(x) >= 3 else (0,):
                torch.testing.assert_close(
                    found[key].tensor_split(3)[part], x.tensor_split(3)[part], atol=1e-5, rtol=0, msg=key
                )


@pytest.fixture(scope="module")
def alone(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    small = [item for item in models.overrides() if not item.startswith(("reward_model", "evaluation"))]
    train(folder, "tabletop", *small, *OPTIONS)
    return folder


def test_shared_weights_learn_as_whole_ones_and_go_on_in_one_process(
    models: Models, alone: Path, tmp_path: Path
) -> None:
    small = [item for item in models.overrides() if not item.startswith(("reward_model", "evaluation"))]
    two = tmp_path / "two"
    train(two, "tabletop", *small, *OPTIONS, *TWO)
    assert_same(two, alone)
    begun = load_file(models.policy / "model.safetensors")
    learned = load_file(two / "run/policy/model.safetensors")
    assert sum((learned[name] - x).abs().max() > 1e-4 for name, x in begun.items()) > len(begun) / 2
    # As if it had been killed in the second iteration; its snapshots are whole.
    for name in ("snapshots/step-000000002", "policy", "optimizer"):
        shutil.rmtree(two / "run" / name)
    train(two, "--resume", "run", "trainer.devices=1", "trainer.strategy=auto")
    assert_same(two, alone)
