"""What a policy must be shown, from its config and the small files of its checkpoint: no weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.types import Needs
from gymnast_openvla_oft.checkpoint import STATISTICS_FILE, Source, open_source
from gymnast_openvla_oft.components import optional_part
from gymnast_openvla_oft.facts import Facts, Parts, find_facts
from gymnast_openvla_oft.normalisation import action_width, choose_statistics, count_readings
from gymnast_openvla_oft.weights import INDEX_FILE, WEIGHTS_FILE, read_json

SMALL_FILES = ("*.json", "proprio_projector--*")
"""What is fetched of a hub repository."""
PROJECTOR, HEAD, TOWERS = "proprio_projector", "action_head", "vision_backbone"


def find_needs(config: Any, *, parallel: bool = True) -> Needs:
    """What the policy of a `CheckpointConfig` needs; `parallel` as of `find_facts`.

    Raises `CheckpointError` where there is no such checkpoint, and `ConfigError` where only the user knows.
    """
    if config.checkpoint is None:
        facts = find_facts(config, {}, Parts(), "config.json", parallel=parallel)
        scratch = config.architecture
        width, readings = len(scratch.action_low), len(scratch.proprio_low)
        return needs_of(facts, width, readings, "policy.args.architecture", Parts())
    source = open_source(config.checkpoint, config.revision, config.base, files=SMALL_FILES)
    path, statistics = source.find("config.json"), source.find(STATISTICS_FILE)
    stated, parts = read_json(path), find_parts(source)
    facts = find_facts(config, stated, parts, str(path), parallel=parallel)
    norm_stats = read_json(statistics) if statistics.is_file() else stated.get("norm_stats", {})
    where = str(statistics) if statistics.is_file() else f"{path}: norm_stats"
    try:
        key, chosen = choose_statistics(norm_stats, config.unnorm_key, where)
    except ConfigError as error:
        raise ConfigError(f"{config.checkpoint}: {error}") from error
    where = f"{where}: {key}"
    bounds = facts.action_bounds
    readings = count_readings(chosen, bounds, where) if facts.proprio else 0
    return needs_of(facts, action_width(chosen, bounds, where), readings, where, parts)


def needs_of(facts: Facts, actions: int, readings: int, where: str, parts: Parts) -> Needs:
    """What a policy of these facts needs. Its statistics (`where`) know of actions of that width, and of `readings`, 0
    without.

    Raises `CheckpointError` or `ConfigError` if it reads proprioception that no statistics scale.
    """
    if facts.proprio and not readings:
        why = "The checkpoint has a proprio_projector" if parts.proprio else "policy.args.proprio is true"
        raise (CheckpointError if parts.proprio else ConfigError)(
            f"{why}, which needs statistics of proprioception, but those of {where} hold no 'proprio' entry."
        )
    return Needs(facts.cameras, proprio=readings if facts.proprio else None, actions=actions)


def find_parts(source: Source) -> Parts:
    """The optional parts that the files of a checkpoint hold, by their names."""
    names = {name for place in (source.directory, source.base) if place for name in _parts_in(place)}
    return Parts(proprio=PROJECTOR in names, original=bool(names & {HEAD, "film"}))


def _parts_in(directory: Path) -> set[str]:
    found = {component for component in (PROJECTOR, HEAD) if any(directory.glob(f"{component}--*"))}
    if any(directory.glob(f"{TOWERS}--*")):
        found.add("film")
    return found | {part for name in _names_of_weights(directory) if (part := optional_part(name)) is not None}


def _names_of_weights(directory: Path) -> list[str]:
    if (directory / WEIGHTS_FILE).is_file():
        try:
            with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError):
            return []  # loading says what is wrong with it
    if (directory / INDEX_FILE).is_file():
        weight_map = read_json(directory / INDEX_FILE).get("weight_map", {})
        return list(weight_map) if isinstance(weight_map, dict) else []
    return []
