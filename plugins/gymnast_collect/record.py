"""The recording on disk: episode after episode, and able to go on after any kind of end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymnast_collect.config import CollectConfig
from gymnast_collect.takes import Take
from gymnast_core.errors import DataError
from gymnast_core.reading import read_json_lines
from gymnast_core.runs.atomic import storing, write_text
from gymnast_episodes.losses import checked, tell_what_is_lost
from gymnast_episodes.writers import STAGING, EpisodeWriter, WriterOptions, check_frames, load_writer

EPISODES = "episodes"
"""Folder of the finished recording, in that of the run."""
WORK = ".episodes.recording"
"""The same while it grows."""
ATTEMPTS = "attempts.jsonl"
RECORD = "record"
"""Key of a row that holds what the writer has to remember of the episode."""


def options_of(config: CollectConfig) -> WriterOptions:
    """What the writer is told."""
    return WriterOptions(
        fps=config.fps,
        robot=config.robot,
        pixel_format="rgb24" if config.frames == "lossless" else "yuv444p",
        frames="png" if config.frames == "png" else "video",
    )


def load_format(config: CollectConfig) -> type[EpisodeWriter]:
    """The writer. Raises `PluginError` if there is none, `ConfigError` if it cannot store frames like that."""
    writer = load_writer(config.to)
    check_frames(config.to, writer, options_of(config))
    return writer


class Recorder:
    """Rows of decided attempts; the episodes of those that were kept are complete on the disk before their row is."""

    def __init__(self, config: CollectConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self._work = folder / WORK
        self._file = self._work / STAGING / ATTEMPTS
        with storing(self._work):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = _whole_rows(self._file)
        """Attempts that are decided, in their order."""
        written = [row[RECORD] for row in self.rows if RECORD in row]
        self._writer = load_format(config)(self._work, options_of(config), written)
        self._count = len(written)

    def add(self, take: Take, keep: bool) -> None:
        """Write the episode if it is kept, then note the attempt."""
        row = {**take.about, "episode": None}
        with storing(self._work):
            if keep:
                assert take.episode is not None
                episode = checked(take.episode)
                if not self._count:
                    tell_what_is_lost(episode, self._writer, self.config.to, None)
                row |= {"episode": self._count, RECORD: self._writer.write(self._count, episode)}
                self._count += 1
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(row)

    def finish(self) -> None:
        """Put the recording together under its name. May be killed and repeated."""
        records = [row[RECORD] for row in self.rows if RECORD in row]
        if not records:
            raise DataError("No episode was kept, so there is no recording.")
        with storing(self.folder):
            self._writer.finish(records)
            plain = [{key: value for key, value in row.items() if key != RECORD} for row in self.rows]
            write_text(self.folder / ATTEMPTS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain))
            self._work.rename(self.folder / EPISODES)
            clean(self.folder)


def clean(folder: Path) -> None:
    """Remove what a finished recording needs no more."""
    shutil.rmtree(folder / EPISODES / STAGING, ignore_errors=True)


def finished_rows(folder: Path) -> list[dict[str, Any]]:
    """attempts.jsonl of a finished recording."""
    return read_json_lines(folder / ATTEMPTS, max_bytes=2**40)


def has_begun(folder: Path) -> bool:
    """Whether a folder holds a recording, finished or not; one that failed before its first attempt is none."""
    work = folder / WORK
    return (folder / EPISODES).exists() or any(path.is_file() for path in work.rglob("*"))


def keeper(config: CollectConfig) -> Callable[[Take], bool]:
    """Whether an attempt is kept. Raises `DataError` where only the environment could say, and does not."""

    def keeps(take: Take) -> bool:
        if take.episode is None or config.keep == "all":
            return take.episode is not None
        if take.success is None:
            raise DataError(
                f"keep=successes: {take.about['family']} says nothing in info under "
                f"view.success_key={config.view.success_key}. Set it to a key that tells of success, or keep=all."
            )
        return take.success

    return keeps


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file; a last line that a killed process left unfinished is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return read_json_lines(path, max_bytes=2**40)
