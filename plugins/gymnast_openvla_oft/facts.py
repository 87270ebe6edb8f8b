"""What a policy was trained with and no tensor shows: how many images, how long a chunk, which crop.

Each fact comes from the options or from `config.json`, where `gymnast` writes it. Published checkpoints leave them out.
Those with files of the original OpenVLA-OFT (a regression head, FiLM) differ in them, so that they are asked for. The
others, which decide in tokens and have no such files, are taken for what all of that kind have been so far, and that is
logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.reading import JsonObject
from gymnast_openvla_oft.images import PREPARATIONS
from gymnast_openvla_oft.normalisation import BOUNDS

IMAGES_KEY = "num_images_in_input"
"""Key of `config.json` that remembers how many images a decision takes."""
CAMERAS_KEY = "cameras"
"""Key of `config.json` that remembers the cameras' names, where they had any."""
CHUNK_KEY = "num_actions_chunk"
"""Key of `config.json` that remembers the chunk length."""
PROPRIO_KEY = "use_proprio"
MAX_IMAGES, MAX_CHUNK = 16, 1000
USUAL: dict[str, Any] = {
    "images": 1,
    "chunk_length": 5,
    "center_crop": False,
    "preparation": "none",
    "action_bounds": "q99",
}
"""What checkpoints are trained with that decide in tokens: Bridge's, by SimpleVLA-RL and World-Gymnast."""
KEYS = {"images": IMAGES_KEY, "chunk_length": CHUNK_KEY}
"""Keys of `config.json` that are called otherwise than the option."""
ASKED = ("images", "chunk_length", "proprio")
"""What is asked for where a checkpoint has files of the original OpenVLA-OFT."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Which optional parts a checkpoint's files hold."""

    proprio: bool = False
    """A projector of proprioception."""
    original: bool = False
    """A regression head or FiLM: the original OpenVLA-OFT's training."""


@dataclass(frozen=True)
class Facts:
    """What a policy was trained with."""

    cameras: tuple[str, ...] | int
    """Names of the cameras in the policy's order, or their number."""
    chunk_length: int
    proprio: bool
    """Whether it reads proprioception."""
    center_crop: bool
    preparation: str
    action_bounds: str
    assumed: Mapping[str, Any]
    """Options that neither the user nor a file set, and what is taken for them."""
    contradicted: Mapping[str, Any]
    """Options that the user set otherwise than the file says, and what it says."""

    @property
    def images(self) -> int:
        return self.cameras if isinstance(self.cameras, int) else len(self.cameras)

    def tell(self, where: object) -> None:
        """Log what is assumed of a checkpoint, and what is used otherwise than it says."""
        if self.assumed:
            taken = " ".join(f"{name}={_spelt(value)}" for name, value in self.assumed.items())
            logger.warning(
                "%s does not say what the policy was trained with, so it is taken for one with %s. If it is another, "
                "set these under policy.args; set them anyway to silence this.",
                where,
                taken,
            )
        for name, value in self.contradicted.items():
            logger.warning("%s says %s=%s; the option is used instead.", where, name, _spelt(value))

    def entries(self) -> dict[str, Any]:
        """What a saved `config.json` says of them."""
        named = {CAMERAS_KEY: list(self.cameras)} if isinstance(self.cameras, tuple) else {}
        kept = {name: getattr(self, name) for name in ("center_crop", "preparation", "action_bounds")}
        return {IMAGES_KEY: self.images, CHUNK_KEY: self.chunk_length, PROPRIO_KEY: self.proprio, **kept, **named}


def find_facts(options: Any, config: Mapping[str, Any], parts: Parts, where: str, *, parallel: bool = True) -> Facts:
    """The facts of a `CheckpointConfig` and its checkpoint's `config.json` (`where`); plain OpenVLA is not `parallel`:
    it is always of one image and one action.

    Raises `ConfigError` for facts that only the user knows, and `CheckpointError` for what cannot be right in a file.
    """
    stated = JsonObject(dict(config), where, CheckpointError)
    said = _stated(stated)
    own = {name: getattr(options, name, None) for name in USUAL} | {"center_crop": _crop(options)}
    if options.cameras is not None:
        own["images"] = len(options.cameras)
    usual = dict(USUAL)
    if not parallel:
        said |= {"images": said["images"] or 1}
        own["chunk_length"], said["chunk_length"] = 1, None
    proprio = _proprio(options, stated, parts)
    unknown = [name for name in usual if own[name] is None and said[name] is None]
    if options.checkpoint is not None:
        _ask(where, parts, [*unknown, *(["proprio"] if proprio is None else [])])
    found = {name: _first(own[name], said[name], value) for name, value in usual.items()}
    images = found.pop("images")
    return Facts(
        cameras=_cameras(options, stated, images),
        proprio=bool(proprio),
        assumed={name: usual[name] for name in unknown} if options.checkpoint is not None else {},
        contradicted={
            name: said[name] for name in usual if None not in (own[name], said[name]) and own[name] != said[name]
        },
        **found,
    )


def _crop(options: Any) -> bool | None:
    """What the options say of the central crop: who learns from random crops acts on the central one, of their area.

    Raises `ConfigError` where they say the opposite, as the evaluations of OpenVLA(-OFT) assert.
    """
    if not options.imitation.oft_augmentation:
        return options.center_crop
    if options.center_crop is False:
        raise ConfigError(
            "policy.args.imitation.oft_augmentation trains on random crops of 90 % of an image's area, and with "
            "policy.args.center_crop=false the policy would act on whole images, in which all is smaller. Leave "
            "center_crop out, or set oft_augmentation=false."
        )
    return True


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _stated(stated: JsonObject) -> dict[str, Any]:
    """What `config.json` says of each fact, None where nothing."""
    return {
        "images": _images(stated),
        "chunk_length": stated.integer(CHUNK_KEY, Range(least=1, most=MAX_CHUNK), default=None),
        "center_crop": stated.flag("center_crop", default=None),
        "preparation": stated.text("preparation", PREPARATIONS, default=None),
        "action_bounds": stated.text("action_bounds", tuple(BOUNDS), default=None),
    }


def _images(stated: JsonObject) -> int | None:
    images = stated.integer(IMAGES_KEY, Range(least=1, most=MAX_IMAGES), default=None)
    cameras = stated.texts(CAMERAS_KEY, default=None)
    if cameras is None:
        return images
    if not cameras or len(set(cameras)) < len(cameras) or "" in cameras:
        stated.refuse(CAMERAS_KEY, f"is {cameras}; each camera must be named once")
    if images not in (None, len(cameras)):
        stated.refuse(IMAGES_KEY, f"is {images}, but {CAMERAS_KEY} names {len(cameras)}: {', '.join(cameras)}")
    return len(cameras)


def _cameras(options: Any, stated: JsonObject, images: int) -> tuple[str, ...] | int:
    named = options.cameras if options.cameras is not None else stated.values.get(CAMERAS_KEY)
    return tuple(named) if named is not None and len(named) == images else images


def _proprio(options: Any, stated: JsonObject, parts: Parts) -> bool | None:
    """Whether the policy reads proprioception; None where neither the files nor the options say it."""
    wanted = getattr(options, "proprio", False)
    says = stated.flag(PROPRIO_KEY, default=None)
    if parts.proprio:
        if wanted is False and hasattr(options, "proprio"):
            raise ConfigError(
                f"policy.args.proprio is false, but the checkpoint of {stated.place} has a proprio_projector: it was "
                "trained with proprioception. Leave proprio out."
            )
        return True
    if says:
        stated.refuse(PROPRIO_KEY, "is true, but there is no proprio_projector (proprio_projector--*_checkpoint.pt)")
    if wanted is None and (not parts.original or says is not None):
        return False
    return wanted


def _ask(where: str, parts: Parts, unknown: list[str]) -> None:
    asked = [name for name in ASKED if name in unknown]
    if parts.original and asked:
        raise ConfigError(
            f"{Path(where).parent} was trained with the original OpenVLA-OFT, and no file of it says "
            f"{', '.join(asked)}. Set {' and '.join(f'policy.args.{name}' for name in asked)}: the images a decision "
            "(or cameras), the actions a chunk (LIBERO 8, ALOHA 25), whether it reads proprioception."
        )


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
