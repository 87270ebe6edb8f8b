"""Folders, files and repositories of the Hugging Face hub, and the autoencoder that lies in one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from gymnast_core.errors import CheckpointError
from gymnast_core.reading import read_object

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
VAE_FILES = ["vae/*.json", "vae/*.safetensors"]
PUBLISHED = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
"""Where the autoencoder of RLinf's checkpoints lies as safetensors."""


def locate(name: str, revision: str | None, files: list[str], key: str) -> Path:
    """The path of a local folder or file, or of a hub repository "owner/name", of which `files` are downloaded.

    Raises `CheckpointError`, which names `world_model.args.{key}`, for what cannot be had.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if REPOSITORY.fullmatch(name) is None or path.parent.is_dir():
        raise CheckpointError(
            f"There is no folder or file {path}. Set world_model.args.{key} to one, or to a hub repository."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{name!r} is nothing local, and revision {revision or 'main'!r} of that hub repository cannot be had "
            f"({type(error).__name__}). Check the name, log in with `hf auth login` if it is gated, or set "
            f"world_model.args.{key} to a folder."
        ) from error


def load_vae(name: str, revision: str | None, dtype: torch.dtype) -> Any:
    """An `AutoencoderKLWan` as diffusers saves it: of a folder, or its vae/. Raises `CheckpointError`."""
    path = locate(name, revision, VAE_FILES, "vae")
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
