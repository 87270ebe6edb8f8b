"""What `gymnast convert` writes with: one class a format, found through the entry points `gymnast.episode_writers`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from gymnast_core.config.ranges import Choices, Positive, check_values
from gymnast_core.errors import ConfigError, PluginError, unknown_name
from gymnast_core.plugins import discovery
from gymnast_core.types import Episode
from gymnast_episodes.recording import Recording

GROUP = "gymnast.episode_writers"
STAGING = ".conversion"
"""Folder inside the output for what is needed until the conversion is finished; removed afterwards."""

Record = dict[str, Any]
"""What a writer has to remember of an episode, as JSON."""


@dataclass(frozen=True)
class WriterOptions:
    """What the user may choose about an output, whatever its format."""

    fps: Positive | None = None
    """Frames a second of the videos; None: those of the episodes. What holds is in each episode's `fps`."""
    robot: str | None = None
    """Robot whose units the source's actions have, for formats that store model units."""
    pixel_format: Annotated[str, Choices("yuv444p", "yuv420p", "rgb24")] = "yuv444p"
    """Of videos. yuv444p is near-lossless, each pixel with its own colour; yuv420p halves the resolution of colours and
    plays in every browser; rgb24 is lossless: what is read is what was written."""
    frames: Annotated[str, Choices("video", "png")] = "video"
    """video, or png: lossless pictures inside the table, for formats that have them (lerobot-v3, lerobot-v2.1)."""

    def __post_init__(self) -> None:
        check_values(WriterOptions, asdict(self), "options")


class EpisodeWriter(ABC):
    """Writes episodes of one format into a folder of its own, one at a time.

    The process may be killed at any moment. It is then started again with the records of the episodes that were
    complete, and continues behind them: an episode whose record was not returned is written once more.
    """

    def __init__(self, root: Path, options: WriterOptions, written: Sequence[Record]) -> None:
        """`root` exists; `root / STAGING` may hold anything that `finish` needs."""
        self.root, self.options = root, options

    keeps: frozenset[str] = frozenset()
    """What is written beside frames of the main camera, actions and instruction: some of "cameras", "readings", "names"
    (of joints, in `recording`), "robot", "success", "outcomes" and "start". The user is told of what an episode has and
    the format has not.
    """
    keeps_all: bool = False
    """Whether everything is kept."""
    holds: tuple[str, ...] = ("video",)
    """How frames can be stored: values of `WriterOptions.frames`."""
    needs_fps: bool = True
    """Whether the format has a frame rate; if so, `Episode.fps` is a number in `write`."""
    recording: Recording = Recording()
    """What the source says of all its episodes."""

    @abstractmethod
    def write(self, index: int, episode: Episode) -> Record:
        """Write the episode of that number, counted from 0, completely; numbers arrive in order.

        Raises `DataError` for an episode that the format cannot hold.
        """

    def finish(self, written: Sequence[Record]) -> None:  # noqa: B027
        """Write what concerns all episodes, if anything. May be killed and repeated as well."""


def check_frames(to: str, writer: type[EpisodeWriter], options: WriterOptions) -> None:
    """Raises `ConfigError` where a format cannot store frames as the options say."""
    if options.frames not in writer.holds:
        able = [name for name in writer_names() if options.frames in load_writer(name).holds]
        raise ConfigError(f"{to} cannot store frames as {options.frames}. Formats that can: {', '.join(able)}.")


def rate_of(episode: Episode) -> float:
    """Frames a second of an episode that a writer with `needs_fps` was given."""
    assert episode.fps is not None
    return episode.fps


def writer_names() -> list[str]:
    """Installed formats."""
    return sorted(discovery.sources(GROUP))


def load_writer(name: str) -> type[EpisodeWriter]:
    """The class of a format. Raises `PluginError` if it is unknown, ambiguous or cannot be imported."""
    found = discovery.sources(GROUP).get(name)
    if not found:
        raise PluginError(unknown_name("episode format", name, writer_names()))
    if len(found) > 1:
        raise PluginError(f"Several plugins bring the episode format {name!r}: {' and '.join(map(str, found))}.")
    try:
        cls = discovery.load(found[0])
    except (Exception, SystemExit) as error:
        raise PluginError(f"The episode format {name!r} of {found[0]} cannot be imported: {error}.") from error
    if not (inspect.isclass(cls) and issubclass(cls, EpisodeWriter)):
        raise PluginError(f"The episode format {name!r} of {found[0]} is no gymnast_episodes.writers.EpisodeWriter.")
    return cls
