"""The language model that `config.json` describes (`text_config`): a Llama 2, everything of it checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import LlamaConfig

from gymnast_core.config.ranges import Range
from gymnast_core.reading import JsonObject
from gymnast_openvla_oft.vocabulary import MAX_ROWS

WIDTHS = Range(least=1, most=2**16)
SIZES = {
    "hidden_size": WIDTHS,
    "intermediate_size": Range(least=1, most=2**18),
    "num_hidden_layers": Range(least=1, most=200),
    "num_attention_heads": Range(least=1, most=1024),
    "num_key_value_heads": Range(least=1, most=1024),
    "head_dim": Range(least=1, most=4096),
    "vocab_size": Range(least=1, most=MAX_ROWS),
    "max_position_embeddings": Range(least=16, most=2**20),
}
FIXED: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "attention_dropout": 0,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What OpenVLA's language model is not without, and what no tensor would show."""


def llama_config(text: JsonObject) -> LlamaConfig:
    """The language model. What is left out is as in Llama 2 7B. Raises `CheckpointError` for what cannot be right."""
    for key, wanted in FIXED.items():
        found = text.values.get(key, wanted)
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            text.refuse(key, f"is {found!r}; the language models of OpenVLA have {wanted!r}")
    sizes: dict[str, int | None] = {key: text.integer(key, range_, default=None) for key, range_ in SIZES.items()}
    for key, size in sizes.items():
        if size is None and key in text and key not in ("num_key_value_heads", "head_dim"):
            text.integer(key, SIZES[key])
    if ("num_attention_heads" in text) != ("num_key_value_heads" in text):
        one, other = "num_attention_heads", "num_key_value_heads"
        here, lacking = (one, other) if one in text else (other, one)
        text.refuse(here, f"is stated without {lacking}: no tensor shows it, so both are needed")
    _check_widths(text, sizes)
    given: dict[str, Any] = {key: size for key, size in sizes.items() if size is not None}
    return LlamaConfig(
        **given,
        rms_norm_eps=text.number("rms_norm_eps", Range(above=0, most=1e-2), default=1e-6),
        rope_parameters={"rope_type": "default", "rope_theta": _rope_theta(text)},
    )


def _check_widths(text: JsonObject, sizes: Mapping[str, int | None]) -> None:
    width, heads = sizes["hidden_size"] or 4096, sizes["num_attention_heads"] or 32
    if width % heads:
        text.refuse("num_attention_heads", f"is {heads}, which does not divide hidden_size {width}")
    if heads % (sizes["num_key_value_heads"] or heads):
        text.refuse("num_key_value_heads", f"is {sizes['num_key_value_heads']}, which does not divide {heads} heads")
    if sizes["head_dim"] not in (None, width // heads):
        text.refuse("head_dim", f"is {sizes['head_dim']}, but {heads} heads share a hidden_size of {width}")
    if width // heads % 2:
        text.refuse("num_attention_heads", f"is {heads}: the width of a head, {width // heads}, must be even")


def _rope_theta(text: JsonObject) -> float:
    """The base of the rotary frequencies, which newer versions of transformers write into `rope_parameters`."""
    range_ = Range(least=100, most=1e8)
    own = text.number("rope_theta", range_, default=None)
    parameters = text.object("rope_parameters", default=None)
    if parameters is None:
        return 10000.0 if own is None else own
    kind = parameters.text("rope_type", default="default")
    if kind != "default":
        parameters.refuse("rope_type", f"is {kind!r}; the language models of OpenVLA have 'default'")
    inner = parameters.number("rope_theta", range_, default=10000.0)
    if own is not None and own != inner:
        text.refuse("rope_theta", f"is {own:g}, but rope_parameters: rope_theta is {inner:g}")
    return inner
