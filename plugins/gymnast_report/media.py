"""A run's videos as the page holds them: inside it, as far as there is room."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gymnast_report.gallery import ITERATION, Clip


@dataclass(frozen=True)
class Media:
    """A clip ready to be shown; `video` is None when the page has no room for it."""

    clip: Clip
    video: str | None
    poster: str | None

    @property
    def verdict(self) -> str:
        return self.clip.measure.verdict(self.clip.value)


@dataclass(frozen=True)
class Comparison:
    """Videos of one task in several evaluations, side by side."""

    task: str
    instruction: str
    media: Sequence[Media]


class Room:
    """Bytes of the page that are left for files."""

    def __init__(self, size: int) -> None:
        self._size, self.taken = size, 0

    def take(self, *files: Path) -> bool:
        """Whether all of these files fit, and if so, less is left."""
        size = sum(file.stat().st_size for file in files if file.exists())
        fits = self.taken + size <= self._size
        self.taken += size if fits else 0
        return fits


def embed(clips: Sequence[Clip], videos: Path, room: Room) -> list[Media]:
    """Read clips into data URIs until there is no room: before and after first, then the latest iterations."""
    evaluations = [clip for clip in clips if not during_training(clip.phase)]
    training = [clip for clip in clips if during_training(clip.phase)]
    media = []
    for clip in evaluations + sorted(training, key=lambda clip: clip.phase, reverse=True):
        video, poster = videos / clip.file, videos / clip.poster
        if room.take(video, poster):
            media.append(Media(clip, data_uri(video, "video/mp4"), data_uri(poster, "image/jpeg")))
        else:
            media.append(Media(clip, None, None))
    return media


def data_uri(path: Path, mime: str) -> str | None:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def during_training(label: str) -> bool:
    """Whether the label, of an evaluation or a video, is that of an iteration."""
    return label.startswith(ITERATION)


def comparisons(media: Sequence[Media]) -> list[Comparison]:
    """The evaluations' videos, by task."""
    by_task: dict[tuple[str, str], list[Media]] = {}
    for item in media:
        if not during_training(item.clip.phase):
            by_task.setdefault((item.clip.kind, item.clip.task), []).append(item)
    return [
        Comparison(task, items[0].clip.instruction, sorted(items, key=lambda item: item.clip.phase != "before"))
        for (_, task), items in by_task.items()
    ]


def by_phase(media: Sequence[Media]) -> list[list[Media]]:
    """The videos of the iterations, newest first; those of an evaluation after an iteration are a list of their own,
    before those of what the iteration learned from."""
    phases: dict[tuple[str, bool], list[Media]] = {}
    for item in media:
        if during_training(item.clip.phase):
            phases.setdefault((item.clip.phase, not item.clip.of_training), []).append(item)
    return [sorted(phases[key], key=lambda item: item.clip.file) for key in sorted(phases, reverse=True)]
