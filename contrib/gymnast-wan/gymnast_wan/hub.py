"""The autoencoder, of a folder or of a repository of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from gymnast_core.errors import CheckpointError
from gymnast_core.hub import locate
from gymnast_core.reading import read_object

VAE_FILES = ["vae/*.json", "vae/*.safetensors"]
PUBLISHED = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
"""Where the autoencoder of RLinf's checkpoints lies as safetensors."""


def load_vae(name: str, revision: str | None, dtype: torch.dtype) -> Any:
    """An `AutoencoderKLWan` as diffusers saves it: of a folder, or its vae/. Raises `CheckpointError`."""
    path = locate(name, revision, files=VAE_FILES, key="world_model.args.vae", takes_file=True)
    if path.is_file() or any(path.glob("*.pth")):
        raise CheckpointError(
            f"{path}: .pth files of the autoencoder are not read. Set world_model.args.vae to {PUBLISHED}, whose vae/ "
            "holds the autoencoder of Wan 2.2 TI2V as safetensors, or to another folder as diffusers saves it."
        )
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    kind = read_object(folder / "config.json", CheckpointError).values.get("_class_name")
    if kind != AutoencoderKLWan.__name__:
        raise CheckpointError(f"{folder} holds a {kind}, not an {AutoencoderKLWan.__name__}. Use e.g. {PUBLISHED}.")
    try:
        loaded: Any = AutoencoderKLWan.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, torch_dtype=dtype
        )
    except Exception as error:  # diffusers raises whatever its loaders meet
        raise CheckpointError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    vae, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(f"{folder} lacks weights, e.g. {sorted(report['missing_keys'])[0]}: download it again.")
    return vae
