"""Snapshots leave out what a policy's checkpoint gives back, and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from safetensors.torch import load_file, save_file
from seeing import SeeingPolicy
from torch import nn

from gymnast_core.errors import CheckpointError
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.training.unchanging import fingerprint


def by_the_book(content: bytes) -> int:
    """The hash as its paper writes it, with whole numbers of any size."""
    drawn = hashlib.shake_256(b"gymnast").digest(2**20)
    factors = [int.from_bytes(drawn[at : at + 8], "little") | 1 for at in range(0, len(drawn), 8)]
    total = 0
    for first in range(0, len(content), 2**20):
        block = content[first : first + 2**20]
        words = [int.from_bytes(block[at : at + 8].ljust(8, b"\0"), "little") for at in range(0, len(block), 8)]
        total = total * 0x9E3779B97F4A7C15 + sum(f * w for f, w in zip(factors, words, strict=False))
    return total % 2**64


@pytest.mark.parametrize("count", [0, 1, 3, 4, 1001, 2**18 + 5])
def test_a_fingerprint_is_the_hash_of_dtype_shape_and_content(count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    assert fingerprint(x) == f"float32 {count} {by_the_book(x.numpy().tobytes()):016x}"
    if count:
        changed = x.clone()
        changed[-1] = changed[-1].nextafter(torch.tensor(9.0))
        assert fingerprint(changed) != fingerprint(x)


def test_order_shape_and_dtype_count_and_where_it_lies_does_not() -> None:
    x = torch.arange(6.0)
    seen = {fingerprint(y) for y in (x, x.flip(0), x.reshape(2, 3), x.reshape(3, 2), x.double(), x.bfloat16())}
    assert len(seen) == 6
    assert fingerprint(torch.arange(8.0)[1:7]) == fingerprint(torch.arange(1.0, 7.0))
    assert fingerprint(x.reshape(2, 3).t()) == fingerprint(x.reshape(2, 3).t().contiguous())


class Towered(SeeingPolicy):
    """Beside what learns, it has weights that do not; its odds depend on both."""

    @dataclass(frozen=True)
    class Config(SeeingPolicy.Config):
        checkpoint: str | None = None

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        read = torch.full((64,), 0.5) if self.config.checkpoint is None else load_file(self.config.checkpoint)["tower"]
        self.tower, self.follower = nn.Parameter(read, False), nn.Parameter(read.clone(), False)
        self.register_buffer("count", torch.zeros(()))

    def _log_probs(self, observation: Any, temperature: Any) -> Any:
        with torch.no_grad():
            if torch.is_grad_enabled():
                self.follower.lerp_(self.scale.detach(), 0.1)
            self.count += 1
        return super()._log_probs(observation, temperature) * self.tower.mean()

    def act(self, *arguments: Any, **options: Any) -> Any:
        self.follower.data.mul_(0.99)
        return super().act(*arguments, **options)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_file({"tower": torch.rand(64)}, tmp_path / "tower.safetensors")
    return tmp_path / "tower.safetensors"


def towered(checkpoint: Path | None) -> Towered:
    return Towered(Towered.Config(checkpoint=None if checkpoint is None else str(checkpoint)))


def run(folder: Path, checkpoint: Path | None, iterations: int, snapshot: Any = None) -> Towered:
    config, policy = loop_config(iterations=iterations), towered(checkpoint)
    train(folder, parts_of(policy, config, Learner()), config, snapshot)
    return policy


def test_what_the_checkpoint_gives_back_is_left_out_and_a_resumed_run_is_the_same(
    checkpoint: Path, tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", checkpoint, 2)
    run(tmp_path / "part", checkpoint, 1)
    snapshot = load_snapshot(tmp_path / "part/snapshots")
    assert snapshot is not None
    # What follows the others has changed: whoever freezes a weight may still write into it.
    assert set(snapshot.state["policy"]) == {"scale", "bias", "follower", "count"}
    assert set(snapshot.state["unchanging"]) == {"tower"}
    resumed = run(tmp_path / "part", checkpoint, 2, snapshot)
    for name, x in whole.state_dict().items():
        assert torch.equal(x, resumed.state_dict()[name]), name


def test_without_a_checkpoint_everything_is_kept(tmp_path: Path) -> None:
    run(tmp_path, None, 1)
    snapshot = load_snapshot(tmp_path / "snapshots")
    assert snapshot is not None
    assert "tower" in snapshot.state["policy"] and not snapshot.state["unchanging"]


def test_another_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", checkpoint, 1)
    snapshot = load_snapshot(tmp_path / "run/snapshots")
    save_file({"tower": torch.rand(64)}, checkpoint)
    with pytest.raises(CheckpointError, match=r"leaves out 1 frozen weights.*\('tower' first\)\. Put the checkpoint"):
        run(tmp_path / "run", checkpoint, 2, snapshot)


def test_a_snapshot_that_an_earlier_edition_wrote_is_whole(checkpoint: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", checkpoint, 2)
    policy = run(tmp_path / "part", checkpoint, 1)
    snapshot = load_snapshot(tmp_path / "part/snapshots")
    assert snapshot is not None
    state = {key: value for key, value in snapshot.state.items() if key != "unchanging"}
    state["policy"] = policy.state_dict()
    save_snapshot(tmp_path / "part/snapshots", 1, state, own=snapshot.processes[0])
    resumed = run(tmp_path / "part", checkpoint, 2, load_snapshot(tmp_path / "part/snapshots"))
    assert torch.equal(whole.scale, resumed.scale) and torch.equal(whole.tower, resumed.tower)
