"""OpenVLA-OFT in two processes, with whole weights (DDP) and with shared ones (FSDP2): what one process trains."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gymnast_openvla_oft.policy import OpenVLAOFT

TOWER = "{patch_size: 8, width: 16, depth: 3, heads: 2}"
SIZES = (
    f"architecture: {{image_size: 16, dino: {TOWER}, siglip: {TOWER}, llm_width: 32, llm_layers: 2, llm_heads: 2, "
    "llm_intermediate: 48}, chunk_length: 2"
)
EPISODES = "{name: toy-episodes, args: {count: 8, size: 16, length: 6, action_dim: 2}}"
LOOP = (
    "fit={steps: 3, batch_size: 4, microbatches: 4, learning_rate: 0.001, warmup_steps: 0, log_every: 1, "
    "checkpoint_every: 2, validate_every: 2, validation_episodes: 3}"
)
KINDS = {
    "full": "checkpointing: true",
    "lora-frozen": "vision: frozen, lora_rank: 2, checkpointing: true",
}
Ranks = Callable[..., list[int | None]]


def arguments(kind: str, strategy: str, output: Path, *more: str) -> list[str]:
    trainer = f"accelerator: cpu, devices: {1 if strategy == 'auto' else 2}, strategy: {strategy}"
    return [
        "fit", f"policy={{name: openvla-oft, args: {{{SIZES}, train: {{{KINDS[kind]}}}}}}}", f"episodes={EPISODES}",
        f"validation={EPISODES}", LOOP, f"trainer={{{trainer}}}", f"output={output}", *more,
    ]  # fmt: skip


def log(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Time is no result; of what rounds away, the last bit decides.
    return [{k: float(v or "nan") for k, v in row.items() if k not in ("seconds", "unmoved")} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_update_of_one(kind: str, ranks: Ranks, tmp_path: Path) -> None:
    assert ranks(arguments(kind, "auto", tmp_path / "auto"), count=1) == [0]
    wanted = load_file(tmp_path / "auto/checkpoint/model.safetensors")
    for strategy in ("ddp", "fsdp2"):
        assert ranks(arguments(kind, strategy, tmp_path / strategy), count=2) == [0, 0]
        found = load_file(tmp_path / strategy / "checkpoint/model.safetensors")
        assert found.keys() == wanted.keys()
        for name, x in wanted.items():
            torch.testing.assert_close(found[name], x, rtol=0, atol=1e-5, msg=f"{strategy}: {name}")
        for mine, other in zip(log(tmp_path / "auto"), log(tmp_path / strategy), strict=True):
            assert other == pytest.approx(mine, rel=1e-3, nan_ok=True)
        adapter = (tmp_path / strategy / "checkpoint/lora_adapter/adapter_model.safetensors").is_file()
        assert adapter == (kind != "full")
    whole, shared = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("auto", "fsdp2"))
    assert whole["parameters"] == shared["parameters"]
    assert shared["validation"] == pytest.approx(whole["validation"], rel=1e-3)
    loaded = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "fsdp2/checkpoint")))
    assert loaded.model.state_dict().keys() == wanted.keys()


def test_shared_weights_go_on_where_they_stopped(ranks: Ranks, tmp_path: Path) -> None:
    for name, steps in (("run", 2), ("through", 3)):
        more = (f"fit.steps={steps}", "fit.decay=constant")
        assert ranks(arguments("full", "fsdp2", tmp_path / name, *more), count=2) == [0, 0]
    early = load_file(tmp_path / "run/checkpoint/model.safetensors")
    assert ranks(["fit", "--resume", str(tmp_path / "run"), "fit.steps=3"], count=2) == [0, 0]
    again, through = (load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("run", "through"))
    assert all(torch.equal(again[name], x) for name, x in through.items())
    # Weights that learn move by the learning rate in a step: a hundred times the tolerance of the comparison above.
    moved = [name for name, x in early.items() if (x - again[name]).abs().max() > 5e-4]
    assert len(moved) > 0.8 * len(early) - 20 and "language_model.lm_head.weight" in moved


FSDP = "trainer={accelerator: cpu, devices: 1, strategy: fsdp2}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fit.ema=0.9", "fit.ema=0.9 needs whole weights"),
        ("fit.optimizer=muon", "fit.optimizer=muon needs whole weights"),
        ("fit.steps=1", "Toy does not define shard()"),
    ],
)
def test_what_needs_whole_weights_is_refused(fit_error: Callable[..., str], setting: str, message: str) -> None:
    assert message in fit_error(FSDP, setting) and "trainer.strategy=ddp" in fit_error(FSDP, setting)
