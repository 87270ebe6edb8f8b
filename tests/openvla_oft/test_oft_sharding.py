"""Reinforcement learning's calls, `act` and `evaluate`, with shared weights (FSDP2): as with whole ones."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import forkserver
from oft_cases import observation, seeing, small_config
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from gymnast_core.errors import ConfigError
from gymnast_core.types import ActionChunk, Observation
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.sharding import _check_dtypes
from gymnast_openvla_oft.tuning import Tuning

KINDS: dict[str, dict[str, Any]] = {
    "full": {"checkpointing": True},
    "frozen": {"vision": "frozen"},
    "lora": {"lora_rank": 2, "vision": "frozen", "checkpointing": True},
}
PROCESSES = 2


def build(kind: str) -> OpenVLAOFT:
    config = small_config()
    architecture = replace(config.architecture, proprio_low=[-1.0], proprio_high=[1.0])
    tuning = Tuning(**KINDS[kind])
    return OpenVLAOFT(replace(config, architecture=architecture, train=tuning, proprio=True)).eval()


def seen(rank: int, count: int) -> Observation:
    """A process's decisions; the last one's image is seen twice, so that not all processes compute as many features."""
    made = observation(batch=4)
    images = made.latest_BVHWC.clone()
    images[3] = images[2]
    rows = slice(rank * 4 // count, (rank + 1) * 4 // count)
    return seeing(images[rows], made.instructions[rows], torch.linspace(-1, 1, 4)[rows, None])


def learn(policy: OpenVLAOFT, rank: int, count: int) -> tuple[ActionChunk, Tensor]:
    """Act greedily, evaluate, and take two steps, each with the gradient of all processes' mean."""
    mine = seen(rank, count)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
    chunk = policy.act(mine, temperature=0.0)
    first = torch.empty(0)
    for step in range(2):
        optimizer.zero_grad()
        found = policy.evaluate(mine, chunk)
        log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
        first = log_prob.detach() if step == 0 else first
        (-log_prob.mean() - 0.1 * entropy.mean()).backward()
        optimizer.step()
    return chunk, first


def work(rank: int, kind: str, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    policy = build(kind)
    policy.shard(init_device_mesh("cpu", (PROCESSES,)))
    chunk, log_prob = learn(policy, rank, PROCESSES)
    shared = {name: isinstance(x, DTensor) for name, x in policy.named_parameters()}
    weights = get_model_state_dict(policy, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    found = {"tokens": chunk.tokens_BLD, "log_prob": log_prob, "chunk_log_prob": chunk.log_prob_BLD}
    save_file({k: x.contiguous() for k, x in found.items() if x is not None}, f"{folder}/seen-{rank}.safetensors")
    if rank == 0:
        save_file(weights, f"{folder}/weights.safetensors")
        Path(f"{folder}/whole").write_text("\n".join(name for name, is_part in shared.items() if not is_part))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_act_and_learn_as_one(kind: str, tmp_path: Path) -> None:
    context = forkserver()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=work, args=(i, kind, port, str(tmp_path))) for i in range(PROCESSES)]
    for process in processes:
        process.start()
    alone = build(kind)
    before = {name: x.clone() for name, x in alone.state_dict().items()}
    chunk, log_prob = learn(alone, 0, 1)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    parts = [load_file(tmp_path / f"seen-{i}.safetensors") for i in range(PROCESSES)]
    assert chunk.tokens_BLD is not None and torch.equal(torch.cat([x["tokens"] for x in parts]), chunk.tokens_BLD)
    for name in ("log_prob", "chunk_log_prob"):
        torch.testing.assert_close(torch.cat([x[name] for x in parts]), log_prob, atol=1e-5, rtol=0)
    weights = load_file(tmp_path / "weights.safetensors")
    assert weights.keys() == before.keys()
    for name, x in alone.state_dict().items():
        torch.testing.assert_close(weights[name], x, atol=1e-5, rtol=0, msg=name)
    assert any((weights[name] - x).abs().max() > 1e-3 for name, x in before.items())
    whole = (tmp_path / "whole").read_text().split()
    # Frozen towers keep their features, and are whole for that; nothing else is.
    assert all("vision_backbone" in name for name in whole) and bool(whole) == (kind != "full")


def test_two_dtypes_that_learn_in_one_layer_are_refused() -> None:
    config = replace(small_config(), film=True, dtype="bfloat16", train=Tuning(lora_rank=2))
    policy = OpenVLAOFT(config)
    with pytest.raises(ConfigError, match=r"FiLM learns in bfloat16.*dtype=float32"):
        _check_dtypes(policy.model.vision_backbone.featurizer.blocks[0])
