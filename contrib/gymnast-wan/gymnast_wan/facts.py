"""What a model is and how it is run: from the user's word, the checkpoint and a preset, with nothing guessed.

Bare weights, as RLinf publishes them, show their sizes; not how many heads there are, how many frames they were trained
on, or in which units actions come. With any of these wrong, the weights load and every frame is wrong: they are asked
for, all at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from gymnast_core.config.ranges import AnyNumber, Choices, Count, Positive, Range, check_values
from gymnast_core.errors import CheckpointError, ConfigError, unknown_name

FRAMES_A_LATENT = 4
"""Frames that Wan's autoencoders merge into one, after the first, which stays alone."""
RANDOM = "random"
"""Name of an autoencoder with random weights."""
PATCH = 2
"""Side of the transformer's patches, latent pixels."""

Size = Annotated[int, Range(least=1, most=2**16)]
Conditioning = Annotated[str, Choices("both", "tokens", "modulation")]
LeadIn = Annotated[str, Choices("zeros", "repeat")]
Steps = Annotated[int, Range(least=1, most=1000)]
Pixels = Annotated[int, Range(least=1, most=2**14)]

Part = TypeVar("Part")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer. Patches of 1 x 2 x 2 and eps 1e-6, as all Wan models have them."""

    latent_channels: Size
    dim: Size
    layers: Size
    heads: Size
    ffn_dim: Size
    freq_dim: Size
    action_dim: Size
    conditioning: Conditioning

    def __post_init__(self) -> None:
        check_values(Architecture, asdict(self))
        if self.dim % self.heads or (self.dim // self.heads) % 2 or self.dim // self.heads < 6:
            raise ConfigError(
                f"dim {self.dim} does not divide into {self.heads} heads of an even width of 6 or more. Wan's heads "
                "are 128 wide: set heads to dim / 128."
            )
        if self.freq_dim % 2:
            raise ConfigError(f"freq_dim is {self.freq_dim}; it must be even.")


@dataclass(frozen=True)
class Conduct:
    """How frames are imagined: what the transformer is shown, and the sampler."""

    context: Count
    chunk: Count
    lead_in: LeadIn
    rest_action: list[AnyNumber]
    action_scale: list[AnyNumber]
    action_offset: list[AnyNumber]
    shift: Positive
    denoising_steps: Steps
    image_size: list[Pixels] | None = None

    def __post_init__(self) -> None:
        check_values(Conduct, asdict(self))
        if self.context % FRAMES_A_LATENT != 1:
            raise ConfigError(
                f"context is {self.context} frames; the autoencoder takes 1, 5, 9, …: one, then groups of four."
            )
        if self.chunk % FRAMES_A_LATENT:
            raise ConfigError(f"chunk is {self.chunk} actions; it must be a multiple of {FRAMES_A_LATENT}.")
        if self.image_size is not None and len(self.image_size) != 2:
            raise ConfigError(f"image_size has {len(self.image_size)} numbers; give height and width, pixels.")


@dataclass(frozen=True)
class VaeSource:
    """Where the autoencoder lies."""

    vae: str | None = None
    """Folder or repository; None: the folder vae/ of the checkpoint."""
    vae_revision: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that a world is built from."""

    architecture: Architecture
    conduct: Conduct
    vae: VaeSource


ASKED = {
    "latent_channels": "channels of a latent",
    "dim": "width of the transformer",
    "layers": "its layers",
    "heads": "its attention heads, dim / 128 in all of Wan's",
    "ffn_dim": "width of its feed-forward layers",
    "freq_dim": "numbers that describe a time",
    "action_dim": "width of an action",
    "conditioning": "where actions enter: both, tokens or modulation",
    "context": "frames that it is shown: the episode's first, then the last ones; 5 in WoVR",
    "chunk": "actions imagined at once, as in training; 8 in WoVR",
    "lead_in": "what stands before the first action, which three are missing for a group of four: zeros or repeat",
    "rest_action": "the action that leaves the robot where it is, in the model's units",
    "action_scale": "model units per robot unit, one for all or one a dimension",
    "action_offset": "added after scaling, model units",
    "shift": "timestep shift of the flow, 5 in WoVR",
    "denoising_steps": "sampler steps a chunk, 5 in WoVR",
    "vae": "the autoencoder: a folder as diffusers saves it or a repository, e.g. Wan-AI/Wan2.2-TI2V-5B-Diffusers",
}
"""What every frame depends on."""


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The settings of `presets.yaml`, by name."""
    return yaml.safe_load(resources.files(__package__).joinpath("presets.yaml").read_text(encoding="utf-8"))


def preset(name: str | None) -> dict[str, Any]:
    """Field values of a preset; none without a name. Raises `ConfigError` that lists the known ones."""
    if name is None:
        return {}
    if name not in presets():
        raise ConfigError(unknown_name("preset", name, presets()))
    return dict(presets()[name])


def settle(config: Any, source: str, sizes: Mapping[str, Any], stored: Mapping[str, Any], own_vae: bool) -> Settings:
    """The settings of a `Wan.Config`: the user's values, above the checkpoint's, above the preset's.

    `source` names the checkpoint in errors; `sizes` is what its tensors show, `stored` what its config.json says
    (flat), `own_vae` whether it holds its autoencoder. Raises `ConfigError` for values that contradict the tensors and,
    naming all of them, for what nobody says; `CheckpointError` for a config.json that contradicts its weights.
    """
    said = {name: value for name in ASKED if (value := getattr(config, name)) is not None}
    known = {**preset(config.preset), **stored, **sizes, **said}
    for name, size in sizes.items():
        if stored.get(name, size) != size:
            raise CheckpointError(
                f"The config.json beside {source} says {name}={stored[name]}, its weights have {size}. The file was "
                "changed or belongs to another checkpoint: copy the folder again."
            )
        if known[name] != size:
            raise ConfigError(
                f"{name} is {known[name]}, but the weights in {source} have {size}. Leave {name} out of the arguments."
            )
    if config.image_size is not None:
        known["image_size"] = config.image_size
    asked = [name for name in ASKED if name not in known and not (name == "vae" and own_vae)]
    if asked:
        lines = "; ".join(f"{name} ({ASKED[name]})" for name in asked)
        raise ConfigError(
            f"Not known of {source}: {lines}. Say each as world_model.args.NAME=VALUE, or choose a preset that does: "
            f"{', '.join(presets())}."
        )
    architecture, conduct = _part(Architecture, known), _part(Conduct, known)
    _check_widths(architecture, conduct)
    return Settings(architecture, conduct, _vae_source(config, known, stored, own_vae))


def flat(settings: Settings) -> dict[str, Any]:
    """The settings by field name, as `settle` takes them back."""
    return {**asdict(settings.architecture), **asdict(settings.conduct)}


def _vae_source(config: Any, known: Mapping[str, Any], stored: Mapping[str, Any], own_vae: bool) -> VaeSource:
    """Where the autoencoder lies: the user's value of each field, else what the checkpoint says; a revision that it
    says is of its own repository, and not of another. Raises `ConfigError` for a revision of what has none."""
    place, revision = known.get("vae"), config.vae_revision
    if own_vae and config.vae is None:
        place = None
    if revision is not None and (place in (None, RANDOM) or Path(place).expanduser().exists()):
        lies = "the checkpoint's own" if place is None else "random" if place == RANDOM else f"the folder {place}"
        raise ConfigError(f"vae_revision is of a Hugging Face repository; the autoencoder is {lies}. Leave it out.")
    if revision is None and place is not None and place == stored.get("vae"):
        revision = stored.get("vae_revision")
    return VaeSource(place, revision)


def _part(schema: type[Part], known: Mapping[str, Any]) -> Part:
    return schema(**{item.name: known[item.name] for item in fields(schema) if item.name in known})  # type: ignore[arg-type]


def _check_widths(architecture: Architecture, conduct: Conduct) -> None:
    width = architecture.action_dim
    for name in ("rest_action", "action_scale", "action_offset"):
        count = len(getattr(conduct, name))
        if count != width and not (count == 1 and name != "rest_action"):
            raise ConfigError(f"{name} has {count} numbers; the model's actions have {width} dimensions.")
