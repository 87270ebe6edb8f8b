"""What a model is and how it is run: from the user's word, the checkpoint and a preset, with nothing guessed.

A checkpoint's tensors show sizes; a folder's `config.json` (and our weights' metadata) the rest. Bare weights, as
WorldGym publishes them, do not say how many heads there are, what is predicted or how positions are encoded: with any
of these wrong, the weights load and every frame is wrong. They are asked for, all at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.types import Offers
from gymnast_episodes.robots import robot
from gymnast_worldgym import published
from gymnast_worldgym.architecture import Architecture, Sampling, given, merge
from gymnast_worldgym.checkpoint import CONFIG_FILE, Checkpoint, describe, existing
from gymnast_worldgym.effects import check_effects
from gymnast_worldgym.training import TrainingConfig
from gymnast_worldgym.vae import Autoencoder

log = logging.getLogger(__name__)

ASKED = {
    "image_size": "[height, width] of its frames, pixels",
    "heads": "attention heads, often dim / 64",
    "window": "frames it sees at once, as in training",
    "rope": "spatial positions: standard or pixel",
    "prediction": "what it predicts: v, x0, flow or change",
    "denoising_steps": "sampler steps a frame, often 10",
    "codec": "latents: autoencoder-kl or pixels",
    "vae": "the autoencoder of its latents: a folder or a Hugging Face repository",
}
"""What no tensor shows and every frame depends on."""
SIZES = {
    "channels": "latent channels",
    "patch_size": "side of a patch, latent pixels",
    "dim": "width",
    "layers": "layers",
    "action_dim": "width of its actions",
}
"""What the tensors show, once they can be read."""
TOLD = {
    "codec": "pixels",
    "guidance": 1.0,
    "stabilization_level": 14,
    "action_scale": [1.0],
    "action_offset": [0.0],
    "action_alignment": "previous",
}
"""What no tensor shows either and has a usual value: taken for bare weights, and said."""
SCALING = ("robot_action_dim", "action_scale", "action_offset")


@dataclass(frozen=True)
class Settings:
    """Everything that a world is built from."""

    architecture: Architecture
    sampling: Sampling
    autoencoder: Autoencoder
    training: TrainingConfig


def settle(config: Any, saved: Checkpoint | None) -> Settings:
    """The settings of a `WorldGym.Config` and the checkpoint that it names (None: random weights).

    Below the user's values come those of the checkpoint's `config.json`, of its tensors, of the preset, and, for random
    weights only, the defaults. Raises `ConfigError` where they contradict each other, where an option would be without
    effect, and, naming all of them, for facts about a checkpoint that nobody states; `CheckpointError` for a
    `config.json` that contradicts its weights.
    """
    preset = published.preset(config.preset)
    if config.robot is None and any(getattr(config, name) is not None for name in SCALING):
        preset.pop("robot", None)  # the user's own scaling replaces it
    stored: Mapping[str, Mapping[str, Any]] = (saved.config if saved else None) or {}
    architecture = dict(stored.get("architecture", {}))
    if saved is not None:
        _check_sizes(config, saved, architecture, preset)
        _check_fixed(config, architecture)
        if saved.config is None:
            architecture = dict(saved.sizes)
            _ask(config, saved, {**preset, **architecture})
        elif config.preset is not None:
            _tell_overruled(config.preset, preset, {**architecture, **stored.get("sampling", {})})
    settings = Settings(
        merge(Architecture, config, architecture, preset),
        merge(Sampling, config, stored.get("sampling"), preset),
        merge(Autoencoder, config, stored.get("autoencoder"), preset),
        merge(TrainingConfig, config, preset=preset),
    )
    check_effects(config, settings.architecture, settings.sampling, settings.training, saved is not None)
    return settings


def offered(config: Any) -> Offers:
    """The cameras' names, where the world of a `WorldGym.Config` has some, and the width of its robot's actions, where
    one is set; without, it takes any up to the model's own.

    Raises `CheckpointError` if there is no checkpoint, `ConfigError` if there is no such preset or robot.
    """
    stored: Mapping[str, Any] = {}
    if config.checkpoint is not None:
        stored = (describe(existing(config.checkpoint)).config or {}).get("architecture", {})
    facts = {**published.preset(config.preset), **stored, **given(Architecture, config)}
    if config.robot is None and any(getattr(config, name) is not None for name in SCALING):
        facts.pop("robot", None)
    name, width = facts.get("robot"), facts.get("robot_action_dim")
    cameras = facts.get("cameras")
    return Offers(tuple(cameras) if cameras else 1, actions=width if name is None else robot(name).width)


def _check_sizes(config: Any, saved: Checkpoint, stored: Mapping[str, Any], preset: Mapping[str, Any]) -> None:
    """What is said of sizes, against the tensors."""
    if not saved.weights:  # a memory plan before the weights are there
        return
    if not saved.sizes:
        raise CheckpointError(f"{saved.source} does not hold the weights of a WorldGym transformer.")
    said = given(Architecture, config)
    for name, size in saved.sizes.items():
        if stored.get(name, size) != size:
            raise CheckpointError(
                f"{saved.source / CONFIG_FILE}: architecture.{name} is {stored[name]}, but its weights have {size}. "
                "The file was changed or belongs to another checkpoint: copy the folder again."
            )
        if said.get(name, size) != size:
            raise ConfigError(
                f"{name} is {said[name]}, but the weights in {saved.source} have {size}. Leave {name} out of the "
                "arguments: it is read from the weights."
            )
        if not stored and name not in said and preset.get(name, size) != size:
            fitting = published.fitting(saved.sizes)
            advice = f"These are the sizes of {' and '.join(fitting)}." if fitting else "Leave preset out."
            raise ConfigError(
                f"preset {config.preset} is of weights with {name}={preset[name]}, those in {saved.source} have "
                f"{size}. {advice}"
            )


def _check_fixed(config: Any, stored: Mapping[str, Any]) -> None:
    """A checkpoint fixes its architecture, but for what its only camera is called, and whether others join it."""
    for name, value in given(Architecture, config).items():
        if name == "cameras" and _may_become(stored.get(name, []), value):
            continue
        if name in stored and value != stored[name]:
            raise ConfigError(
                f"{name} is {value}, but the checkpoint was trained with {stored[name]}. "
                f"Leave {name} out of the arguments."
            )


def _may_become(trained: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a model that was trained on these cameras may begin one of the others: `checkpoint.for_cameras`."""
    return not trained or (len(trained) == 1 and trained[0] in wanted)


def _ask(config: Any, saved: Checkpoint, known: Mapping[str, Any]) -> None:
    """Bare weights: refuse what nobody says, and tell what is taken for granted."""
    own = {item.name: getattr(config, item.name) for item in fields(config)}
    said = {name: value for name, value in {**known, **_without_none(own)}.items() if value is not None}
    codec = said.get("codec", "pixels" if said.get("channels") == 3 else None)
    needed = {**ASKED, **({} if saved.weights else SIZES)}
    if codec is not None:
        needed.pop("codec")
    if codec == "pixels":
        needed.pop("vae")
    asked = [name for name in needed if name not in said]
    if asked:
        raise ConfigError(_question(asked, saved))
    taken = {name: value for name, value in TOLD.items() if name not in said}
    if said["prediction"] == "flow":
        taken.pop("stabilization_level", None)
    if "robot" in said:
        for name in SCALING:
            taken.pop(name, None)
    if taken:
        units = " Actions are then in the model's units; robot=NAME scales a known robot's."
        log.warning(
            "%s holds weights alone. What nobody says is taken to be %s (action_alignment is for training only).%s "
            "Say it in world_model.args, or set a preset.",
            saved.source,
            ", ".join(f"{name}={value}" for name, value in taken.items()),
            units if "action_scale" in taken else "",
        )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _question(asked: list[str], saved: Checkpoint) -> str:
    """What to say: every fact, what it means, and its value in the presets."""
    presets = {name: published.preset(name) for name in published.names()}
    meaning, lines = {**ASKED, **SIZES}, []
    for name in asked:
        by_value: dict[str, list[str]] = {}
        for preset, values in presets.items():
            by_value.setdefault(str(values[name]), []).append(preset)
        typical = ", ".join(f"{value} in {' and '.join(names)}" for value, names in by_value.items())
        lines.append(f"{name} ({meaning[name]}; {typical})")
    sizes = ", ".join(f"{name}={size}" for name, size in saved.sizes.items())
    fitting = published.fitting(saved.sizes) if saved.sizes else list(presets)
    advice = f"Set preset to {' or '.join(fitting)}, or say" if fitting else "The presets are of other sizes: say"
    beside = saved.source.parent / CONFIG_FILE
    folder = f" Or give the folder {beside.parent}, whose {CONFIG_FILE} may know." if beside.is_file() else ""
    shows = f"holds weights alone. They show {sizes}" if saved.weights else "cannot be read yet, so nothing is known"
    return f"{saved.source} {shows}, but not {'; '.join(lines)}. {advice} each as world_model.args.NAME=VALUE.{folder}"


def _tell_overruled(name: str, preset: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    overruled = [f"{key}={stored[key]}" for key in preset if key in stored and stored[key] != preset[key]]
    if overruled:
        log.warning("The checkpoint's config.json goes before preset %s: %s.", name, ", ".join(overruled))
