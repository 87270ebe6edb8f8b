"""Frames to latents and back, by Wan's autoencoder: the first frame becomes one latent, every four after it another."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor


class Codec:
    """`vae` is an `AutoencoderKLWan`; its latents are normalised as diffusers' pipelines do.

    Shapes: B clips, T frames (1 + 4 · n), H W pixels, C h w latent channels and pixels, F latent frames (1 + n).
    """

    def __init__(self, vae: Any, batch: int) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.batch = batch
        self.channels = int(vae.config.z_dim)
        self.factor = int(vae.config.scale_factor_spatial)
        shape = (1, self.channels, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean).view(shape)
        self.std = torch.tensor(vae.config.latents_std).view(shape)

    @torch.no_grad()
    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames to latents float32 (B, C, F, h, w): the mode of the posterior, so nothing is drawn."""
        pixels = frames_BTHWC.permute(0, 4, 1, 2, 3).to(self.vae.device)
        with torch.autocast(pixels.device.type, enabled=False):  # in its own dtype, whatever the loss is computed in
            found = [
                self.vae.encode((part.float() / 127.5 - 1).to(self.vae.dtype)).latent_dist.mode().float()
                for part in pixels.split(self.batch)
            ]
        latents = torch.cat(found)
        return (latents - self.mean.to(latents.device)) / self.std.to(latents.device)

    @torch.no_grad()
    def decode(self, latents_BCFhw: Tensor) -> Tensor:
        """Latents to uint8 frames (B, T, H, W, 3)."""
        latents = latents_BCFhw * self.std.to(latents_BCFhw.device) + self.mean.to(latents_BCFhw.device)
        parts = latents.to(self.vae.dtype).split(self.batch)
        with torch.autocast(latents.device.type, enabled=False):
            pixels = torch.cat([self.vae.decode(part, return_dict=False)[0].float() for part in parts])
        frames = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return frames.permute(0, 2, 3, 4, 1).contiguous()

    def digest(self) -> str:
        """What tells this autoencoder's latents from another's: its sizes, normalisation and outermost weights."""
        config: Any = self.vae.config
        kept = {name: config[name] for name in ("z_dim", "base_dim", "dim_mult", "latents_mean", "latents_std")}
        found = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
        for module in (self.vae.encoder.conv_in, self.vae.quant_conv, self.vae.encoder.conv_out):
            # In the coarsest dtype that it may be loaded in, so that all of them agree.
            found.update(module.weight.detach().cpu().bfloat16().view(torch.int16).numpy().tobytes())
        return found.hexdigest()


def random_vae(channels: int, seed: int) -> Any:
    """A small autoencoder with random weights and a factor of 8 pixels, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKLWan(
            base_dim=4,
            z_dim=channels,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1 * index for index in range(channels)],
            latents_std=[1.0 + 0.1 * index for index in range(channels)],
        )
