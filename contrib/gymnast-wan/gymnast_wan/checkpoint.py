"""Reading and writing weights: our folders, RLinf's files, and Wan as diffusers saves it. Nothing is unpickled."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from gymnast_core.errors import CheckpointError
from gymnast_core.hub import locate
from gymnast_core.reading import JsonObject, read_object
from gymnast_core.runs.weights import save_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gymnast_wan.facts import FRAMES_A_LATENT, Architecture, Conduct
from gymnast_wan.network import CONDITIONER

CONFIG_FILE, WEIGHTS_FILE, VAE_FOLDER = "config.json", "model.safetensors", "vae"
RLINF_FILES = "model-*.safetensors"
FILES = [CONFIG_FILE, WEIGHTS_FILE, RLINF_FILES, "transformer/*.json", "transformer/*.safetensors"]
"""What is downloaded of a repository."""
ACTIONS = {"action_mlp1.": f"{CONDITIONER}.tokens.", "action_mlp2.": f"{CONDITIONER}.frames."}
"""RLinf's names of what embeds actions, and ours."""
TEXT = f"{CONDITIONER}.text_embedder."
"""Weights that Wan has for texts, which actions replace."""
INTEGERS = {"latent_channels", "dim", "layers", "heads", "ffn_dim", "freq_dim", "action_dim", "context", "chunk"}


@dataclass(frozen=True)
class Checkpoint:
    """Weights by our names, and what is known of them."""

    source: str
    weights: dict[str, Tensor]
    stored: Mapping[str, Any] = field(default_factory=dict)
    """What its config.json says, by field name."""
    vae: Path | None = None
    """Its own autoencoder, if it has one."""
    latents: str | None = None
    """Digest of the autoencoder on whose latents it works; None: it does not say."""
    is_base: bool = False
    """Wan's own weights, which know no actions yet."""


def read(name: str, revision: str | None) -> Checkpoint:
    """Read a folder, a file or a repository.

    A folder holds `config.json` and `model.safetensors` (`gymnast fit` wrote it), `model-00001.safetensors`, … (RLinf)
    or a Wan pipeline or transformer as diffusers saves it; a file is a `.safetensors` or a `.pt` of plain tensors with
    RLinf's names. Raises `CheckpointError` for anything else.
    """
    path = locate(name, revision, files=FILES, key="world_model.args.checkpoint", takes_file=True)
    if path.is_file():
        return Checkpoint(str(path), _from_rlinf(_read_file(path)))
    if (path / WEIGHTS_FILE).is_file():
        return _read_ours(path)
    shards = sorted(path.glob(RLINF_FILES))
    if shards:
        return Checkpoint(str(path), _from_rlinf(_joined(shards)))
    for folder in (path / "transformer", path):
        if (folder / CONFIG_FILE).is_file():
            return _read_wan(folder)
    raise CheckpointError(
        f"{path} holds no checkpoint: there is no {WEIGHTS_FILE} (as gymnast fit writes it), no {RLINF_FILES} (RLinf) "
        "and no transformer/ (Wan as diffusers saves it)."
    )


def write(directory: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], vae: Any | None) -> None:
    """Write a checkpoint folder: a new one appears complete or not at all, an old one file by file.

    `vae` is an autoencoder to keep beside the weights; None: config says where it lies.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        staging.chmod(0o755)
        save_weights(staging / WEIGHTS_FILE, weights)
        (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if vae is not None:
            vae.save_pretrained(staging / VAE_FOLDER)
        if not directory.exists():
            staging.rename(directory)
            return
        if vae is not None:
            shutil.rmtree(directory / VAE_FOLDER, ignore_errors=True)
            (staging / VAE_FOLDER).rename(directory / VAE_FOLDER)
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            (staging / name).replace(directory / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sizes(weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """What the tensors show of the architecture. Raises `CheckpointError` for those of another kind of model."""
    names = ("patch_embedding.weight", f"{CONDITIONER}.time_embedder.linear_1.weight", "blocks.0.ffn.net.0.proj.weight")
    if any(name not in weights for name in names):
        raise CheckpointError(f"{source} does not hold the weights of a Wan transformer.")
    patches, times, forward = (weights[name].shape for name in names)
    found = {
        "dim": patches[0],
        "latent_channels": patches[1],
        "freq_dim": times[1],
        "ffn_dim": forward[0],
        "layers": len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
    }
    tokens, frames = (weights.get(f"{CONDITIONER}.{name}.0.weight") for name in ("tokens", "frames"))
    if tokens is not None:
        found["action_dim"] = tokens.shape[1]
    elif frames is not None:
        found["action_dim"] = frames.shape[1] // FRAMES_A_LATENT
    if tokens is None and frames is None:
        return found
    way = "both" if tokens is not None and frames is not None else "modulation" if tokens is None else "tokens"
    return {**found, "conditioning": way}


def fitted(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's weights, if they are those that the model has. Raises `CheckpointError` naming the first ones
    that are not, or that are damaged."""
    ours = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')} in the file, {ours.get(name, 'nothing')} in the model"
        for name in (*ours, *(found.keys() - ours.keys()))
        if found.get(name) != ours.get(name)
    ]
    if wrong:
        raise CheckpointError(
            f"The weights in {checkpoint.source} do not fit the model: {len(wrong)} tensors differ. "
            f"{'; '.join(wrong[:3])}. Is the file complete, and of an action-conditioned Wan?"
        )
    for name, tensor in checkpoint.weights.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{checkpoint.source}: {name} does not hold finite floating-point numbers; the file is damaged."
            )
    return checkpoint.weights


def _read_ours(path: Path) -> Checkpoint:
    config = read_object(path / CONFIG_FILE, CheckpointError)
    stored: dict[str, Any] = {}
    for section, schema in (("architecture", Architecture), ("conduct", Conduct)):
        values = config.object(section)
        for item in fields(schema):  # type: ignore[arg-type]
            stored[item.name] = _value(values, item.name)
    place = config.object("autoencoder")
    source = place.text("vae", default=None)
    if source is not None:
        stored |= {"vae": source, "vae_revision": place.text("vae_revision", default=None)}
    own = path / VAE_FOLDER if (path / VAE_FOLDER / CONFIG_FILE).is_file() else None
    weights = _read_file(path / WEIGHTS_FILE)
    return Checkpoint(str(path), weights, stored, own, place.text("latents"))


def _value(values: JsonObject, name: str) -> Any:
    if name == "image_size" and values[name] is None:
        return None
    if name in INTEGERS or name == "denoising_steps":
        return values.integer(name)
    if name in ("conditioning", "lead_in"):
        return values.text(name)
    if name == "image_size":
        return values.integers(name)
    return values.number(name) if name == "shift" else values.numbers(name)


def _from_rlinf(content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RLinf's names (those of Wan's own release, and `action_mlp1`, `action_mlp2`) to ours."""
    named = {re.sub(r"^(pipe\.)?(dit\.)?", "", name): tensor for name, tensor in content.items()}
    renamed = convert_wan_transformer_to_diffusers(named)
    for theirs, ours in ACTIONS.items():
        renamed = {
            ours + name.removeprefix(theirs) if name.startswith(theirs) else name: tensor
            for name, tensor in renamed.items()
        }
    return _without_text(renamed)


def _without_text(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith(TEXT)}


def _read_wan(folder: Path) -> Checkpoint:
    """Wan's own transformer as diffusers saves it, to be fitted to actions."""
    config = read_object(folder / CONFIG_FILE, CheckpointError)
    kind = config.values.get("_class_name")
    if kind != WanTransformer3DModel.__name__:
        raise CheckpointError(f"{folder} holds a {kind}, not a {WanTransformer3DModel.__name__}.")
    if config.values.get("image_dim") is not None or config.values.get("added_kv_proj_dim") is not None:
        raise CheckpointError(
            f"{folder} takes a picture beside its latents (image_dim). Use a Wan that does not: Wan 2.2 TI2V, or T2V."
        )
    try:
        loaded: Any = WanTransformer3DModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # diffusers raises whatever its loaders meet, SafetensorError to AttributeError
        raise CheckpointError(f"{folder} cannot be loaded as Wan: {type(error).__name__}: {error}") from error
    transformer, report = loaded
    if report["missing_keys"]:
        raise CheckpointError(f"{folder} lacks weights, e.g. {sorted(report['missing_keys'])[0]}: download it again.")
    facts = {"heads": int(transformer.config.num_attention_heads)}
    weights = {name: tensor.detach() for name, tensor in transformer.state_dict().items()}
    return Checkpoint(str(folder), _without_text(weights), facts, is_base=True)


def _joined(files: list[Path]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for file in files:
        part = _read_file(file)
        twice = joined.keys() & part.keys()
        if twice:
            raise CheckpointError(f"{file} holds {sorted(twice)[0]}, which another file beside it holds, too.")
        joined |= part
    return joined


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete file of weights: {error}") from None
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"{path} is not read: it is damaged, or reading it would run code that it holds ({reason}). Ask for "
            "safetensors, or save its state_dict() as such where you trust it."
        ) from None
    if not (isinstance(content, Mapping) and content and all(isinstance(x, Tensor) for x in content.values())):
        raise CheckpointError(f"{path} holds no weights: expected named tensors, a state_dict().")
    return dict(content)
