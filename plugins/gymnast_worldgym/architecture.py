"""What defines a WorldGym network (stored with its weights) and how it is sampled (free to change)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar, cast

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_episodes.robots import robot
from gymnast_worldgym.codec import CODECS, Codec
from gymnast_worldgym.model import DiT
from gymnast_worldgym.schedule import TIMESTEPS

CHOICES = {
    "rope": ("standard", "pixel"),
    "prediction": ("v", "x0", "flow"),
    "codec": CODECS,
    "action_alignment": ("previous", "same"),
}


@dataclass(frozen=True)
class Architecture:
    """Fixed by training, kept in a checkpoint's `config.json`. `WorldGym.Config` documents the fields."""

    image_size: list[int] = field(default_factory=lambda: [32, 32])
    channels: int = 3
    patch_size: int = 8
    dim: int = 192
    layers: int = 4
    heads: int = 6
    action_dim: int = 10
    window: int = 8
    rope: str = "standard"
    prediction: str = "x0"
    codec: str = "pixels"
    robot: str | None = None
    robot_action_dim: int | None = None
    action_scale: list[float] = field(default_factory=lambda: [1.0])
    action_offset: list[float] = field(default_factory=lambda: [0.0])
    action_alignment: str = "previous"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(unknown_name(name, getattr(self, name), known))
        for name in ("channels", "patch_size", "dim", "layers", "heads", "action_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.window < 2:
            raise ConfigError(f"window is {self.window}; it must hold a context frame and a new one: at least 2.")
        if self.dim % (4 * self.heads):
            raise ConfigError(
                f"dim {self.dim} must be a multiple of 4·heads = {4 * self.heads} (rotary pairs on two axes)."
            )
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ConfigError(f"image_size is {list(self.image_size)}; it must be [height, width], pixels.")
        self._check_actions()

    def _check_actions(self) -> None:
        width = self.robot_action_dim
        if self.robot is not None:
            custom = (width, self.action_scale, self.action_offset)
            if custom != (None, [1.0], [0.0]):
                raise ConfigError(
                    f"robot {self.robot!r} already says how actions are scaled: leave out robot_action_dim, "
                    "action_scale and action_offset, or the robot."
                )
            width = robot(self.robot).width
        if width is not None and not 1 <= width <= self.action_dim:
            owner = "robot_action_dim is" if self.robot is None else f"robot {self.robot!r} has actions of width"
            raise ConfigError(f"{owner} {width}; it must lie between 1 and action_dim {self.action_dim}.")
        for name in ("action_scale", "action_offset"):
            if len(getattr(self, name)) not in {1, width}:
                raise ConfigError(
                    f"{name} has {len(getattr(self, name))} numbers; give 1, or robot_action_dim ({width}) of them."
                )

    def check_codec(self, codec: Codec) -> None:
        """Raises `ConfigError` if the codec's latents are not what the network takes."""
        side = self.patch_size * codec.factor
        if any(size % side for size in self.image_size):
            latent = f" times {codec.factor} pixels a latent pixel" if codec.factor > 1 else ""
            raise ConfigError(
                f"image_size {list(self.image_size)} must be [height, width], "
                f"multiples of patch_size {self.patch_size}{latent}."
            )
        if self.channels != codec.channels:
            raise ConfigError(
                f"channels is {self.channels}, but codec {self.codec!r} makes {codec.channels}: "
                f"set channels to {codec.channels}, or choose another codec."
            )

    def network(self) -> DiT.Config:
        names = [f.name for f in fields(DiT.Config)]
        return DiT.Config(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Sampling:
    """How frames are imagined; a checkpoint's `config.json` holds recommended values."""

    denoising_steps: int = 1
    guidance: float = 1.0
    stabilization_level: int = 14
    horizon: int | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.denoising_steps <= TIMESTEPS:
            raise ConfigError(f"denoising_steps is {self.denoising_steps}; it must lie between 1 and {TIMESTEPS}.")
        if not 0 <= self.stabilization_level < TIMESTEPS:
            raise ConfigError(
                f"stabilization_level is {self.stabilization_level}; it must lie between 0 and {TIMESTEPS - 1}."
            )
        if self.horizon is not None and self.horizon < 1:
            raise ConfigError(
                f"horizon is {self.horizon}; give at least 1, or null for the length of each action chunk."
            )


Part = TypeVar("Part")


def merge(
    part: type[Part], config: Any, stored: Mapping[str, Any] | None = None, preset: Mapping[str, Any] | None = None
) -> Part:
    """The preset's values under the stored ones under the user's (`None` is "not given"), over the defaults.

    A checkpoint fixes its architecture: raises `ConfigError` where the user's value differs.
    """
    stored = dict(stored or {})
    known = {f.name for f in fields(cast(Any, part))}
    for name in stored:
        if name not in known:
            raise ConfigError(
                f"The checkpoint's config.json: {unknown_name(part.__name__.lower() + ' key', name, known)}"
            )
    given = {name: _plain(getattr(config, name)) for name in known if getattr(config, name) is not None}
    if part is Architecture:
        for name in given.keys() & stored.keys():
            if given[name] != stored[name]:
                raise ConfigError(
                    f"{name} is {given[name]}, but the checkpoint was trained with {stored[name]}. "
                    f"Leave {name} out of the arguments."
                )
    advised = {name: value for name, value in (preset or {}).items() if name in known}
    return part(**{**advised, **stored, **given})


def as_dict(part: Any) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(part)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
