"""Latents of a Stable-Diffusion autoencoder (diffusers' `AutoencoderKL`), as the published checkpoints use them.

Source: Stable Diffusion 3 (arXiv 2403.03206), world-model-eval (arXiv 2506.00613): latents are a sample of the
posterior times the config's scaling factor. Its shift factor is ignored in both directions.

Shapes: N frames, H W pixels, h w C latent pixels and channels.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from gymnast_core.config.ranges import Range, check_values
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.reading import read_object
from gymnast_worldgym.latent_cache import LatentCache, Moments
from gymnast_worldgym.noise import Noise

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

log = logging.getLogger(__name__)

VaeBatch = Annotated[int, Range(least=1, most=4096)]
"""Frames."""


@dataclass(frozen=True)
class Autoencoder:
    """Where the autoencoder comes from and how it is run; `WorldGym.Config` documents the fields."""

    vae: str | None = None
    vae_revision: str | None = None
    vae_subfolder: str | None = None
    vae_batch: VaeBatch = 8

    def __post_init__(self) -> None:
        check_values(Autoencoder, asdict(self))

    def resolved(self) -> Autoencoder:
        """The same with an absolute path, for a checkpoint that is used from other working directories."""
        folder = None if self.vae is None else Path(self.vae).expanduser()
        return self if folder is None or not folder.is_dir() else replace(self, vae=str(folder.resolve()))


class AutoencoderCodec:
    """Encodes frames to posterior samples, and decodes latents, `vae_batch` frames at a time, in float32."""

    clip: float | None = None

    def __init__(self, config: Autoencoder, cache_directory: str | None = None) -> None:
        """Raises `ConfigError` or `CheckpointError` if the autoencoder cannot be had, or is none of RGB frames."""
        self._batch, self._source = config.vae_batch, config.vae
        self._vae = _load(config)
        about = self._vae.config
        if about.in_channels != 3 or about.out_channels != 3:
            raise CheckpointError(
                f"The autoencoder {config.vae} takes {about.in_channels} channels and gives {about.out_channels}; "
                "frames have 3 (RGB)."
            )
        self.channels: int = about.latent_channels
        self.factor: int = 2 ** (len(about.block_out_channels) - 1)
        self._scaling: float = about.scaling_factor
        self._cache = LatentCache(Path(cache_directory).expanduser(), self.fingerprint) if cache_directory else None

    def encode(self, frames: Tensor, noise: Noise) -> Tensor:
        """A posterior sample of each frame: uint8 (..., H, W, 3) to float32 (..., h, w, C)."""
        images = frames.flatten(0, -4)
        moments = self._moments(images) if self._cache is None else self._cache.moments(images, self._moments)
        mean, std = (part.movedim(-3, -1).reshape(*frames.shape[:-3], *self._latent_shape(frames)) for part in moments)
        return (mean + std * noise(mean.shape)) * self._scaling

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 (..., H, W, 3)."""
        return (self.pixels(latents) * 255).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """float32 (..., H, W, 3); 0 is black, 1 white; not clamped."""
        vae = self._vae.to(latents.device)
        images = (latents.flatten(0, -4) / self._scaling).movedim(-1, -3)
        with torch.autocast(latents.device.type, enabled=False):
            decoded = torch.cat([vae.decode(batch.float()).sample for batch in images.split(self._batch)])
        return ((decoded + 1) / 2).movedim(-3, -1).reshape(*latents.shape[:-3], *self._frame_shape(latents))

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the config and all weights: two autoencoders that differ have different ones."""
        # Underscored keys say where the files lie and who wrote them.
        about = {name: value for name, value in self._vae.config.items() if not name.startswith("_")}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self._vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def latents(self) -> str:
        """Hexadecimal digest of what frames become: of the encoder's weights and the scaling. Decoders may differ."""
        digest = hashlib.sha256(repr(float(self._scaling)).encode())
        for name, tensor in sorted(self._vae.state_dict().items()):
            if name.startswith(("encoder.", "quant_conv.")):
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def check_latents(self, trained_on: str | None, source: Path) -> None:
        """Raises `ConfigError` if weights were trained on another autoencoder's latents (their digest): those of equal
        sizes (Stable Diffusion 3's and FLUX.1's) load in each other's place."""
        if trained_on is not None and trained_on != self.latents:
            raise ConfigError(
                f"vae {self._source} is another autoencoder than the one on whose latents {source} was trained: its "
                "encoder's weights or its scaling_factor differ. Set vae to that one."
            )

    @torch.no_grad()
    def _moments(self, images_NHWC: Tensor) -> Moments:
        vae = self._vae.to(images_NHWC.device)
        # In float32, whatever the loss around it is computed in: what is kept serves other trainings, too.
        with torch.autocast(images_NHWC.device.type, enabled=False):
            posteriors = [
                vae.encode(2 * (batch.float() / 255).movedim(-1, -3) - 1).latent_dist
                for batch in images_NHWC.split(self._batch)
            ]
        return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])

    def _latent_shape(self, frames: Tensor) -> tuple[int, int, int]:
        return frames.shape[-3] // self.factor, frames.shape[-2] // self.factor, self.channels

    def _frame_shape(self, latents: Tensor) -> tuple[int, int, int]:
        return latents.shape[-3] * self.factor, latents.shape[-2] * self.factor, 3


def _load(config: Autoencoder) -> Any:
    if config.vae is None:
        raise ConfigError(
            "codec autoencoder-kl needs an autoencoder: set vae to a folder or a Hugging Face repository."
        )
    folder = _folder(config.vae, config)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"No {name} in {folder}. Give an AutoencoderKL folder as diffusers saves it ({CONFIG_FILE}, "
                f"{WEIGHTS_FILE}); vae_subfolder names the folder inside a whole pipeline, often: vae."
            )
    _check_config(folder / CONFIG_FILE)
    from diffusers import AutoencoderKL

    try:
        # Building the network draws initial weights; the caller's global generator must not notice.
        with torch.random.fork_rng(devices=[]):
            vae, loading = AutoencoderKL.from_pretrained(
                folder, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # diffusers raises OSError, ValueError, RuntimeError, TypeError, ... on bad folders
        raise CheckpointError(f"Cannot read the autoencoder in {folder}: {_first_line(error)}") from None
    # diffusers only logs a warning and leaves such weights at random values.
    if wrong := [*loading["missing_keys"], *loading["mismatched_keys"], *loading["unexpected_keys"]]:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}: {len(wrong)} tensors lack, differ or have no "
            f"use, first {wrong[0]}."
        )
    for name, tensor in vae.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: {name} holds NaN or infinite numbers; it is damaged.")
    return vae.eval().requires_grad_(False)


def _check_config(path: Path) -> None:
    """Types and ranges of what an autoencoder's config says; diffusers takes anything, and defaults for the rest."""
    config = read_object(path, CheckpointError)
    if config.text("_class_name", default="AutoencoderKL") != "AutoencoderKL":
        config.refuse("_class_name", f"is {config['_class_name']!r}; codec autoencoder-kl takes an AutoencoderKL")
    size = Range(least=1, most=2**14)
    for name in ("in_channels", "out_channels", "latent_channels", "layers_per_block", "norm_num_groups"):
        config.integer(name, size)
    blocks = config.integers("block_out_channels", size)
    for name in ("down_block_types", "up_block_types"):
        config.texts(name, length=len(blocks))
    config.text("act_fn")
    for name in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention", "force_upcast"):
        config.flag(name, default=None)
    for name in ("latents_mean", "latents_std"):
        config.numbers(name, default=None)
    config.number("shift_factor", default=None)
    if "scaling_factor" in config:
        config.number("scaling_factor", Range(above=0, most=1000))
    elif config["latent_channels"] == 4:
        # Autoencoders of Stable Diffusion 1 do not say it; the default of diffusers is theirs.
        log.warning("%s has no scaling_factor: taken is 0.18215, that of Stable Diffusion 1.", path)
    else:
        config.refuse("scaling_factor", "is missing: the factor of the latents that the world model was trained on")


def _folder(source: str, config: Autoencoder) -> Path:
    """The local folder of a path or, downloaded if need be, of a repository."""
    local = Path(source).expanduser()
    if local.is_dir():
        nested = local / (config.vae_subfolder or "")
        return nested if nested.is_dir() else local
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        raise CheckpointError(
            f"No autoencoder folder {local}. Set vae to an existing folder, or a Hugging Face repository OWNER/NAME."
        )
    return _downloaded(source, config)


def _downloaded(repository: str, config: Autoencoder) -> Path:
    from huggingface_hub import errors, hf_hub_download

    where = f"{repository} (revision {config.vae_revision or 'main'}, subfolder {config.vae_subfolder or 'none'})"
    copy = "set vae to the folder of a copy that you have"
    try:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            file = hf_hub_download(
                repository, name, subfolder=config.vae_subfolder, revision=config.vae_revision, repo_type="model"
            )
    except errors.GatedRepoError:
        reason = f"its licence must be accepted on its page, and HF_TOKEN set to your token; or {copy}"
    except errors.RepositoryNotFoundError:
        reason = f"no such public repository; if it is private, set HF_TOKEN to your token; or {copy}"
    except errors.RevisionNotFoundError:
        reason = "no such revision; check vae_revision"
    except errors.LocalEntryNotFoundError:
        reason = f"it is not downloaded and the network cannot be reached; or {copy}"
    except errors.EntryNotFoundError:
        reason = f"no {name} there; check vae_subfolder"
    except Exception as error:  # whatever the network does: timeouts, HTTP errors, a full disk
        reason = f"{_first_line(error)}; or {copy}"
    else:
        return Path(file).parent
    raise CheckpointError(f"Cannot get the autoencoder {where}: {reason}.")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
