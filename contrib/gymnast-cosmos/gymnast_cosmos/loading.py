"""Reading a Cosmos 3 checkpoint: a diffusers folder of safetensors and JSON, never pickles or code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.reading import read_object

FILES = ["*.json", "*.jinja", "*.txt", "*.safetensors"]
"""What is downloaded of a repository."""


def load_pipeline(directory: Path, dtype: torch.dtype, guardrail: bool) -> Any:
    """The `Cosmos3OmniPipeline` with all its weights.

    Raises `CheckpointError` for one that is incomplete, `ConfigError` for a missing guardrail package.
    """
    from diffusers import AutoencoderKLWan, Cosmos3OmniPipeline, Cosmos3OmniTransformer
    from diffusers.utils import is_cosmos_guardrail_available

    if guardrail and not is_cosmos_guardrail_available():
        raise ConfigError("guardrail=true needs another package: pip install cosmos_guardrail")
    index = _read_json(directory / "model_index.json")
    if index.get("_class_name") != Cosmos3OmniPipeline.__name__:
        raise CheckpointError(
            f"{directory} holds a {index.get('_class_name')}, not a Cosmos3OmniPipeline. Other Cosmos models continue "
            "a video without looking at actions, so no policy could act in them. Use e.g. nvidia/Cosmos3-Nano."
        )
    parts: dict[str, Any] = {}
    try:
        for name, cls in (("transformer", Cosmos3OmniTransformer), ("vae", AutoencoderKLWan)):
            # diffusers itself only warns of missing weights, and leaves them to chance.
            loaded: Any = cls.from_pretrained(
                directory, subfolder=name, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
            parts[name], report = loaded
            if report["missing_keys"]:
                count, first = len(report["missing_keys"]), sorted(report["missing_keys"])[0]
                raise CheckpointError(
                    f"The {name} of {directory} lacks {count} weights, e.g. {first}: download it again."
                )
        pipeline: Any = Cosmos3OmniPipeline.from_pretrained(
            directory,
            **parts,
            sound_tokenizer=None,  # worlds are silent here, and it is large
            dtype=dtype,
            enable_safety_checker=guardrail,
            use_safetensors=True,
            local_files_only=True,
        )
    except CheckpointError:
        raise
    except Exception as error:  # diffusers raises whatever its loaders meet, SafetensorError to AttributeError
        raise CheckpointError(f"{directory} cannot be loaded as Cosmos 3: {type(error).__name__}: {error}") from error
    if not parts["transformer"].config.action_gen:
        raise CheckpointError(
            f"{directory} was not trained with actions (action_gen): it can continue a video, but is no world model "
            "that a policy can act in. Use a checkpoint with actions, e.g. nvidia/Cosmos3-Nano."
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, CheckpointError).values
    except CheckpointError as error:
        raise CheckpointError(f"{error} Cosmos 3 is loaded as diffusers saves it.") from error
