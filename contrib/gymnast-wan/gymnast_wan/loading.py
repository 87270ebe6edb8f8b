"""From a config to a network with weights and its autoencoder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from gymnast_core.errors import CheckpointError, ConfigError
from torch import Tensor, nn

from gymnast_wan import checkpoint as checkpoints
from gymnast_wan.checkpoint import Checkpoint
from gymnast_wan.codec import Codec, random_vae
from gymnast_wan.facts import FRAMES_A_LATENT, RANDOM, Architecture, Settings, settle
from gymnast_wan.hub import load_vae
from gymnast_wan.network import CONDITIONER, Network, cast, give_weights, make_transformer

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Built:
    """The parts of a world."""

    settings: Settings
    network: Network
    codec: Codec
    own_vae: bool
    """Whether the autoencoder is to be saved beside the weights: it lies nowhere else."""


def build(config: Any, device: torch.device) -> Built:
    """What a `Wan.Config` describes. Raises `ConfigError` and `CheckpointError`."""
    dtype = DTYPES[config.dtype]
    compute = DTYPES[config.compute_dtype or config.dtype]
    if dtype == torch.bfloat16 and compute == torch.float32:
        raise ConfigError("Weights in bfloat16 are computed with in bfloat16: set dtype=float32 for float32 products.")
    saved = None if config.checkpoint is None else checkpoints.read(config.checkpoint, config.revision)
    source = f"preset {config.preset}" if config.preset and saved is None else "random weights"
    sizes = {} if saved is None else checkpoints.sizes(saved.weights, saved.source)
    has_vae = saved is not None and saved.vae is not None
    settings = settle(config, saved.source if saved else source, sizes, saved.stored if saved else {}, has_vae)
    codec, own = _build_codec(config, settings, saved, dtype)
    codec.vae.to(device)
    transformer = _build_transformer(settings, saved, config.seed)
    if config.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return Built(settings, Network(cast(transformer, dtype).to(device), dtype, compute).eval(), codec, own)


def _build_codec(config: Any, settings: Settings, saved: Checkpoint | None, dtype: torch.dtype) -> tuple[Codec, bool]:
    channels, place = settings.architecture.latent_channels, settings.vae
    if place.vae == RANDOM:
        vae = random_vae(channels, config.seed)
        vae = cast(vae, dtype)
    elif place.vae is None:
        assert saved is not None and saved.vae is not None
        vae = load_vae(str(saved.vae), None, dtype)
    else:
        vae = load_vae(place.vae, place.vae_revision, dtype)
    codec = Codec(vae, config.vae_batch)
    if codec.channels != channels or int(vae.config.scale_factor_temporal) != FRAMES_A_LATENT:
        raise ConfigError(
            f"The autoencoder has latents of {codec.channels} channels, {vae.config.scale_factor_temporal} frames "
            f"each, the transformer was made for {channels} and {FRAMES_A_LATENT}. Set world_model.args.vae to its own."
        )
    if saved is not None and saved.latents is not None and saved.latents != codec.digest():
        raise CheckpointError(
            f"{place.vae or saved.vae} is another autoencoder than the one on whose latents {saved.source} was "
            "trained. Set world_model.args.vae to that one."
        )
    return codec, place.vae in (None, RANDOM)


def _build_transformer(settings: Settings, saved: Checkpoint | None, seed: int) -> Any:
    architecture, lead_in = settings.architecture, settings.conduct.lead_in
    if saved is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_transformer(architecture, lead_in)
    if saved.is_base:
        saved = _with_actions(saved, architecture, lead_in, seed)
    with torch.device("meta"):
        transformer: Any = make_transformer(architecture, lead_in)
    give_weights(transformer, checkpoints.fitted(saved, transformer.state_dict()))
    return transformer


def _with_actions(base: Checkpoint, architecture: Architecture, lead_in: str, seed: int) -> Checkpoint:
    """Wan's own weights and new ones for actions: tokens at random, no modulation yet."""
    with torch.device("meta"):
        empty: Any = getattr(make_transformer(architecture, lead_in), CONDITIONER)
    added: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in ("tokens", "frames"):
            part = getattr(empty, name)
            if part is None:
                continue
            fresh = nn.Sequential(*(_fresh(layer) for layer in part))
            if name == "frames":
                last = fresh[-1]
                assert isinstance(last, nn.Linear)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            added |= {f"{CONDITIONER}.{name}.{key}": value.detach() for key, value in fresh.state_dict().items()}
    log.warning("%s knows no actions: what embeds them is new, to be trained by `gymnast fit`.", base.source)
    return replace(base, weights={**base.weights, **added})


def _fresh(layer: nn.Module) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else layer
