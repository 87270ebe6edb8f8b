"""LoRA beside bfloat16 weights: what young factors add is neither lost in a pass nor in a merged checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import peft
import torch
from oft_cases import small_config
from safetensors.torch import load_file
from torch import nn

from gymnast_openvla_oft.adapters import Factors, merge
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning


def made() -> OpenVLAOFT:
    return OpenVLAOFT(replace(small_config(), dtype="bfloat16", train=Tuning(lora_rank=2, lora_alpha=2.0))).eval()


def layers(of: OpenVLAOFT) -> list[nn.Module]:
    return [module for module in of.modules() if isinstance(module, peft.tuners.lora.Linear)]


def test_a_young_update_is_seen_in_the_output_of_every_layer() -> None:
    """Of what the factors add, which is far below the distances between bfloat16's numbers, the mean arrives."""
    generator = torch.Generator().manual_seed(0)
    for layer in layers(made()):
        base, down, up = layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]  # type: ignore[index, union-attr]
        x = torch.randn(4000, base.in_features, generator=generator).bfloat16()  # type: ignore[union-attr, arg-type]
        plain = base(x)  # type: ignore[operator]
        assert torch.equal(layer(x), plain)  # new factors add nothing, exactly
        with torch.no_grad():
            up.weight.fill_(1e-4)  # type: ignore[union-attr]
            added = up(down(x.float()))
            found = layer(x)
        assert found.dtype is torch.bfloat16
        moved = (found.double() - plain.double()).flatten()
        # How much of what was added arrives: 1, not what rounding to the nearest leaves of it.
        share = float(moved @ added.double().flatten() / added.double().square().sum())
        assert 0.7 < share < 1.3, share


def test_a_young_update_is_in_the_merged_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    base = (0.1 * torch.randn(64, 80, generator=generator)).bfloat16()
    factors = Factors(torch.randn(2, 80, generator=generator), 1e-5 * torch.randn(64, 2, generator=generator), 1.0)
    merged = merge({"w.weight": base}, {"w": factors})["w.weight"]
    delta = factors.delta().double()
    assert merged.dtype is torch.bfloat16
    moved = merged.double() - base.double()
    assert 0.6 < float((moved * delta).sum() / delta.square().sum()) < 1.4
    nearest = (base.float() + factors.delta()).bfloat16().double() - base.double()
    assert float((nearest * delta).sum() / delta.square().sum()) < 0.5


def test_factors_are_saved_as_they_are(tmp_path: Path) -> None:
    ours = made()
    with torch.no_grad():
        for layer in layers(ours):
            layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(2)).mul_(1e-6)  # type: ignore[index, union-attr, operator]
    ours.save(tmp_path)
    saved = load_file(tmp_path / "lora_adapter/adapter_model.safetensors")
    own = {name: x for name, x in ours.state_dict().items() if ".lora_" in name}
    assert len(saved) == len(own) and {x.dtype for x in saved.values()} == {torch.float32}
    assert sorted(float(x.double().sum()) for x in saved.values()) == sorted(
        float(x.double().sum()) for x in own.values()
    )
