"""The network computes what the original computes."""

from __future__ import annotations

import golden
import pytest
import torch

from gymnast_worldgym.model import DiT
from gymnast_worldgym.rope import rotate, spatial_table, temporal_table

FORWARDS = ["forward_c4_standard", "forward_c4_pixel", "forward_c16_standard", "forward_c16_pixel"]
FORWARD_ATOL = 6e-6
"""A layer-norm eps of 1e-5 instead of 1e-6 moves the output by 2e-5; rounding by 2e-6."""


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


@pytest.mark.parametrize("key", [k for k in golden.tensors("rope") if k.startswith("table.")])
def test_rope_tables(key: str) -> None:
    _, size, kind, head_dim, _ = key.split(".")
    width = int(head_dim[2:])
    expected = golden.tensors("rope")[key].flatten(0, -2)
    if "x" in size:
        rows, columns = map(int, size.split("x"))
        table, half = spatial_table(rows, columns, width, kind), width // 4
        parts = table.split(half, dim=-1)
    else:
        parts = (temporal_table(torch.arange(int(size)), width),)
    golden.close(torch.cat([part for p in parts for part in (p.real, p.imag)], dim=-1), expected, atol=2e-6)


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
