"""Reading and writing weights: our folders, safetensors and published `.pt` files. Nothing is unpickled."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gymnast_core.config.presets import fitted_by
from gymnast_core.errors import CheckpointError
from gymnast_core.runs.weights import save_weights
from gymnast_worldgym import published
from gymnast_worldgym.model import POSE_WAVES
from gymnast_worldgym.stored import LATENTS_KEY, Sections, as_metadata, check_same_model, read_config, read_metadata

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CAMERAS = "camera_embedding.weight"
"""What models of several cameras have alone."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what the file says of them: sections of `config.json`, or of the weights' metadata."""

    source: Path
    weights: Mapping[str, Tensor]
    config: Sections | None
    latents: str | None = None
    """Digest of the autoencoder on whose latents they were trained, where the file says it."""

    @property
    def sizes(self) -> dict[str, int]:
        """The architecture that the tensors' shapes tell of; empty for those of another kind of model."""
        return _sizes({name: tuple(tensor.shape) for name, tensor in self.weights.items()})


def read(path: str | Path) -> Checkpoint:
    """Read a folder (`config.json`, `model.safetensors`), a `.safetensors` file or a plain `.pt`.

    `.pt` files hold the weights themselves or `{model, ema, optimizer, step}`; the averaged `ema` is
    preferred. Raises `CheckpointError` if the file is missing, truncated, corrupt or holds no weights.
    """
    path = existing(path)
    if not path.is_dir():
        return Checkpoint(path, _read_weights(path), *_read_metadata(path))
    config = read_config(path / CONFIG_FILE)
    weights_file = path / WEIGHTS_FILE
    if not weights_file.exists():
        raise CheckpointError(f"The checkpoint folder {path} has no {WEIGHTS_FILE}.")
    weights = _read_weights(weights_file)
    saved, latents = _read_metadata(weights_file)
    check_same_model(config, saved, path / CONFIG_FILE)
    return Checkpoint(path, weights, config, latents)


def existing(path: str | Path) -> Path:
    """The path of a checkpoint. Raises `CheckpointError` if there is none."""
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"No checkpoint at {path}. Give a folder, a .safetensors file or a .pt file: a published one, or "
            f"RUN/checkpoint, which `{fitted_by('worldgym')}` writes."
        )
    return path


def describe(path: str | Path) -> Checkpoint:
    """What `read` returns, with tensors that have a shape and no numbers; without any where there is no file yet."""
    path = Path(path).expanduser()
    if not path.exists():
        return Checkpoint(path, {}, None)
    config = read_config(path / CONFIG_FILE) if path.is_dir() else _read_metadata(path)[0]
    file = path / WEIGHTS_FILE if path.is_dir() else path
    return Checkpoint(path, _read_shapes(file) if file.exists() else {}, config)


def for_cameras(checkpoint: Checkpoint, views: int) -> Checkpoint:
    """The checkpoint, for a model of that many cameras.

    A model of one camera begins one of several: each view starts with what it knows of its own, and nothing tells them
    apart, since their embeddings are zero. Of any other number, the weights stay as they are.
    """
    if views == 1 or CAMERAS in checkpoint.weights or not checkpoint.sizes:
        return checkpoint
    embedding = torch.zeros(views, checkpoint.sizes["dim"])
    return replace(checkpoint, weights={**checkpoint.weights, CAMERAS: embedding})


def load_into(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights; raises `CheckpointError` naming the first tensors that do not fit."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')} in the file, {expected.get(name, 'nothing')} in the model"
        for name in (*expected, *(found.keys() - expected.keys()))
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        shown = "; ".join(wrong[:3])
        raise CheckpointError(
            f"The weights in {checkpoint.source} do not fit the model: {len(wrong)} tensors differ. {shown}. "
            + _advice(found, expected)
        )
    for name, tensor in checkpoint.weights.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{checkpoint.source}: {name} holds {tensor.dtype}, not floating-point weights.")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{checkpoint.source}: {name} holds NaN or infinite numbers; the file is damaged.")
    module.load_state_dict(dict(checkpoint.weights))


def _advice(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> str:
    """What to set so that the model has the file's sizes."""
    sizes, ours = _sizes(found), _sizes(expected)
    if not sizes:
        return "These are not weights of a WorldGym transformer."
    presets = published.fitting(sizes)
    if presets:
        return f"These are the sizes of published weights: set preset to {' or '.join(presets)}."
    views = found.get(CAMERAS, (1,))[0]
    if views != expected.get(CAMERAS, (1,))[0]:
        return (
            f"Set cameras to the {views} names of the cameras that they imagine." if views > 1 else "Leave cameras out."
        )
    pose, wanted = (shapes.get("pose_embedder.weight", (0, 1))[1] // (2 * POSE_WAVES) for shapes in (found, expected))
    if pose != wanted:
        return f"Set memory, and memory_pose to {pose} action dimensions." if pose else "Leave memory out."
    settings = [f"{name}={size}" for name, size in sizes.items() if size != ours[name]]
    return f"Set {' '.join(settings)}." if settings else "Is the file complete, and of this model?"


def _sizes(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The architecture that tensor shapes tell of; empty for those of another kind of model."""
    patches, action = shapes.get("x_proj.weight", ()), shapes.get("action_embedder.weight", ())
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    if len(patches) != 4 or len(action) != 2:
        return {}
    return {
        "dim": patches[0],
        "layers": len(blocks),
        "channels": patches[1],
        "patch_size": patches[2],
        "action_dim": action[1],
    }


def write(directory: Path, module: nn.Module, config: Sections, latents: str | None = None) -> None:
    """Write a checkpoint folder: a new one appears complete or not at all, an old one file by file.

    `latents` is the digest of the autoencoder on whose latents the module works.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        staging.chmod(0o755)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        save_weights(staging / WEIGHTS_FILE, weights, as_metadata(config, latents))
        (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if not directory.exists():
            staging.rename(directory)
            return
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            (staging / name).replace(directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    content = _read_file(path)
    if isinstance(content, Mapping):
        content = next((content[k] for k in ("ema", "model") if isinstance(content.get(k), Mapping)), content)
    if not (isinstance(content, Mapping) and content and all(isinstance(x, Tensor) for x in content.values())):
        raise CheckpointError(f"{path} holds no weights: expected named tensors, or a dict with `ema` or `model`.")
    named = {str(name).removeprefix("module."): tensor for name, tensor in content.items()}
    if len(named) < len(content):
        raise CheckpointError(f"{path} holds tensors of one name with and without `module.`: which ones are meant?")
    return named


def _read_shapes(path: Path) -> Mapping[str, Tensor]:
    """Tensors without numbers, of the file's names and shapes."""
    if path.suffix != ".safetensors":
        return {name: tensor.to("meta") for name, tensor in _read_weights(path).items()}
    with _opened(path) as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


def _read_metadata(path: Path) -> tuple[Sections | None, str | None]:
    """What the weights say of themselves, and the digest of their autoencoder."""
    if path.suffix != ".safetensors":
        return None, None
    with _opened(path) as file:
        metadata = file.metadata() or {}
    return read_metadata(metadata, path), metadata.get(LATENTS_KEY)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from None


def _read_file(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_mappable(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from None
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError on damaged files
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"Cannot read {path}: damaged, or not a file of plain tensors ({reason})") from None


def _mappable(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
