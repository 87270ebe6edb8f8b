"""The network computes what the original computes."""

from __future__ import annotations

import golden
import pytest
import torch

from gymnast_worldgym.model import DiT
from gymnast_worldgym.rope import rotate, spatial_table, temporal_table

FORWARDS = ["forward_c4_standard", "forward_c4_pixel", "forward_c16_standard", "forward_c16_pixel"]
FORWARD_ATOL = 2.5e-5
"""A layer-norm eps of 1e-5 instead of 1e-6 moves some number by 4.7e-5 at least; rounding by 2e-6 to 1.7e-5, which
depends on how a CPU's library sums."""


@pytest.mark.parametrize("name", FORWARDS)
@torch.no_grad()
def test_forward_and_every_intermediate(name: str) -> None:
    recorded, dit = golden.tensors(name), golden.network(name)
    seen: dict[str, torch.Tensor] = {}

    def keep(key: str):
        return lambda module, args, output: seen.__setitem__(key, output)

    dit.x_proj.register_forward_hook(keep("tokens"))
    for index, layer in enumerate(dit.blocks):
        layer.s_block.register_forward_hook(keep(f"block{index}.s_out"))
        layer.t_block.register_forward_hook(keep(f"block{index}.t_out"))
    dit.blocks[0].s_block.attn.register_forward_hook(keep("block0.s_attn_out"))
    dit.blocks[0].t_block.attn.register_forward_hook(keep("block0.t_attn_out"))
    out = dit(recorded["x"], recorded["t"], recorded["action"])
    for key, value in seen.items():
        golden.close(value.reshape(recorded[key].shape), recorded[key], FORWARD_ATOL)
    assert len(seen) == 7
    golden.close(out, recorded["out"], FORWARD_ATOL)


@pytest.mark.parametrize("name", FORWARDS)
@torch.no_grad()
def test_null_action_and_fractional_timesteps(name: str) -> None:
    recorded, dit = golden.tensors(name), golden.network(name)
    golden.close(dit(recorded["x"], recorded["t"], recorded["null_action"]), recorded["out_null"], FORWARD_ATOL)
    golden.close(dit(recorded["x"], recorded["t_float"], recorded["action"]), recorded["out_t_float"], FORWARD_ATOL)


def test_published_architecture_has_the_published_parameters() -> None:
    config = DiT.Config(channels=16, patch_size=2, dim=1024, layers=16, heads=16, action_dim=10)
    dit = DiT(config, generator=None)
    assert len(dit.state_dict()) == 300
    assert sum(p.numel() for p in dit.parameters()) == 607_928_384


ROUNDING = {
    "standard.f32": 2e-6,
    "pixel.f32": 2e-6,
    "standard.f16": 0.02,
    "standard.bf16": 0.02,
    "pixel.f16": 0.16,
    "pixel.bf16": 1.4,
}
"""How far the original's tables, built in the dtype of the queries, lie from ours, which are precise."""


@pytest.mark.parametrize("key", [k for k in golden.tensors("rope") if k.startswith("table.")])
def test_rope_tables(key: str) -> None:
    _, size, kind, head_dim, dtype = key.split(".")
    width = int(head_dim[2:])
    expected = golden.tensors("rope")[key].flatten(0, -2)
    if "x" in size:
        rows, columns = map(int, size.split("x"))
        table, half = spatial_table(rows, columns, width, kind), width // 4
        parts = table.split(half, dim=-1)
    else:
        parts = (temporal_table(torch.arange(int(size)), width),)
    ours = torch.cat([part for p in parts for part in (p.real, p.imag)], dim=-1)
    golden.close(ours, expected, atol=ROUNDING[f"{kind}.{dtype}"])


@pytest.mark.parametrize("key", [k for k in golden.tensors("rope") if k.startswith("rot.") and k.endswith(".q")])
def test_rotated_queries_and_keys(key: str) -> None:
    recorded = golden.tensors("rope")
    _, size, kind, _ = key.split(".")
    for name in (key, key[:-1] + "k"):
        x = recorded[name]
        if "x" in size:
            rows, columns = map(int, size.split("x"))
            table = spatial_table(rows, columns, x.shape[-1], kind).reshape(rows, columns, -1)
        else:
            table = temporal_table(torch.arange(int(size)), x.shape[-1])
        golden.close(rotate(x, table), recorded[f"{name}_rot"], atol=5e-6)


def test_rotary_angles_stay_precise_in_long_rollouts() -> None:
    """Relative to float64: an angle of 10,000 radians in float32 would be off by up to 5e-4."""
    positions = torch.tensor([10_000, 1_000_003])
    angles = positions.double()[:, None] * (10000.0 ** (-torch.arange(16) / 16)).double()
    table = temporal_table(positions, 32)
    golden.close(torch.cat([table.real, table.imag]).double(), torch.cat([angles.cos(), angles.sin()]), 1e-6)


@torch.no_grad()
def test_rounded_weights_follow_the_parameters() -> None:
    recorded, used, fresh = golden.tensors(FORWARDS[0]), golden.network(FORWARDS[0]), golden.network(FORWARDS[0])
    outputs = []
    for dit in (used, fresh):
        dit.set_compute_dtype(torch.bfloat16)
        if dit is used:
            outputs.append(dit(recorded["x"], recorded["t"], recorded["action"]))
        dit.blocks[0].s_block.ffwd[0].weight.mul_(2)
        outputs.append(dit(recorded["x"], recorded["t"], recorded["action"]))
    before, after, expected = outputs
    assert not torch.equal(before, after)
    assert torch.equal(after, expected)


def test_a_pass_in_inference_mode_does_not_spoil_training() -> None:
    recorded, dit = golden.tensors("forward_c4_standard"), golden.network("forward_c4_standard")
    inputs = recorded["x"], recorded["t"], recorded["action"]
    with torch.inference_mode():
        dit(*inputs)
    dit(*inputs).square().mean().backward()
    assert all(p.grad is not None for p in dit.parameters())


@torch.no_grad()
def test_autocast_passes_without_gradients_agree() -> None:
    """What `gymnast fit` with precision bf16-mixed validates with."""
    recorded, dit = golden.tensors(FORWARDS[0]), golden.network(FORWARDS[0])
    with torch.autocast("cpu", torch.bfloat16):
        out = dit(recorded["x"], recorded["t"], recorded["action"])
    assert (out.float() - recorded["out"]).abs().mean() < 0.02 * recorded["out"].abs().mean()
