"""Checkpoint folders of the classifier: config.json for what was built, model.safetensors for its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gymnast_core.errors import CheckpointError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KIND = "success-classifier"


def read_config(directory: Path) -> dict[str, object]:
    """The architecture that a checkpoint folder describes. Raises `CheckpointError`."""
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"No success classifier in {directory}: {CONFIG} is missing. Give the folder that `gymnast fit` wrote."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fit the classifier again.") from error
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise CheckpointError(f"{path} does not describe a success classifier (no kind: {KIND!r}).")
    return {key: value for key, value in config.items() if key != "kind"}


def read_weights(directory: Path, network: nn.Module) -> None:
    """Load the folder's weights; `CheckpointError` if they are damaged or another network's."""
    path = directory / WEIGHTS
    try:
        weights = load_file(path)
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
    network.load_state_dict(weights)


def write(directory: Path, config: Mapping[str, object], network: nn.Module) -> None:
    """Write both files, each under a temporary name first: a crash leaves no half-written checkpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, directory / f"{WEIGHTS}.part")
    text = json.dumps({"kind": KIND, **config}, indent=2) + "\n"
    (directory / f"{CONFIG}.part").write_text(text, encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        (directory / f"{name}.part").replace(directory / name)
