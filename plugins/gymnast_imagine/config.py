"""What `gymnast imagine` is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import AnyNumber, Choices, Count, Positive, Range, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError

MODES = ("episode", "sweep", "keyboard", "file")
RESERVED_KEYS = {" ": "rest", "u": "undo", "x": "reset", "v": "save"}
"""Keys of the page that are not an action dimension's."""
KEYS = ("ArrowLeft ArrowRight", "ArrowDown ArrowUp", "f r", "q e", "k i", "j l", "g h")


@dataclass(frozen=True)
class SweepConfig:
    """`actions: sweep`."""

    frames: Count = 8
    """Control steps for which each action is held."""
    values: Annotated[int, Range(least=2)] = 5
    """Values per dimension, evenly from -amplitude to +amplitude around the rest action."""


@dataclass(frozen=True)
class KeyboardConfig:
    """`actions: keyboard`."""

    port: Annotated[int, Range(least=0, most=65535)] = 0
    """TCP port on 127.0.0.1; 0 takes a free one. From another machine: `ssh -L PORT:127.0.0.1:PORT HOST`."""
    keys: list[str] = field(default_factory=lambda: list(KEYS))
    """For each action dimension the key that lowers and the key that raises it, as JavaScript names them."""

    def __post_init__(self) -> None:
        used = [key for pair in self.keys for key in pair.split(" ")]
        if any(len(pair.split(" ")) != 2 or not all(pair.split(" ")) for pair in self.keys):
            raise ConfigError(f'keyboard.keys is {self.keys}; each entry holds two keys, e.g. "ArrowLeft ArrowRight".')
        if len(set(used)) < len(used) or set(used) & set(RESERVED_KEYS):
            raise ConfigError(
                f"keyboard.keys is {self.keys}; a key has one use, and the page needs "
                + ", ".join(f"{key!r} ({use})" for key, use in RESERVED_KEYS.items()) + "."
            )  # fmt: skip


@dataclass(frozen=True)
class ImagineConfig:
    """`gymnast imagine`: a world model under given actions."""

    kind: ClassVar[str] = "imagine"
    world_model: ComponentConfig
    actions: Annotated[str, Choices(*MODES)] = "episode"
    """Where the actions come from: episode, sweep, keyboard or file."""
    beside: ComponentConfig | None = None
    """Another world under the same actions, shown beside: a simulator, or a second world model."""
    episodes: ComponentConfig | None = None
    """Recorded episodes: their actions (episode), the start frame, or the default amplitudes (sweep, keyboard)."""
    tasks: ComponentConfig | None = None
    """Tasks to start from; they come before `episodes`, but in `actions: episode`, where each episode is the start."""
    image: str | None = None
    """Image file to start from, not in `actions: episode`; it comes before `tasks` and `episodes`."""
    image_size: list[Count] | None = None
    """Height and width to which `image` is resized, pixels; null keeps its own."""
    file: str | None = None
    """Actions for `actions: file`: .json, or .npz with the array `actions` (T, A), robot units."""
    index: list[ZeroOrMore] | None = None
    """Which episodes (null: the first 4), or which one task or episode to start from (null: the first)."""
    context: Count = 1
    """Frames of an episode that the world model is shown before it imagines."""
    start: ZeroOrMore | None = None
    """Index in the episode of the last of them; null: the earliest that leaves room for the context."""
    horizon: Count | None = None
    """Actions; null: all of the episode or file. In `actions: keyboard` the most there can be (null: 1000)."""
    chunk: Count = 4
    """Actions handed to the world model at once; a key press is one chunk of equal actions."""
    samples: Count = 1
    """Imaginations of each start, with different noise."""
    amplitude: list[Positive] | None = None
    """Largest deviation from the rest action per dimension, robot units; null: what 95 % of the episodes' actions
    stay within."""
    rest: list[AnyNumber] | None = None
    """The action that does nothing, robot units; null: zeros."""
    names: list[str] | None = None
    """What the action dimensions are called, e.g. ["dx, m", "dy, m"]."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    keyboard: KeyboardConfig = field(default_factory=KeyboardConfig)
    fps: Count = 10
    """Frames a second of the videos."""
    seed: Seed = 0
    """Of the world model's noise: the same seed gives the same frames and files."""
    output: str | None = None
    """Folder to make; null: runs/imagine-<date>-<time>."""

    def __post_init__(self) -> None:
        if self.start is not None and self.start < self.context - 1:
            raise ConfigError(f"start={self.start} leaves no room for context={self.context} frames up to it.")
        if self.index is not None and (not self.index or min(self.index) < 0 or len({*self.index}) < len(self.index)):
            raise ConfigError(f"index is {self.index}; give different numbers from 0 on, e.g. index=[0,3].")
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ConfigError(f"image_size is {self.image_size}; give [height, width] in pixels.")
        self._check_start()
        if self.file is not None and self.actions != "file":
            raise ConfigError(
                f"file={self.file} holds actions, and actions={self.actions} takes none: set actions=file."
            )
        if self.actions == "file" and self.file is None:
            raise ConfigError("actions=file needs the file: file=ACTIONS.json (or .npz with an array `actions`).")
        if self.actions == "episode" and self.episodes is None:
            raise ConfigError(
                "actions=episode needs recorded episodes: episodes.name=DATASET episodes.args.path=FOLDER "
                "(`gymnast plugins` lists datasets), or choose actions=sweep, keyboard or file."
            )
        if self.actions == "sweep" and self.horizon is not None:
            raise ConfigError(f"horizon={self.horizon} is not for a sweep; set sweep.frames={self.horizon} instead.")
        if self.actions == "keyboard" and self.samples > 1:
            raise ConfigError(f"samples is {self.samples}; actions=keyboard imagines one. Drop samples.")

    def _check_start(self) -> None:
        """Refuse what would be said of another start than the one that is taken."""
        if self.image is not None and self.actions == "episode":
            raise ConfigError(
                f"actions=episode starts from the episodes' own frames, not from image={self.image}. Drop image, or "
                "choose actions=sweep, keyboard or file."
            )
        if self.image_size is not None and self.image is None:
            raise ConfigError(f"image_size={self.image_size} is of an image, and there is none: set image=FILE too.")
        elsewhere = None if self.actions == "episode" else "image" if self.image else "tasks" if self.tasks else None
        if elsewhere and (self.context > 1 or self.start is not None):
            key = "context" if self.context > 1 else "start"
            raise ConfigError(
                f"{key} chooses frames of an episode, and {elsewhere} says where to start. Drop {key}, or set "
                f"{elsewhere}=null to start from an episode."
            )


def check_width(name: str, values: Sequence[object] | None, width: int, owner: str) -> None:
    """Raise `ConfigError` unless `values` has one entry for each of the `width` action dimensions of `owner`."""
    if values is not None and len(values) != width:
        raise ConfigError(f"{name} has {len(values)} entries for {width} action dimensions ({owner}).")
