"""Safetensors weights of a checkpoint directory: one file, or shards with an index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from gymnast_core.errors import CheckpointError
from gymnast_core.reading import read_object
from gymnast_core.runs.weights import save_weights

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD = "5GB"
RECOMPUTED = ".rotary_emb.inv_freq"
"""End of the names of buffers that old checkpoints hold and nobody reads."""


def has_weights(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE))


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, from one file or from shards.

    Raises `CheckpointError` when a file is missing or truncated, or holds something else than floating-point weights.
    """
    files = [WEIGHTS_FILE]
    if not (directory / WEIGHTS_FILE).is_file():
        if not (directory / INDEX_FILE).is_file():
            raise CheckpointError(f"{directory} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}.")
        files = _shards(directory / INDEX_FILE)
        absent = [name for name in files if not (directory / name).is_file()]
        if absent:
            raise CheckpointError(
                f"{directory} lacks {len(absent)} of {len(files)} shards that {INDEX_FILE} lists: "
                f"{', '.join(absent)}. Download them again."
            )
    weights: dict[str, Tensor] = {}
    for name in files:
        weights.update(read_safetensors(directory / name))
    check_dtypes(directory, weights)
    return {name: tensor for name, tensor in weights.items() if not name.endswith(RECOMPUTED)}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Raises `CheckpointError` when it is missing, truncated or corrupt."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt ({error}). Download it again.") from error


def check_dtypes(where: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` for weights that are no plain floating-point numbers, e.g. quantised ones."""
    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, tensor in weights.items():
        if tensor.dtype not in known:
            raise CheckpointError(
                f"{name} in {where} is {str(tensor.dtype).removeprefix('torch.')}: quantised weights cannot be "
                "loaded. Use the bfloat16, float16 or float32 weights of this model."
            )


def read_metadata(directory: Path) -> dict[str, str]:
    """What the weights of a checkpoint directory say beside their tensors; nothing where they cannot be read."""
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        path = min(directory.glob("model-*.safetensors"), default=path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}  # loading says what is wrong with it


def write_weights(
    directory: Path,
    weights: Mapping[str, Tensor],
    max_shard: str | int = MAX_SHARD,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as one file, or as shards of at most `max_shard` bytes, and remove what was there before.

    `metadata` is written into each file.
    """
    plan = split_torch_state_dict_into_shards(dict(weights), max_shard_size=max_shard)
    for file, names in plan.filename_to_tensors.items():
        write_safetensors(directory / file, {name: weights[name] for name in names}, metadata)
    if plan.is_sharded:
        write_json(directory / INDEX_FILE, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
    else:
        (directory / INDEX_FILE).unlink(missing_ok=True)
    remove(set(directory.glob("model*.safetensors")) - {directory / file for file in plan.filename_to_tensors})


def write_safetensors(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write one file, which replaces its predecessor at once."""
    temporary = path.with_name(f"{path.name}.tmp")
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_weights(temporary, tensors, {**(metadata or {}), "format": "pt"})
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` when the file is missing or holds something else."""
    if not path.exists():
        raise CheckpointError(f"{path.parent} holds no {path.name}.")
    return read_object(path, CheckpointError).values


def _shards(path: Path) -> list[str]:
    """The files that an index lists, which lie beside it."""
    weight_map = read_object(path, CheckpointError).object("weight_map")
    files = {weight_map.text(name) for name in weight_map.values}
    for name in sorted(files):
        if Path(name).name != name or not name.endswith(".safetensors"):
            weight_map.refuse(name, "is no name of a safetensors file beside it")
    if not files:
        raise CheckpointError(f"{weight_map.place} names no weights.")
    return sorted(files)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file, which replaces its predecessor at once."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
