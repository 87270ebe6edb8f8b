"""What a checkpoint says of itself: the sections of its `config.json`, with every key and type checked.

The same sections are written into the weights file (metadata of safetensors): weights that lie elsewhere still say what
they are, and a `config.json` that was changed or belongs to other weights is found out.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnast_core.config.presets import checkpoint_advice
from gymnast_core.config.ranges import Choices, Range, declaration, element, hints, plain
from gymnast_core.errors import CheckpointError, GymnastError, unknown_name
from gymnast_core.reading import JsonObject, as_object, parse_json, read_object
from gymnast_worldgym.architecture import Architecture, Sampling
from gymnast_worldgym.vae import Autoencoder

PARTS: dict[str, Any] = {"architecture": Architecture, "sampling": Sampling, "autoencoder": Autoencoder}
LATER = {"robot", "cameras", "memory", "memory_pose", "memory_every"}
"""Keys that earlier checkpoints lack, where the default says what they were."""
METADATA_KEY = "gymnast_worldgym"

LATENTS_KEY = "gymnast_worldgym_latents"
"""Of the weights' metadata: digest of the autoencoder on whose latents they were trained."""

Sections = Mapping[str, Mapping[str, Any]]


def read_config(path: Path) -> Sections:
    """The sections of a `config.json`. Raises `CheckpointError` that names the file and the key."""
    if not path.exists():
        raise CheckpointError(
            f"The checkpoint folder {path.parent} has no {path.name}. {checkpoint_advice(path.parent, 'worldgym')}"
        )
    return _sections(read_object(path, CheckpointError))


def read_metadata(metadata: Mapping[str, str] | None, path: Path) -> Sections | None:
    """The sections in a weights file's metadata; None where there are none. Raises `CheckpointError`."""
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        return None
    place = f"{path} (metadata)"
    return _sections(as_object(parse_json(text, place, CheckpointError), place, CheckpointError))


def as_metadata(sections: Sections, latents: str | None) -> dict[str, str]:
    """What `read_metadata` reads, and the digest of the autoencoder if there is one."""
    return {METADATA_KEY: json.dumps(sections), **({} if latents is None else {LATENTS_KEY: latents})}


def check_same_model(config: Sections, metadata: Sections | None, path: Path) -> None:
    """Raises `CheckpointError` if `config.json` describes another network than the weights' own metadata.

    The other sections may be edited: how frames are imagined, and where the autoencoder lies.
    """
    saved = None if metadata is None else metadata["architecture"]
    if saved is None:
        return
    found = config["architecture"]
    for name in hints(Architecture):
        if found.get(name) != saved.get(name):
            raise CheckpointError(
                f"{path}: architecture.{name} is {found.get(name)!r}, but its weights were saved with "
                f"{saved.get(name)!r}. The file was changed or belongs to another checkpoint: copy the folder again."
            )


def _sections(whole: JsonObject) -> Sections:
    if "architecture" not in whole:
        advice = checkpoint_advice(Path(whole.place).parent, "worldgym")
        raise CheckpointError(f"{whole.place} describes no WorldGym model (no architecture). {advice}")
    _check_names(whole, PARTS)
    learned = whole.object("architecture").values.get("codec") == "autoencoder-kl"
    needed = ("architecture", "sampling", *(["autoencoder"] if learned else []))
    sections = {
        name: _values(whole.object(name), part) for name, part in PARTS.items() if name in needed or name in whole
    }
    for name, values in sections.items():
        try:
            PARTS[name](**values)
        except GymnastError as error:
            raise CheckpointError(f"{whole.place}: {name}: {error}") from None
    return sections


def _values(section: JsonObject, part: Any) -> dict[str, Any]:
    known = hints(part)
    _check_names(section, known)
    return {name: _value(section, name, hint) for name, hint in known.items() if name in section or name not in LATER}


def _value(section: JsonObject, name: str, hint: Any) -> Any:
    """A value as its field declares it; null only where the field may be None."""
    if section[name] is None and type(None) in typing.get_args(hint):
        return None
    inner, kind = element(hint), plain(hint)
    declared = declaration(hint) if inner is None else declaration(inner)
    range_ = declared if isinstance(declared, Range) else None
    if inner is not None and plain(inner) is str:
        return section.texts(name)
    if inner is not None:
        return section.integers(name, range_) if plain(inner) is int else section.numbers(name, range_)
    if kind is bool:
        return section.flag(name)
    if kind is int:
        return section.integer(name, range_)
    if kind is float:
        return section.number(name, range_)
    return section.text(name, declared.values if isinstance(declared, Choices) else ())


def _check_names(found: JsonObject, known: Mapping[str, Any]) -> None:
    for name in found.values:
        if name not in known:
            raise CheckpointError(f"{found.place}: {unknown_name('key', name, known)}")
