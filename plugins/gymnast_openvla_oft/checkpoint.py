"""Checkpoint directories in the layout of published OpenVLA-OFT models: read, check, write.

config.json  dataset_statistics.json  preprocessor_config.json  generation_config.json
tokenizer.json  model.safetensors (or shards with model.safetensors.index.json)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from gymnast_core.errors import CheckpointError
from gymnast_openvla_oft.architecture import model_shape
from gymnast_openvla_oft.model import OFTModel
from gymnast_openvla_oft.prompt import TOKENIZER_FILE

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD = "5GB"


@dataclass(frozen=True)
class Description:
    """A checkpoint without its weights: what its JSON files say."""

    config: dict[str, Any]
    """`config.json`."""
    preprocessor: dict[str, Any]
    """`preprocessor_config.json`."""
    norm_stats: dict[str, Any]
    """Action statistics by dataset: `dataset_statistics.json`, or `config.json`'s without that file."""


def read_description(directory: Path) -> Description:
    """The JSON files of a checkpoint directory. Raises `CheckpointError` when one is missing or malformed."""
    if not directory.is_dir():
        raise CheckpointError(f"There is no checkpoint directory {directory}. Set policy.args.checkpoint to one.")
    heads = sorted(path.name for path in directory.glob("action_head--*"))
    if heads:
        raise CheckpointError(
            f"{directory} has a regression head ({heads[0]}): its token logits are untrained and cannot "
            "be sampled. Use a checkpoint that was fine-tuned to predict action tokens."
        )
    config = _read_json(directory / "config.json")
    statistics = directory / "dataset_statistics.json"
    norm_stats = _read_json(statistics) if statistics.is_file() else config.get("norm_stats", {})
    return Description(config, _read_json(directory / "preprocessor_config.json"), norm_stats)


def load_model(
    directory: Path, config: Mapping[str, Any], *, attention: str = "sdpa", dtype: torch.dtype = torch.float32
) -> OFTModel:
    """The network with the weights of a checkpoint directory.

    Raises `CheckpointError` when weights are missing, truncated, superfluous or of another shape.
    """
    model = OFTModel.empty(model_shape(config), attention)
    weights = read_weights(directory)
    _check_fit(directory, model.state_dict(), weights)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable[name])
    model.rebuild_buffers()
    return model


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, from one file or from shards."""
    files = [WEIGHTS_FILE]
    if not (directory / WEIGHTS_FILE).is_file():
        if not (directory / INDEX_FILE).is_file():
            raise CheckpointError(f"{directory} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}.")
        files = sorted(set(_read_json(directory / INDEX_FILE).get("weight_map", {}).values()))
    weights: dict[str, Tensor] = {}
    for name in files:
        try:
            weights.update(load_file(directory / name))
        except FileNotFoundError as error:
            raise CheckpointError(f"{directory / name} is missing; {INDEX_FILE} lists it.") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{directory / name} is truncated or corrupt ({error}). Download it again."
            ) from error
    return weights


def save_checkpoint(directory: Path, description: Description, tokenizer: Tokenizer, model: OFTModel) -> None:
    """Write a checkpoint directory. Each file replaces its predecessor at once, the weights last."""
    directory.mkdir(parents=True, exist_ok=True)
    config = description.config
    _write_json(directory / "config.json", config)
    _write_json(directory / "dataset_statistics.json", description.norm_stats)
    _write_json(directory / "preprocessor_config.json", description.preprocessor)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": config.get("pad_token_id")}
    _write_json(directory / "generation_config.json", ids)
    _write_text(directory / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write_weights(directory, weights)


def _write_weights(directory: Path, weights: dict[str, Tensor]) -> None:
    plan = split_torch_state_dict_into_shards(weights, max_shard_size=MAX_SHARD)
    for file, names in plan.filename_to_tensors.items():
        temporary = directory / f"{file}.tmp"
        save_file({name: weights[name] for name in names}, temporary, metadata={"format": "pt"})
        temporary.replace(directory / file)
    if plan.is_sharded:
        _write_json(directory / INDEX_FILE, {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
    stale = set(directory.glob("model*.safetensors")) - {directory / file for file in plan.filename_to_tensors}
    for path in stale:
        path.unlink()
    if not plan.is_sharded:
        (directory / INDEX_FILE).unlink(missing_ok=True)


def _check_fit(directory: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, superfluous = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or superfluous:
        what = f"lack {missing[0]}" if missing else f"hold an unknown {superfluous[0]}"
        count = len(missing) + len(superfluous)
        raise CheckpointError(
            f"The weights in {directory} {what} ({count} names differ from what config.json describes)."
        )
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise CheckpointError(
                f"{name} in {directory} is {tuple(found[name].shape)}, but config.json describes {tuple(tensor.shape)}."
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} holds no {path.name}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
