"""LoRA (arXiv 2106.09685) on the network, through peft: every linear layer that would learn gets two factors.

Left out are the token head, whose weight is read in part, and parts that a checkpoint keeps in files of their own
(projector of proprioception, regression head, FiLM): those learn in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.training.rounding import RoundedSum, is_coarse, thresholds
from gymnast_openvla_oft.adapters import Adapter, Factors
from gymnast_openvla_oft.components import optional_part
from gymnast_openvla_oft.model import OFTModel

HEAD = "language_model.lm_head"


def default_alpha(rank: int) -> float:
    """OpenVLA-OFT's alpha."""
    return float(min(rank, 16))


def adapted_modules(model: OFTModel) -> list[str]:
    """Names of the linear layers that LoRA trains."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and name != HEAD
        and optional_part(f"{name}.weight") is None
    ]


def add_lora(
    model: OFTModel, rank: int, alpha: float, *, seed: int, adapter: Adapter | None = None, base: str | None = None
) -> None:
    """Put float32 factors beside the linear layers, frozen from now on; `adapter` holds the factors to go on with.

    The others start as in the paper: A uniform in ±1/sqrt(inputs), drawn from `seed`, and B zero. `base` is the model
    that the saved adapter names. Raises `ConfigError` when `adapter` was trained with another rank or alpha.
    """
    import peft  # seconds, which most policies need not wait for

    names = adapted_modules(model)
    if not names:
        raise ConfigError("train.lora_rank: no linear layer of the network would learn, so LoRA has nothing to adapt.")
    optional = [parameter for name, parameter in model.named_parameters() if optional_part(name) is not None]
    learning = [parameter for parameter in optional if parameter.requires_grad]
    model.requires_grad_(False)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, base_model_name_or_path=base)  # type: ignore[arg-type]
    # On the meta device first: peft would draw the factors from the global random state.
    peft.inject_adapter_in_model(config, model, low_cpu_mem_usage=True)
    for parameter in learning:
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer: Any = model.get_submodule(name)
        _start(name, layer, (adapter or {}).get(name), generator)
        layer.forward = partial(_fine_sum, layer)


def continued(adapter: Mapping[str, Factors], model: OFTModel, rank: int, alpha: float) -> dict[str, Factors]:
    """The factors of a checkpoint that go on learning; the others are to be merged.

    Raises `ConfigError` if they were trained with another rank or alpha.
    """
    wanted = set(adapted_modules(model)) if rank else set()
    kept = {name: factors for name, factors in adapter.items() if name in wanted}
    for name, factors in kept.items():
        found = len(factors.a_RI)
        if found != rank or not math.isclose(factors.scaling, alpha / rank):
            raise ConfigError(
                f"The checkpoint's adapter has rank {found} and alpha {factors.scaling * found:g} ({name}), but the "
                f"config asks for {rank} and {alpha:g}. Set train.lora_rank={found} "
                f"train.lora_alpha={factors.scaling * found:g}, or merge the adapter: leave out base=."
            )
        weight = model.get_parameter(f"{name}.weight")
        shapes = (factors.b_OR.shape[0], factors.a_RI.shape[1])
        if shapes != tuple(weight.shape):
            raise CheckpointError(
                f"The adapter's update of {name} is {shapes}, the base model's weight {tuple(weight.shape)}. "
                "Is it the model that the adapter was trained on?"
            )
    return kept


def _fine_sum(layer: Any, x: Tensor) -> Tensor:
    """The layer's output and what the factors add to it; where the output is coarse, rounded once, by thresholds.

    It is coarse if the weights are, or under autocast. peft rounds the output before it adds the factors' part, and the
    sum to the nearest: as long as the factors are young, what they add is less than half of the distance between two
    bfloat16 numbers, and nothing of it would be left.
    """
    result = layer.base_layer(x)
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    added = up(down(x.to(down.weight.dtype))) * layer.scaling["default"]
    if not is_coarse(result.dtype):
        return result + added  # type: ignore[no-any-return]
    return RoundedSum.apply(result, added, thresholds(result.shape[-1], result.device))  # type: ignore[no-any-return, no-untyped-call]


def _start(name: str, layer: Any, factors: Factors | None, generator: torch.Generator) -> None:
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    device, bound = layer.base_layer.weight.device, down.in_features**-0.5
    if device.type == "meta":
        a_RI, b_OR = down.weight, up.weight
    else:
        # Drawn for continued layers, too, so that what the others get does not depend on them.
        drawn = torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator)
        a_RI = drawn if factors is None else factors.a_RI
        b_OR = torch.zeros(up.weight.shape) if factors is None else factors.b_OR
    for linear, value in ((down, a_RI), (up, b_OR)):
        linear.weight = nn.Parameter(value.detach().to(device, torch.float32, copy=True))
