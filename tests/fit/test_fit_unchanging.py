"""Snapshots of `gymnast fit` leave out what the component's checkpoint gives back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from gymnast_core.cli import cli
from gymnast_core.errors import CheckpointError
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.policy import OpenVLAOFT

Ranks = Callable[..., list[int | None]]
TOWER = Tower(patch_size=8, width=16, depth=2, heads=2)
EPISODES = "episodes={name: toy-episodes, args: {count: 8, size: 16, length: 6, action_dim: 2}}"
LOOP = (
    "fit={steps: 3, batch_size: 4, microbatches: 2, learning_rate: 0.001, warmup_steps: 0, decay: constant, "
    "log_every: 1, checkpoint_every: 1}"
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint/lora_adapter/adapter_model.safetensors")


@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_frozen_weights_come_from_the_checkpoint_again(strategy: str, ranks: Ranks, tmp_path: Path) -> None:
    checkpoint, run = tmp_path / "policy", tmp_path / "run"
    architecture = Architecture(
        image_size=16, dino=TOWER, siglip=TOWER, llm_width=32, llm_layers=1, llm_heads=2, llm_intermediate=48
    )
    OpenVLAOFT(OpenVLAOFT.Config(architecture=architecture, chunk_length=2)).save(checkpoint)
    count = 1 if strategy == "auto" else 2
    train = f"checkpoint: {checkpoint}, chunk_length: 2, train: {{vision: frozen, lora_rank: 2}}"
    options = [
        f"policy={{name: openvla-oft, args: {{{train}}}}}", EPISODES, "validation=null", LOOP, f"output={run}",
        f"trainer={{accelerator: cpu, devices: {count}, strategy: {strategy}}}",
    ]  # fmt: skip
    assert ranks(["fit", *options], count=count) == [0] * count
    state, whole = load_latest_snapshot(run / "snapshots"), weights(run)
    assert state is not None
    assert {name.split(".")[-3] for name in state["network"] if "lora" in name} == {"lora_A", "lora_B"}
    frozen = [name for name in state["unchanging"] if "base_layer" in name or "vision" in name]
    assert len(frozen) > 10 and not set(frozen) & set(state["network"])
    # As if it had been killed in the third step.
    for name in ("snapshots/step-000000003", "checkpoint"):
        shutil.rmtree(run / name)
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    name = "vision_backbone.featurizer.pos_embed"
    assert f"model.{name}" in frozen
    save_file({**tensors, name: tensors[name] + 1}, file)
    if count == 1:
        refused = CliRunner().invoke(cli, ["fit", "--resume", str(run)])
        assert isinstance(refused.exception, CheckpointError)
        assert "frozen weights, because they are read from the checkpoint" in str(refused.exception)
    else:
        assert 0 not in ranks(["fit", "--resume", str(run)], count=count)
    save_file(tensors, file)
    assert ranks(["fit", "--resume", str(run)], count=count) == [0] * count
    assert all(torch.equal(x, whole[name]) for name, x in weights(run).items())
