"""What defines a WorldGym network (stored with its weights) and how it is sampled (free to change)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar, cast

from gymnast_core.config.ranges import AnyNumber, check_values
from gymnast_core.errors import ConfigError
from gymnast_core.rollouts.open_loop import Chunks
from gymnast_episodes.robots import robot
from gymnast_worldgym.codec import Codec
from gymnast_worldgym.model import DiT
from gymnast_worldgym.pose_memory import PoseMemory
from gymnast_worldgym.quantities import (
    ActionIndex,
    ActionWidth,
    Alignment,
    Channels,
    CodecName,
    DenoisingSteps,
    Every,
    Guidance,
    Heads,
    Horizon,
    Layers,
    Level,
    Memory,
    Patch,
    Pixels,
    Prediction,
    Rope,
    Width,
    Window,
)

CHUNKS = Chunks(4)
"""How recorded actions are given in validation. Any number of them can be imagined at once."""


@dataclass(frozen=True)
class Architecture:
    """Fixed by training, kept in a checkpoint's `config.json`. `WorldGym.Config` documents the fields."""

    image_size: list[Pixels] = field(default_factory=lambda: [32, 32])
    channels: Channels = 3
    patch_size: Patch = 8
    dim: Width = 192
    layers: Layers = 4
    heads: Heads = 6
    action_dim: ActionWidth = 10
    window: Window = 8
    rope: Rope = "standard"
    prediction: Prediction = "x0"
    codec: CodecName = "pixels"
    robot: str | None = None
    robot_action_dim: ActionWidth | None = None
    action_scale: list[AnyNumber] = field(default_factory=lambda: [1.0])
    action_offset: list[AnyNumber] = field(default_factory=lambda: [0.0])
    action_alignment: Alignment = "previous"
    cameras: list[str] = field(default_factory=list)
    memory: Memory = 0
    memory_pose: list[ActionIndex] = field(default_factory=list)
    memory_every: Every = 1

    def __post_init__(self) -> None:
        check_values(Architecture, asdict(self))
        if len(set(self.cameras)) < len(self.cameras) or not all(self.cameras):
            raise ConfigError(f"cameras is {list(self.cameras)}; give each one a name of its own.")
        if self.dim % (4 * self.heads):
            raise ConfigError(
                f"dim {self.dim} must be a multiple of 4·heads = {4 * self.heads} (rotary pairs on two axes)."
            )
        if len(self.image_size) != 2:
            raise ConfigError(f"image_size is {list(self.image_size)}; it must be [height, width], pixels.")
        self._check_actions()
        self._check_memory()

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

    def _check_memory(self) -> None:
        dims = list(self.memory_pose)
        if not self.memory:
            if dims or self.memory_every != 1:
                raise ConfigError("memory_pose and memory_every have no effect without memory: set memory to a number.")
            return
        if self.memory > self.window - 2:
            raise ConfigError(
                f"memory is {self.memory}, but a window of {self.window} frames holds at most {self.window - 2} "
                "remembered ones beside one of context and a new one."
            )
        width = self.action_width
        if not dims or len(set(dims)) < len(dims) or max(dims) >= width:
            raise ConfigError(
                f"memory_pose is {dims}: give the action dimensions (0 to {width - 1}, each once) that move the robot, "
                "whose sums say where it is: for most arms [0, 1, 2]."
            )

    @property
    def action_width(self) -> int:
        """Numbers of a robot's action, `action_dim` of them where nobody says."""
        width = self.robot_action_dim if self.robot is None else robot(self.robot).width
        return width or self.action_dim

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
        names = [f.name for f in fields(DiT.Config) if f.name not in {"change", "views", "pose_dim"}]
        return DiT.Config(
            **{name: getattr(self, name) for name in names}, change=self.changes, views=self.views,
            pose_dim=len(self.memory_pose),
        )  # fmt: skip

    @property
    def most_new(self) -> int:
        """New frames that the window holds beside what is remembered and a frame of context."""
        return self.window - 1 - self.memory

    def context(self, length: int) -> int:
        """How many of `length` context frames are looked at, the last ones: what changed in the oldest frame of a
        window is against the one before it, and any frame can be remembered."""
        return length if self.memory else self.window - 1 + int(self.changes)

    @property
    def condition_width(self) -> int:
        """Numbers that come with a frame: its action, or with a memory as `pose_memory` has them."""
        return self.action_dim + (len(self.memory_pose) + 1 if self.memory else 0)

    @property
    def pose_memory(self) -> PoseMemory | None:
        """What is remembered beyond the window; None: nothing."""
        return PoseMemory(self.memory, self.memory_pose, self.memory_every) if self.memory else None

    @property
    def views(self) -> int:
        """Cameras that are imagined together."""
        return max(1, len(self.cameras))

    @property
    def changes(self) -> bool:
        """Whether the network predicts what changes, and is therefore shown the frame before each frame."""
        return self.prediction == "change"


@dataclass(frozen=True)
class Sampling:
    """How frames are imagined; a checkpoint's `config.json` holds recommended values."""

    denoising_steps: DenoisingSteps = 1
    guidance: Guidance = 1.0
    stabilization_level: Level = 14
    horizon: Horizon | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        check_values(Sampling, asdict(self))


Part = TypeVar("Part")


def merge(
    part: type[Part], config: Any, stored: Mapping[str, Any] | None = None, preset: Mapping[str, Any] | None = None
) -> Part:
    """The preset's values under the stored ones under the user's (`None` is "not given"), over the defaults."""
    names = {f.name for f in fields(cast(Any, part))}
    advised = {name: value for name, value in (preset or {}).items() if name in names}
    return part(**{**advised, **(stored or {}), **given(part, config)})


def given(part: Any, config: Any) -> dict[str, Any]:
    """What the user says of a part, in plain values."""
    said = {f.name: getattr(config, f.name) for f in fields(part)}
    return {name: _plain(value) for name, value in said.items() if value is not None}


def as_dict(part: Any) -> dict[str, Any]:
    """Plain JSON values."""
    return asdict(part)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
