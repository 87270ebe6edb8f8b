"""LoRA in bfloat16: what young factors add is neither lost in a pass nor in a merged checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from oft_cases import small_config
from safetensors.torch import load_file
from torch import Tensor, nn

from gymnast_core.types import Observation
from gymnast_openvla_oft.adapters import Factors, merge
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning


def made(dtype: str = "bfloat16") -> OpenVLAOFT:
    return OpenVLAOFT(replace(small_config(), dtype=dtype, train=Tuning(lora_rank=2, lora_alpha=2.0))).eval()


def layers(of: OpenVLAOFT) -> list[nn.Module]:
    return [module for module in of.modules() if isinstance(module, peft.tuners.lora.Linear)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_young_update_is_seen_in_the_output_of_every_layer(dtype: str) -> None:
    """Of what the factors add, which is far below the distances between bfloat16's numbers, the mean arrives: beside
    bfloat16 weights, and beside float32 ones that autocast computes with."""
    generator = torch.Generator().manual_seed(0)
    mixed = dtype == "float32"
    for layer in layers(made(dtype)):
        base, down, up = layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]  # type: ignore[index, union-attr]
        x = torch.randn(4000, base.in_features, generator=generator).bfloat16()  # type: ignore[union-attr, arg-type]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            plain = base(x)  # type: ignore[operator]
            assert torch.equal(layer(x), plain)  # new factors add nothing, exactly
        with torch.no_grad():
            up.weight.fill_(1e-4)  # type: ignore[union-attr]
            added = up(down(x.float()))
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                found = layer(x)
        assert found.dtype is torch.bfloat16
        moved = (found.double() - plain.double()).flatten()
        # How much of what was added arrives: 1, not what rounding to the nearest leaves of it.
        share = float(moved @ added.double().flatten() / added.double().square().sum())
        assert 0.7 < share < 1.3, share


def test_without_autocast_float32_layers_compute_what_peft_computes() -> None:
    for layer in layers(made("float32")):
        torch.nn.init.normal_(layer.lora_B["default"].weight, generator=torch.Generator().manual_seed(3))  # type: ignore[index, union-attr, arg-type]
        x = torch.randn(5, layer.base_layer.in_features, generator=torch.Generator().manual_seed(4))  # type: ignore[union-attr, arg-type]
        assert torch.equal(layer(x), type(layer).forward(layer, x))


def test_the_loss_under_autocast_sees_a_young_adapter() -> None:
    """A step of the adapter gains there what it gains in float32: ratio, KL and what stops by them see it."""
    policy, count, generator = made("float32"), 48, torch.Generator().manual_seed(5)
    size = small_config().architecture.image_size  # type: ignore[union-attr]
    images = torch.randint(0, 256, (count, 1, 1, size, size, 3), dtype=torch.uint8, generator=generator)
    observation = Observation(images, ("push the red block to the left", "open it") * (count // 2))
    chunk = policy.act(observation, temperature=1.6, generator=generator)
    advantages = torch.randn(chunk.log_prob_BLD.shape, generator=generator)

    def gain(mixed: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found = policy.evaluate(observation, chunk, temperature=1.6).log_prob_BLD
        return (advantages * found).double().mean()

    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    direction = torch.autograd.grad(gain(mixed=False), trained, allow_unused=True)
    with torch.no_grad():
        before = {mixed: gain(mixed) for mixed in (False, True)}
        for parameter, gradient in zip(trained, direction, strict=True):
            parameter.add_(0.0 if gradient is None else 5e-5 * gradient.sign())
        exact, mixed = (float(gain(mixed) - before[mixed]) for mixed in (False, True))
    assert 0.5 < mixed / exact < 1.5


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
