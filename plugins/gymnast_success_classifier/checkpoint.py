"""Checkpoint folders of the classifier: config.json for what was built, model.safetensors for its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from gymnast_core.config.presets import checkpoint_advice
from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, shortened, unknown_name
from gymnast_core.reading import JsonObject, as_object, parse_json, read_object
from gymnast_core.runs.weights import save_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "success-classifier"
METADATA_KEY = "gymnast_success_classifier"
"""Of the weights file: what `config.json` says, too. A file that was changed or mixed up is found out by it."""

IMAGE_SIZE, WIDTH, HIDDEN = Range(least=16, most=4096), Range(least=8, most=4096), Range(least=1, most=2**16)
ImageSize = Annotated[int, IMAGE_SIZE]
Width = Annotated[int, WIDTH]
Hidden = Annotated[int, HIDDEN]
SHARE = Range(above=0, below=1)
Share = Annotated[float, SHARE]
COMPARED_WITH = ("start", "context")


@dataclass(frozen=True)
class Description:
    """What a checkpoint's `config.json` says; None where it was written before that was kept, or nothing was said."""

    image_size: int
    width: int
    hidden: int
    instructions: list[str]
    camera: str | None = None
    """The camera that it was fitted on."""
    threshold: float | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    """By instruction."""
    compared_with: str | None = None

    def entries(self) -> dict[str, Any]:
        """What is said, under the names of `config.json`."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != {}}


def read_config(directory: Path) -> Description:
    """What a checkpoint folder says of itself. Raises `CheckpointError` that names the file and the key."""
    path = directory / CONFIG
    if not path.exists():
        raise CheckpointError(
            f"No success classifier in {directory}: {CONFIG} is missing. "
            + checkpoint_advice(directory, "success-classifier")
        )
    return _description(read_object(path, CheckpointError))


def normalised(instruction: str) -> str:
    """Instructions that differ only in case, spacing or a final full stop are one instruction."""
    return " ".join(instruction.lower().split()).rstrip(". ")


def _description(config: JsonObject) -> Description:
    known = ("kind", *(item.name for item in fields(Description)))
    if config.values.get("kind") != KIND:
        raise CheckpointError(f"{config.place} does not describe a success classifier (no kind: {KIND!r}).")
    for name in config.values:
        if name not in known:
            raise CheckpointError(f"{config.place}: {unknown_name('key', name, known)}")
    width = config.integer("width", WIDTH)
    if width % 8:
        config.refuse("width", f"is {width}; it must be a multiple of 8")
    instructions = config.texts("instructions")
    if not instructions or len({normalised(text) for text in instructions}) < len(instructions):
        config.refuse("instructions", "must be some, each of them once")
    thresholds = config.object("thresholds", default=None)
    return Description(
        image_size=config.integer("image_size", IMAGE_SIZE),
        width=width,
        hidden=config.integer("hidden", HIDDEN),
        instructions=instructions,
        camera=config.text("camera", default=None),
        threshold=config.number("threshold", SHARE, default=None),
        thresholds={} if thresholds is None else {text: thresholds.number(text, SHARE) for text in thresholds.values},
        compared_with=config.text("compared_with", COMPARED_WITH, default=None),
    )


def read_weights(directory: Path, network: nn.Module) -> None:
    """Load the folder's weights; `CheckpointError` if they are damaged or another network's."""
    path = directory / WEIGHTS
    try:
        weights = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged: {error}. Copy it again or fit the classifier anew."
        ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in (*wanted, *(found.keys() - wanted.keys())) if wanted.get(name) != found.get(name)]
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{path} does not fit the network of its {CONFIG}: {len(wrong)} tensors differ; {first} is "
            f"{found.get(first, 'missing')}, not {wanted.get(first, 'expected')}. Fit the classifier again."
        )
    _check_same(directory, metadata)
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: {name} holds numbers that are no weights (NaN, infinite or {tensor.dtype}). Copy it again or "
                "fit the classifier anew."
            )
    network.load_state_dict(weights)


def _check_same(directory: Path, metadata: Mapping[str, str]) -> None:
    """`config.json` against what was written into the weights file; earlier files hold nothing to compare."""
    if METADATA_KEY not in metadata:
        return
    place = f"{directory / WEIGHTS} (metadata)"
    saved = asdict(
        _description(as_object(parse_json(metadata[METADATA_KEY], place, CheckpointError), place, CheckpointError))
    )
    for name, found in asdict(read_config(directory)).items():
        if found != saved[name]:
            raise CheckpointError(
                f"{directory / CONFIG}: {name} is not what the weights were saved with "
                f"({shortened(str(saved[name]), 80)}). The file was changed or belongs to another "
                "checkpoint: copy the folder again."
            )


def write(directory: Path, description: Description, network: nn.Module) -> None:
    """Write both files, each under a temporary name first: a crash leaves no half-written checkpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    config = {"kind": KIND, **description.entries()}
    save_weights(directory / f"{WEIGHTS}.part", weights, {METADATA_KEY: json.dumps(config)})
    (directory / f"{CONFIG}.part").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        (directory / f"{name}.part").replace(directory / name)
