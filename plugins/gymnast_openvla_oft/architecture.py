"""Sizes: the config of a model from scratch, and how a checkpoint's `config.json` describes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from torch import Tensor

from gymnast_core.config.ranges import AnyNumber, Range, Seed
from gymnast_core.errors import CheckpointError, ConfigError, unknown_name
from gymnast_core.reading import JsonObject
from gymnast_openvla_oft.components import optional_part
from gymnast_openvla_oft.llama import llama_config
from gymnast_openvla_oft.model import ModelShape
from gymnast_openvla_oft.vision import TowerShape
from gymnast_openvla_oft.vocabulary import ACTION_IDS_KEY, PADDING_ROWS, PUBLISHED_BINS, plain_vocabulary, read_bins

DINO_ID = "vit_large_patch14_reg4_dinov2.lvd142m"
SIGLIP_ID = "vit_so400m_patch14_siglip_224"
TIMM_MODELS: dict[str, dict[str, Any]] = {
    DINO_ID: {
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
        "patch_size": 14,
        "mlp_ratio": 4.0,
        "reg_tokens": 4,
    },
    SIGLIP_ID: {"embed_dim": 1152, "depth": 27, "num_heads": 16, "patch_size": 14, "mlp_ratio": 3.7362},
}
"""The towers of published checkpoints, in timm's words."""
TOWER_OVERRIDES = "tiny_timm_kwargs"
"""Key of `config.json` under which a smaller model keeps what differs from `TIMM_MODELS`, a dict a tower."""
TOWER_SIZES = {
    "embed_dim": Range(least=1, most=2**14),
    "depth": Range(least=2, most=100),
    "num_heads": Range(least=1, most=256),
    "patch_size": Range(least=1, most=512),
    "reg_tokens": Range(least=0, most=64),
}
PROJECTOR = "no-align+fused-gelu-mlp"
IMAGE_SIDES = Range(least=1, most=4096)


@dataclass(frozen=True)
class Tower:
    """Size of one vision tower of a model from scratch."""

    patch_size: Annotated[int, Range(least=1, most=512)] = 8
    """Pixels a side; both towers need the same, since their features are joined patch by patch."""
    width: Annotated[int, Range(least=1, most=16_384)] = 64
    """Features of a patch."""
    depth: Annotated[int, Range(least=2, most=100)] = 3
    """Blocks; the last one is present, as in published checkpoints, but unused."""
    heads: Annotated[int, Range(least=1, most=256)] = 4
    """Attention heads; the width is a multiple of them."""
    mlp_ratio: Annotated[float, Range(above=0, most=64)] = 4.0
    """Width of the MLP, as a multiple of the width."""


@dataclass(frozen=True)
class Architecture:
    """A model from scratch: OpenVLA-OFT's architecture at any size."""

    image_size: Annotated[int, Range(least=1, most=4096)] = 32
    """Pixels a side."""
    dino: Tower = field(default_factory=Tower)
    """The first tower (class token, four registers, LayerScale)."""
    siglip: Tower = field(default_factory=Tower)
    """The second tower (patches only)."""
    llm_width: Annotated[int, Range(least=2, most=65_536)] = 128
    """Features of a token of the language model."""
    llm_layers: Annotated[int, Range(least=1, most=200)] = 4
    """Layers of the language model."""
    llm_heads: Annotated[int, Range(least=1, most=1024)] = 4
    """Attention heads of the language model; its width is a multiple of them."""
    llm_intermediate: Annotated[int, Range(least=1, most=262_144)] = 256
    """Width of the gated MLP."""
    n_action_bins: Annotated[int, Range(least=2, most=65_536)] = PUBLISHED_BINS
    """Action tokens: bins that each dimension of a normalised action falls into."""
    action_low: list[AnyNumber] = field(default_factory=lambda: [-1.0, -1.0])
    """Action that becomes -1, robot units, by dimension: a low quantile of demonstrations, or a limit."""
    action_high: list[AnyNumber] = field(default_factory=lambda: [1.0, 1.0])
    """Action that becomes 1, robot units, one a dimension."""
    proprio_low: list[AnyNumber] = field(default_factory=list)
    """Proprioceptive reading that becomes -1, robot units, by dimension; empty where the robot has no such sense.
    The policy reads it with `proprio: true` alone."""
    proprio_high: list[AnyNumber] = field(default_factory=list)
    """Proprioceptive reading that becomes 1."""
    tokenizer_corpus: list[str] = field(default_factory=list)
    """Instructions whose words become tokens; anything else is spelt in bytes."""
    seed: Seed = 0
    """Of the initial weights."""


def check_architecture(architecture: Architecture) -> None:
    """Raise `ConfigError` for sizes that do not fit together."""
    dino, siglip = architecture.dino, architecture.siglip
    widths = {
        "dino": (dino.width, dino.heads),
        "siglip": (siglip.width, siglip.heads),
        "llm": (architecture.llm_width, architecture.llm_heads),
    }
    for name, (width, heads) in widths.items():
        if width % heads:
            raise ConfigError(f"architecture: the width {width} of {name} is not a multiple of its {heads} heads.")
    if dino.patch_size != siglip.patch_size:
        raise ConfigError(
            f"architecture: both towers need the same patch_size; they have {dino.patch_size} and {siglip.patch_size}."
        )
    if architecture.image_size % dino.patch_size:
        raise ConfigError(
            f"architecture: patch_size {dino.patch_size} does not divide image_size {architecture.image_size}."
        )
    if min(dino.depth, siglip.depth) < 2:
        raise ConfigError("architecture: a tower needs a depth of at least 2, because its last block is unused.")
    if not architecture.action_low or len(architecture.action_low) != len(architecture.action_high):
        raise ConfigError("architecture: action_low and action_high need one number an action dimension each.")
    if len(architecture.proprio_low) != len(architecture.proprio_high):
        raise ConfigError("architecture: proprio_low and proprio_high need one number a dimension each.")
    for what in ("action", "proprio"):
        bounds = zip(getattr(architecture, f"{what}_low"), getattr(architecture, f"{what}_high"), strict=True)
        if any(low > high for low, high in bounds):
            raise ConfigError(f"architecture: {what}_low must nowhere exceed {what}_high.")


def checkpoint_config(architecture: Architecture, tokens: int, unnorm_key: str) -> dict[str, Any]:
    """The `config.json` of a model from scratch whose tokenizer has `tokens` tokens."""
    used = tokens + architecture.n_action_bins
    vocabulary = -(-used // PADDING_ROWS) * PADDING_ROWS
    return {
        "arch_specifier": "no-align+fused-gelu-mlp",
        "architectures": ["OpenVLAForActionPrediction"],
        "image_resize_strategy": "resize-naive",
        "image_sizes": [architecture.image_size, architecture.image_size],
        "model_type": "openvla",
        "n_action_bins": architecture.n_action_bins,
        ACTION_IDS_KEY: [vocabulary - architecture.n_action_bins, vocabulary],
        "norm_stats": {unnorm_key: _statistics(architecture)},
        "pad_to_multiple_of": PADDING_ROWS,
        "pad_token_id": vocabulary,
        "text_config": {
            "hidden_size": architecture.llm_width,
            "intermediate_size": architecture.llm_intermediate,
            "model_type": "llama",
            "num_attention_heads": architecture.llm_heads,
            "num_hidden_layers": architecture.llm_layers,
            "num_key_value_heads": architecture.llm_heads,
            "pad_token_id": vocabulary,
            "vocab_size": vocabulary + PADDING_ROWS,
        },
        "timm_model_ids": [DINO_ID, SIGLIP_ID],
        TOWER_OVERRIDES: [_timm_words(architecture.dino), _timm_words(architecture.siglip)],
        "use_fused_vision_backbone": True,
    }


def preprocessor_config(image_size: int) -> dict[str, Any]:
    """The `preprocessor_config.json` of a model from scratch, with the published means and deviations."""
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": "resize-naive",
        "input_sizes": [[3, image_size, image_size]] * 2,
        "interpolations": ["bicubic", "bicubic"],
        "means": [[0.484375, 0.455078125, 0.40625], [0.5, 0.5, 0.5]],
        "stds": [[0.228515625, 0.2236328125, 0.224609375], [0.5, 0.5, 0.5]],
        "processor_class": "PrismaticProcessor",
        "use_fused_vision_backbone": True,
    }


def model_shape(config: Mapping[str, Any], where: str = "config.json") -> ModelShape:
    """The network that a checkpoint's `config.json` describes; `where` names that file in errors.

    The number of action tokens' last id is that of `config.json` alone: see `vocabulary.find_vocabulary`. Raises
    `CheckpointError` for what cannot be right, and for towers unknown here.
    """
    stated = JsonObject(dict(config), where, CheckpointError)
    dino, siglip = _towers(stated)
    llama = llama_config(stated.object("text_config"))
    vocabulary = plain_vocabulary(stated)
    return ModelShape(dino, siglip, llama, read_bins(stated), padding_rows=llama.vocab_size - vocabulary)


def with_parts(
    shape: ModelShape,
    weights: Mapping[str, Tensor],
    *,
    regression_dim: int = 0,
    proprio_dim: int = 0,
    film: bool = False,
) -> ModelShape:
    """The network with the optional parts that `weights` hold, and those asked for (sizes > 0, or True) besides."""
    regression_dim = _side(weights, "action_head.model.fc2.weight", 0) or regression_dim
    proprio_dim = _side(weights, "proprio_projector.fc1.weight", 1) or proprio_dim
    if film or any(optional_part(name) == "film" for name in weights):
        width = shape.llama.hidden_size
        dino, siglip = replace(shape.dino, film_width=width), replace(shape.siglip, film_width=width)
        shape = replace(shape, dino=dino, siglip=siglip)
    return replace(shape, regression_dim=regression_dim, proprio_dim=proprio_dim)


def _side(weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of a matrix on one axis; 0 where there is no such matrix."""
    if name not in weights:
        return 0
    if weights[name].dim() != 2 or not weights[name].numel():
        raise CheckpointError(f"{name} is {tuple(weights[name].shape)}; it must be a matrix.")
    return weights[name].shape[axis]


def _towers(stated: JsonObject) -> tuple[TowerShape, TowerShape]:
    """DINOv2 and SigLIP."""
    wanted = (DINO_ID, SIGLIP_ID)
    names = stated.texts("timm_model_ids")
    for name in names:
        if name not in TIMM_MODELS:
            stated.refuse("timm_model_ids", f"holds another: {unknown_name('vision tower', name, TIMM_MODELS)}"[:-1])
    if tuple(names) != wanted:
        stated.refuse("timm_model_ids", f"is {names}; OpenVLA-OFT has two vision towers, {' and '.join(wanted)}")
    if not stated.flag("use_fused_vision_backbone", default=True):
        stated.refuse("use_fused_vision_backbone", "is false, but two vision towers are named")
    stated.text("arch_specifier", (PROJECTOR,), default=PROJECTOR)
    if stated.values.get("timm_override_act_layers") not in (None, [], [None], [None, None]):
        stated.refuse("timm_override_act_layers", "names activations; the towers' own are the only ones known here")
    height, width = stated.integers("image_sizes", IMAGE_SIDES, length=2)
    if height != width:
        stated.refuse("image_sizes", f"is {height} x {width}; the towers see squares")
    overrides = stated.objects(TOWER_OVERRIDES, default=None)
    if overrides is None:
        overrides = [JsonObject({}, stated.place, CheckpointError)] * 2
    if len(overrides) != 2:
        stated.refuse(TOWER_OVERRIDES, f"has {len(overrides)} entries; it needs one a vision tower")
    dino, siglip = (_tower(name, height, own) for name, own in zip(names, overrides, strict=True))
    if dino.patch_size != siglip.patch_size:
        stated.refuse(TOWER_OVERRIDES, f"has towers of different patch_size, {dino.patch_size} and {siglip.patch_size}")
    return dino, siglip


def _tower(name: str, image_size: int, own: JsonObject) -> TowerShape:
    usual = TIMM_MODELS[name]
    for key in own.values:
        if key not in (*TOWER_SIZES, "mlp_ratio"):
            own.refuse(key, f"is not known; known are {', '.join(TOWER_SIZES)} and mlp_ratio")
    sizes = {key: own.integer(key, range_, default=usual.get(key, 0)) for key, range_ in TOWER_SIZES.items()}
    ratio = own.number("mlp_ratio", Range(above=0, most=64), default=usual["mlp_ratio"])
    if sizes["embed_dim"] % sizes["num_heads"]:
        own.refuse("num_heads", f"is {sizes['num_heads']}, which does not divide embed_dim {sizes['embed_dim']}")
    if bool(sizes["reg_tokens"]) != bool(usual.get("reg_tokens")):
        own.refuse("reg_tokens", f"is {sizes['reg_tokens']}; DINOv2 has register tokens, and SigLIP none")
    if image_size % sizes["patch_size"]:
        own.refuse("patch_size", f"is {sizes['patch_size']}, which does not divide image_sizes {image_size}")
    return TowerShape(
        image_size=image_size,
        patch_size=sizes["patch_size"],
        width=sizes["embed_dim"],
        depth=sizes["depth"],
        heads=sizes["num_heads"],
        mlp_width=int(sizes["embed_dim"] * ratio),
        registers=sizes["reg_tokens"],
        pooling_head=name == SIGLIP_ID,
    )


def _timm_words(tower: Tower) -> dict[str, Any]:
    return {
        "embed_dim": tower.width,
        "depth": tower.depth,
        "num_heads": tower.heads,
        "patch_size": tower.patch_size,
        "mlp_ratio": tower.mlp_ratio,
    }


def _statistics(architecture: Architecture) -> dict[str, Any]:
    statistics = {"action": _bounds(architecture.action_low, architecture.action_high)}
    if architecture.proprio_low:
        statistics["proprio"] = _bounds(architecture.proprio_low, architecture.proprio_high)
    return statistics


def _bounds(low: list[float], high: list[float]) -> dict[str, Any]:
    return {"min": list(low), "max": list(high), "q01": list(low), "q99": list(high), "mask": [True] * len(low)}
