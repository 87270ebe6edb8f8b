"""Reading and writing PI0 checkpoints: safetensors and JSON, never pickles or code."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gymnast_core.errors import CheckpointError
from gymnast_core.hub import locate
from gymnast_core.reading import read_object
from safetensors import SafetensorError
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PI0ForConditionalGeneration

HEAD_FILE = "gymnast_head.json"
"""The stochastic head's learned standard deviations, normalised units, one an action dimension."""
TOKENIZER_FILE = "tokenizer.json"
KEY = "policy.args.checkpoint"
"""Where a config says which checkpoint."""
UNUSED = ("dit.embed_tokens",)
"""Weights that checkpoints may lack: the action expert reads no text."""


def locate_small_files(name: str, revision: str | None) -> Path:
    """The directory of a checkpoint as `locate` finds it; of a hub repository, its JSON files alone are fetched."""
    if Path(name).expanduser().is_dir():
        return locate(name, revision, files=(), key=KEY)
    return _located_once(name, revision)


@lru_cache(maxsize=8)
def _located_once(name: str, revision: str | None) -> Path:
    # Training asks at every gradient step, and each time the hub would be asked.
    return locate(name, revision, files=("*.json",), key=KEY)


def load_model(directory: Path, dtype: torch.dtype, attention: str) -> PI0ForConditionalGeneration:
    """The network. transformers' layout or LeRobot's, both safetensors. Raises `CheckpointError` for anything else."""
    from transformers import PI0ForConditionalGeneration

    described = read_json(directory / "config.json")
    kind = described.get("model_type", described.get("type"))
    if kind != "pi0":
        raise CheckpointError(f"{directory} holds a model of type {kind!r}, not 'pi0' (see its config.json).")
    # transformers' annotations know neither `output_loading_info` nor that it makes a pair.
    load: Any = PI0ForConditionalGeneration.from_pretrained
    try:
        model, report = load(
            directory,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{directory} cannot be loaded as PI0: {type(error).__name__}: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if not any(unused in name for unused in UNUSED))
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} weights of PI0, e.g. {missing[0]}: is the download complete?"
        )
    return model


def load_tokenizer(directory: Path) -> Tokenizer:
    path = directory / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The tokenizers library raises bare exceptions.
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). PI0 reads PaliGemma's tokenizer: set policy.args.tokenizer to a folder "
            "with its tokenizer.json or to a hub repository, e.g. google/paligemma-3b-pt-224."
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_head(directory: Path, width: int) -> list[float] | None:
    """What `save` wrote of the stochastic head; None for a checkpoint that never had one."""
    if not (directory / HEAD_FILE).is_file():
        return None
    values = read_json(directory / HEAD_FILE).get("std")
    if not isinstance(values, list) or len(values) != width or not all(isinstance(v, float) and v > 0 for v in values):
        raise CheckpointError(f"{directory / HEAD_FILE} needs {width} positive numbers under 'std'.")
    return values


def read_json(path: Path) -> dict[str, Any]:
    return read_object(path, CheckpointError).values
