"""LoRA (arXiv 2106.09685) in the file format of peft: read, merge, write.

A factor pair belongs to a linear module W: the model computes with W + scaling · B·A. Training with LoRA is peft's;
this file only turns such weights into plain ones, so that what is saved needs no peft to be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError
from gymnast_core.reading import JsonObject
from gymnast_core.training.rounding import is_coarse, rounded, thresholds
from gymnast_openvla_oft.weights import read_json, read_safetensors, write_json, write_safetensors

ADAPTER_FOLDER = "lora_adapter"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.(?:\w+\.)?weight")
BASE_LAYER = ".base_layer."
UNSUPPORTED = ("use_dora", "modules_to_save", "alpha_pattern", "lora_bias", "fan_in_fan_out")


@dataclass(frozen=True)
class Factors:
    """The update of one linear module."""

    a_RI: Tensor
    b_OR: Tensor
    scaling: float

    def delta(self) -> Tensor:
        """float32 (outputs, inputs)."""
        return self.scaling * (self.b_OR.float() @ self.a_RI.float())


Adapter = Mapping[str, Factors]
"""Factors by the name of their module."""


def adapter_directory(directory: Path) -> Path | None:
    """Where a checkpoint directory keeps an adapter: in `lora_adapter/`, or beside `adapter_config.json`."""
    places = (directory / ADAPTER_FOLDER, directory)
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


def read_adapter(directory: Path) -> dict[str, Factors]:
    """An adapter as peft saves it. Raises `CheckpointError` for variants that are not W + scaling · B·A."""
    config = read_json(directory / ADAPTER_CONFIG)
    check_variant(str(directory), config)
    weights = read_safetensors(directory / ADAPTER_WEIGHTS)
    named = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in weights.items()}
    stated = JsonObject(config, str(directory / ADAPTER_CONFIG), CheckpointError)
    stabilised = stated.flag("use_rslora", default=False)
    plain, adapter = split_factors(named, alpha_of(config, stated.place), rank_stabilised=stabilised)
    if plain:
        raise CheckpointError(f"{directory / ADAPTER_WEIGHTS} holds {next(iter(plain))}, which is no LoRA factor.")
    rank = stated.integer("r", Range(least=1), default=None)
    odd = [name for name, factors in adapter.items() if len(factors.a_RI) != rank]
    if rank is not None and odd and not config.get("rank_pattern"):
        stated.refuse("r", f"is {rank}, but the factors of {odd[0]} have rank {len(adapter[odd[0]].a_RI)}")
    return adapter


def alpha_of(config: Mapping[str, Any], where: str = ADAPTER_CONFIG) -> float:
    """peft's `lora_alpha`; 8 where the file leaves it out. Raises `CheckpointError` for what is no such number."""
    return JsonObject(dict(config), where, CheckpointError).number("lora_alpha", Range(above=0, most=1e4), default=8.0)


def check_variant(where: str, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless peft's config describes plain LoRA."""
    kind = getattr(config.get("peft_type"), "value", config.get("peft_type"))
    if kind != "LORA":
        raise CheckpointError(f"The adapter in {where} is of type {kind}; only LORA can be merged.")
    odd = [name for name in UNSUPPORTED if config.get(name)]
    if odd or config.get("bias", "none") != "none":
        raise CheckpointError(
            f"The adapter in {where} uses {', '.join(odd) or 'bias'}, which cannot be merged here. Merge it with "
            "peft (merge_and_unload) and load the result."
        )


def split_factors(
    weights: Mapping[str, Tensor], alpha: float | None = None, *, rank_stabilised: bool = False
) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """Weights of a model under peft, apart: plain names, and the factors by module.

    Without `alpha`, OpenVLA-OFT's rule holds: alpha = min(rank, 16).
    """
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        found = FACTOR.fullmatch(name)
        if found:
            pair = pairs.setdefault(found["module"], {})
            if found["factor"] in pair:
                raise CheckpointError(
                    f"{found['module']} has more than one adapter. Merge all but one with peft first."
                )
            pair[found["factor"]] = tensor
        elif "lora_" in name:
            raise CheckpointError(f"{name} is no factor of a linear module; such adapters cannot be merged here.")
        else:
            plain[name.replace(BASE_LAYER, ".")] = tensor
    adapter = {}
    for module, pair in pairs.items():
        if set(pair) != {"A", "B"} or pair["A"].dim() != 2 or len(pair["A"]) != pair["B"].shape[1]:
            raise CheckpointError(f"The LoRA factors of {module} do not fit together.")
        rank = len(pair["A"])
        scale = min(rank, 16) if alpha is None else alpha
        adapter[module] = Factors(pair["A"], pair["B"], scale / (math.sqrt(rank) if rank_stabilised else rank))
    return plain, adapter


def merge(weights: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """Weights with an adapter added, each in its own dtype. Raises `CheckpointError` where a module does not fit."""
    merged = dict(weights)
    for module, factors in adapter.items():
        name = f"{module}.weight"
        if name not in merged:
            raise CheckpointError(f"The adapter changes {module}, which the base model does not have.")
        base, delta = merged[name], factors.delta()
        if base.shape != delta.shape:
            raise CheckpointError(
                f"The adapter's update of {module} is {tuple(delta.shape)}, the base model's weight "
                f"{tuple(base.shape)}. Is it the model that the adapter was trained on?"
            )
        merged[name] = _added(base, delta.to(base.device))
    return merged


def _added(base: Tensor, delta: Tensor) -> Tensor:
    """The sum in the dtype of `base`. To the nearest, an update that is young would be lost in bfloat16."""
    total = base.float() + delta
    if not is_coarse(base.dtype):
        return total.to(base.dtype)
    return rounded(total, base.dtype, thresholds(total.numel(), total.device).view_as(total))


def write_adapter(directory: Path, adapter: Adapter, config: Mapping[str, Any]) -> None:
    """Write an adapter that peft loads; `config` is its `LoraConfig.to_dict()`."""
    directory.mkdir(parents=True, exist_ok=True)
    words = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    write_json(directory / ADAPTER_CONFIG, {**words, "inference_mode": True})
    tensors = {}
    for module, factors in adapter.items():
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = factors.a_RI
        tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = factors.b_OR
    write_safetensors(directory / ADAPTER_WEIGHTS, tensors)


def zero_factors(weights: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Linear weights under the names that peft gives them, with factors that change nothing."""
    named: dict[str, Tensor] = {}
    linear = {name.removesuffix(".weight") for name, x in weights.items() if name.endswith(".weight") and x.dim() == 2}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module not in linear:
            named[name] = tensor
            continue
        named[f"{module}{BASE_LAYER}{leaf}"] = tensor
        if leaf == "weight":
            outputs, inputs = tensor.shape
            named[f"{module}.lora_A.default.weight"] = torch.zeros(rank, inputs, dtype=tensor.dtype)
            named[f"{module}.lora_B.default.weight"] = torch.zeros(outputs, rank, dtype=tensor.dtype)
    return named
