"""What a WorldGym model takes of its device's memory and time, from its config alone (no weights are read)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from gymnast_worldgym import published
from gymnast_worldgym.checkpoint import describe
from gymnast_worldgym.facts import settle
from gymnast_worldgym.model import DiT

VAE_PARAMETERS = 83_653_863
"""Of Stable Diffusion's AutoencoderKL, whose sizes all published checkpoints use."""
VAE_PIXEL_BYTES = 2861
"""Working memory of the autoencoder a pixel: 1.5 GB for 8 frames of 256 x 256."""


def memory_plan(config: Any, episodes: int) -> dict[str, int]:
    """Bytes by purpose, with `episodes` imagined at once; `config` is a `WorldGym.Config`."""
    saved = None if config.checkpoint is None else describe(config.checkpoint)
    settings = settle(config, saved)
    architecture, sampling, autoencoder = settings.architecture, settings.sampling, settings.autoencoder
    with torch.device("meta"):
        network = DiT(architecture.network(), None)
    count = sum(p.numel() for p in network.parameters())
    size = 4 if published.compute_dtype(config.compute_dtype, config.preset) == "float32" else 2
    # The blocks' matrices are kept in the compute dtype besides.
    found = {"world model": count * (4 + (size if size < 4 else 0))}
    height, width = architecture.image_size
    factor = 1
    if architecture.codec == "autoencoder-kl":
        factor = 8
        found["autoencoder"] = 4 * VAE_PARAMETERS
        found["autoencoder at work"] = autoencoder.vae_batch * height * width * VAE_PIXEL_BYTES
    side = factor * architecture.patch_size
    tokens = architecture.views * (height // side) * (width // side)
    slots = architecture.window * episodes * tokens * architecture.dim
    passes = 1 if sampling.guidance == 1.0 else 2
    found["world model's cache"] = passes * (2 * architecture.layers + 2) * slots * size
    # The widest intermediate result of a pass over a chunk of frames: the feed-forward's 4·dim, in and out.
    found["world model at work"] = passes * 8 * slots * size
    return found


def work_plan(config: Any, frames: int, chunk: int, is_gpu: bool, judged: Collection[int] | None = None) -> Any:
    """What is computed while a number of episodes are imagined: a function of that number, see `work.work_plan`."""
    from gymnast_worldgym.work import work_plan as traced  # no run needs it

    return traced(config, frames, chunk, is_gpu, judged)
