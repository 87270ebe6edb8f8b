"""What a policy must be shown, from its config and the small files of its checkpoint: no weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.types import Needs
from gymnast_openvla_oft.checkpoint import STATISTICS_FILE, Source, open_source
from gymnast_openvla_oft.normalisation import choose_statistics
from gymnast_openvla_oft.weights import INDEX_FILE, WEIGHTS_FILE, read_json

IMAGES_KEY = "num_images_in_input"
"""Key of `config.json` that remembers how many images a decision takes; published checkpoints leave it to the user."""
CAMERAS_KEY = "cameras"
"""Key of `config.json` that remembers the cameras' names, where they had any."""
SMALL_FILES = ("*.json", "proprio_projector--*")
"""What is fetched of a hub repository."""
PROJECTOR = "proprio_projector."


@dataclass(frozen=True)
class Remembered:
    """What a checkpoint says of the observations that it was made for."""

    images: int | None = None
    cameras: tuple[str, ...] | None = None
    readings: int = 0
    """Proprioceptive readings in its statistics, 0 without."""
    reads_proprio: bool = False
    """Whether it has a projector of proprioception."""


def find_needs(config: Any) -> Needs:
    """What the policy of a `CheckpointConfig` needs. Raises `CheckpointError` where there is no such checkpoint."""
    if config.checkpoint is None:
        remembered = Remembered(readings=len(config.architecture.proprio_low))
    else:
        remembered = _remembered(config.checkpoint, config.revision, config.base, config.unnorm_key)
    cameras = find_cameras(config, remembered.images, remembered.cameras)
    reads_proprio = getattr(config, "proprio", False) or remembered.reads_proprio
    return Needs(cameras, proprio=(remembered.readings or None) if reads_proprio else None)


def find_cameras(config: Any, images: int | None, cameras: Sequence[str] | None) -> tuple[str, ...] | int:
    """Names of the cameras of a `CheckpointConfig`, or their number; `images` and `cameras` are what its checkpoint
    remembers."""
    if config.cameras is not None:
        return tuple(config.cameras)
    if cameras is not None and config.images in (None, len(cameras)):
        return tuple(cameras)
    return config.images or images or 1


def _remembered(checkpoint: str, revision: str | None, base: str | None, unnorm_key: str | None) -> Remembered:
    source = open_source(checkpoint, revision, base, files=SMALL_FILES)
    config = read_json(source.find("config.json"))
    statistics = source.find(STATISTICS_FILE)
    norm_stats = read_json(statistics) if statistics.is_file() else config.get("norm_stats", {})
    try:
        _, chosen = choose_statistics(norm_stats, unnorm_key)
    except (ConfigError, CheckpointError) as error:
        raise type(error)(f"{checkpoint}: {error}") from error
    cameras = config.get(CAMERAS_KEY)
    return Remembered(
        images=config.get(IMAGES_KEY),
        cameras=None if cameras is None else tuple(cameras),
        readings=len((chosen.get("proprio") or {}).get("q01", [])),
        reads_proprio=_has_projector(source),
    )


def _has_projector(source: Source) -> bool:
    directories = [source.directory] + ([] if source.base is None else [source.base])
    return any(any(directory.glob("proprio_projector--*")) or _weights_hold_it(directory) for directory in directories)


def _weights_hold_it(directory: Path) -> bool:
    if (directory / WEIGHTS_FILE).is_file():
        try:
            with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
                return any(name.startswith(PROJECTOR) for name in file.keys())  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError):
            return False  # loading says what is wrong with it
    if (directory / INDEX_FILE).is_file():
        return any(name.startswith(PROJECTOR) for name in read_json(directory / INDEX_FILE).get("weight_map", {}))
    return False
