"""Checkpoint directories in the layout of published OpenVLA and OpenVLA-OFT models: read, check, write.

config.json  dataset_statistics.json  preprocessor_config.json  generation_config.json  tokenizer.json …
model.safetensors (or shards with model.safetensors.index.json)
action_head--*, proprio_projector--*, vision_backbone--* (`.pt`, see components.py)
lora_adapter/ (peft's format; weights beside it are merged already; without any, or when a base model is asked for, it
is put on that)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gymnast_core.config.presets import checkpoint_advice, fitted_by
from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.hub import locate
from gymnast_core.reading import JsonObject, as_object, parse_json, read_object
from gymnast_openvla_oft.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    Factors,
    adapter_directory,
    check_variant,
    merge,
    read_adapter,
    split_factors,
    write_adapter,
)
from gymnast_openvla_oft.components import optional_part, plain_name, read_components, write_components
from gymnast_openvla_oft.images import RESIZES, input_size
from gymnast_openvla_oft.initialise import fill_missing
from gymnast_openvla_oft.model import END_TOKEN, ModelShape, OFTModel
from gymnast_openvla_oft.prompt import BEGIN_TOKEN, TOKENIZER_FILE
from gymnast_openvla_oft.seal import check_seal, seal
from gymnast_openvla_oft.weights import (
    MAX_SHARD,
    WEIGHTS_FILE,
    has_weights,
    read_json,
    read_metadata,
    read_weights,
    remove,
    write_bytes,
    write_json,
    write_weights,
)

STATISTICS_FILE = "dataset_statistics.json"
FILES = ("*.json", "*.safetensors", "*.pt", "*.model", "*.py")
"""What a download fetches: configs, tokenizers, weights. Code comes along for a later save and is never run."""
COMPANIONS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "tokenizer.model",
    "configuration_prismatic.py",
    "modeling_prismatic.py",
    "processing_prismatic.py",
)
"""Files that other readers of a checkpoint want and that are carried along unread."""


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is read from."""

    directory: Path
    base: Path | None = None
    """The model under a directory that holds nothing but an adapter."""

    def find(self, name: str) -> Path:
        """A file of the directory, or else of the base model."""
        own = self.directory / name
        return own if self.base is None or own.is_file() else self.base / name


@dataclass(frozen=True)
class Description:
    """A checkpoint without its weights: what its JSON files say."""

    config: dict[str, Any]
    """`config.json`."""
    preprocessor: dict[str, Any]
    """`preprocessor_config.json`."""
    norm_stats: dict[str, Any]
    """Action statistics by dataset: `dataset_statistics.json`, or `config.json`'s without that file."""
    companions: Mapping[str, bytes] = field(default_factory=dict)
    """Content of the files in `COMPANIONS` that there are."""
    where: str = "config.json"
    """Path of that file, for errors."""
    preprocessor_file: str = "preprocessor_config.json"
    statistics: str = "config.json: norm_stats"
    """File of the statistics, for errors."""


def find_directory(
    name: str, revision: str | None, files: Sequence[str] = FILES, *, key: str = "policy.args.checkpoint"
) -> Path:
    """The local directory of a checkpoint or, at another `key`, of the model under an adapter; see `locate`."""
    own = f"a published OpenVLA or OpenVLA-OFT, or to RUN/checkpoint, which `{fitted_by('openvla-oft')}` writes"
    return locate(name, revision, files=files, key=key, instead=own)


def open_source(
    checkpoint: str, revision: str | None = None, base: str | None = None, files: Sequence[str] = FILES
) -> Source:
    """Find a checkpoint, and the base model of an adapter. Raises `CheckpointError` or `ConfigError`.

    `files` are the patterns of what is fetched of hub repositories.
    """
    directory = find_directory(checkpoint, revision, files)
    adapter = adapter_directory(directory)
    if adapter is None and base is not None:
        raise ConfigError(f"{directory} holds no adapter, so it has no use for base={base!r}. Leave base out.")
    if adapter is None or (base is None and has_weights(directory)):
        return Source(directory)
    named = base or read_object(adapter / ADAPTER_CONFIG, CheckpointError).text("base_model_name_or_path", default=None)
    if not named:
        raise CheckpointError(f"{adapter} does not name the model that it adapts. Set policy.args.base to it.")
    try:
        return Source(directory, find_directory(str(named), None, files, key="policy.args.base"))
    except CheckpointError as error:
        raise CheckpointError(
            f"{directory} holds a LoRA adapter of {str(named)!r} and no weights: {error} Set policy.args.base to that "
            "model."
        ) from error


def read_description(source: Source) -> Description:
    """The JSON files of a checkpoint. Raises `CheckpointError` when one is missing or contradicts another."""
    path, preprocessor_path = source.find("config.json"), source.find("preprocessor_config.json")
    if not path.exists():
        advice = checkpoint_advice(source.directory, "openvla-oft")
        raise CheckpointError(f"{source.directory} holds no config.json, and is no OpenVLA checkpoint. {advice}")
    config, preprocessor = read_json(path), read_json(preprocessor_path)
    _check_images(path, config, preprocessor_path, preprocessor)
    statistics = source.find(STATISTICS_FILE)
    norm_stats = read_json(statistics) if statistics.is_file() else config.get("norm_stats", {})
    paths = {name: source.find(name) for name in COMPANIONS}
    companions = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    _check_companions({paths[name]: content for name, content in companions.items() if name.endswith(".json")})
    if source.base is None:
        _check_seal(source.directory, config, preprocessor, norm_stats)
    return Description(
        config,
        preprocessor,
        norm_stats,
        companions,
        where=str(path),
        preprocessor_file=str(preprocessor_path),
        statistics=str(statistics) if statistics.is_file() else f"{path}: norm_stats",
    )


def read_state(source: Source) -> dict[str, Tensor]:
    """All weights of a checkpoint under `OFTModel`'s names, adapters merged, optional parts included."""
    return merge(*read_unmerged(source))


def read_unmerged(source: Source) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """As `read_state`, with the adapter that its base model still lacks apart."""
    if source.base is None:
        return read_weights(source.directory) | read_components(source.directory), {}
    weights = read_weights(source.base) | read_components(source.base)
    components = read_components(source.directory)
    adapter = adapter_directory(source.directory)
    assert adapter is not None
    factors = {plain_name(module): factor for module, factor in read_adapter(adapter).items()}
    # The file of FiLM towers comes with their factors, so the adapter's would count twice.
    wanted = {module: factor for module, factor in factors.items() if f"{module}.weight" not in components}
    return weights | components, wanted


def load_model(
    shape: ModelShape,
    weights: dict[str, Tensor],
    *,
    where: Path,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> OFTModel:
    """The network with the given weights. Optional parts that `weights` lacks start from `seed`.

    Raises `CheckpointError` when other weights are missing, superfluous or of another shape.
    """
    model = OFTModel.empty(shape, attention)
    fill_missing(model, weights, seed)
    _check_fit(where, model.state_dict(), weights)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()}, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable[name])
    model.rebuild_buffers()
    return model


def save_checkpoint(
    directory: Path,
    description: Description,
    tokenizer: Tokenizer,
    model: OFTModel,
    *,
    max_shard: str | int = MAX_SHARD,
) -> None:
    """Write a checkpoint directory. Each file replaces its predecessor at once, the weights last.

    A model under peft is saved merged, with its adapter beside it in `lora_adapter/`.
    """
    weights, adapter = _state(model)
    directory.mkdir(parents=True, exist_ok=True)
    config = {**description.config, "torch_dtype": str(model.dtype).removeprefix("torch.")}
    write_json(directory / "config.json", config)
    write_json(directory / STATISTICS_FILE, description.norm_stats)
    write_json(directory / "preprocessor_config.json", description.preprocessor)
    words = tokenizer.to_str(pretty=True).encode()
    write_bytes(directory / TOKENIZER_FILE, words)
    for name, content in {**_new_companions(config), **description.companions}.items():
        write_bytes(directory / name, content)
    if adapter is not None:
        weights = merge(weights, adapter)
        write_adapter(directory / ADAPTER_FOLDER, adapter, _peft_config(model).to_dict())
    else:
        remove((directory / ADAPTER_FOLDER).glob("adapter_*"))
    write_components(directory, weights)
    own = {name: x for name, x in weights.items() if optional_part(name) is None}
    said = seal(config, description.preprocessor, description.norm_stats, words)
    write_weights(directory, own, max_shard, said)


def _state(model: OFTModel) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    config = _peft_config(model)
    if config is None:
        return state, None
    check_variant("the model", config.to_dict())
    return split_factors(state, float(config.lora_alpha), rank_stabilised=bool(config.use_rslora))


def _peft_config(model: OFTModel) -> Any:
    """peft's config of a model that it injected LoRA into, or None."""
    configs = getattr(model, "peft_config", None)
    return next(iter(configs.values())) if configs else None


def _new_companions(config: Mapping[str, Any]) -> dict[str, bytes]:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": config.get("pad_token_id")}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    contents = {"generation_config.json": ids, "tokenizer_config.json": tokenizer}
    return {name: (json.dumps(x, indent=2, sort_keys=True) + "\n").encode() for name, x in contents.items()}


def _check_images(where: Path, config: Mapping[str, Any], file: Path, preprocessor: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless both files describe the same images."""
    stated = JsonObject(dict(config), str(where), CheckpointError)
    processor = JsonObject(dict(preprocessor), str(file), CheckpointError)
    side, made = stated.integers("image_sizes", length=2)[0], input_size(processor)
    if made != side:
        raise CheckpointError(
            f"{file}: input_sizes makes images of {made}x{made} pixels, but config.json describes vision "
            f"towers for {side}x{side}. One of the two files is another model's."
        )
    strategies = [held.text("image_resize_strategy", RESIZES, default=None) for held in (stated, processor)]
    if None not in strategies and len(set(strategies)) > 1:
        processor.refuse("image_resize_strategy", f"is {strategies[1]!r}, but that of config.json is {strategies[0]!r}")


def _check_seal(directory: Path, config: Any, preprocessor: Any, norm_stats: Any) -> None:
    """Raise `CheckpointError` for files that are not those that the weights beside them were saved with."""
    names = {"config": "config.json", "preprocessor": "preprocessor_config.json", "statistics": STATISTICS_FILE}
    paths = {file: str(directory / name) for file, name in names.items()}
    tokenizer = directory / TOKENIZER_FILE
    content = tokenizer.read_bytes() if tokenizer.is_file() else b""
    statistics = norm_stats if isinstance(norm_stats, dict) else {}
    found = seal(config, preprocessor, statistics, content)
    check_seal(
        read_metadata(directory),
        found,
        {**paths, "tokenizer": str(tokenizer), "weights": str(directory / WEIGHTS_FILE)},
    )


def _check_companions(contents: Mapping[Path, bytes]) -> None:
    """Raise `CheckpointError` for a file that is no JSON object, or that contradicts the ids that prompts are made
    of."""
    for path, content in contents.items():
        held = as_object(parse_json(content, str(path), CheckpointError), str(path), CheckpointError)
        if path.name == "generation_config.json":
            for key, wanted in (("bos_token_id", BEGIN_TOKEN), ("eos_token_id", END_TOKEN)):
                if held.integer(key, Range(least=0), default=wanted) != wanted:
                    held.refuse(key, f"is {held[key]}; that of OpenVLA's language models is {wanted}")
            held.integer("pad_token_id", Range(least=-1), default=None)


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
