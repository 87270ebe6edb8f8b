"""Imagine a shot in every world, and turn it into a video and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Generator, Tensor

from gymnast_core.interfaces import WorldModel
from gymnast_core.measures import psnr
from gymnast_core.seeds import seeded_generator
from gymnast_imagine.panels import Cell, Row, compose, layout
from gymnast_imagine.rolling import blaming, cameras_of, picture, roll_out
from gymnast_imagine.shots import Line, Shot
from gymnast_pages.video import write_poster, write_video

IMAGINED = "imagined"
RECORDED = "recorded"
START_REPEATED = "start frame repeated"
PAIR_PIXELS, GRID_PIXELS = 256, 112
"""Shorter side of a cell, for few large and for many small ones."""


@dataclass(frozen=True)
class Quality:
    """PSNR of one frame, dB; the reference is what was recorded, or else the world beside."""

    video: str
    line: str
    action: str
    """Label of the variant."""
    world: str
    sample: int
    frame: int
    """Number of actions before it, from 1."""
    psnr: float
    psnr_start: float
    """Of the start frame against the same reference: the score of a world where nothing moves."""


def mean_psnr(quality: Sequence[Quality]) -> dict[str, float]:
    """Mean over frames by world, and of the repeated start frame, dB; empty when there was nothing to compare with."""
    values: dict[str, list[float]] = {}
    for one in quality:
        values.setdefault(one.world, []).append(one.psnr)
        values.setdefault(START_REPEATED, []).append(one.psnr_start)
    return {name: round(fmean(numbers), 3) for name, numbers in values.items()}


def psnr_by_line(quality: Sequence[Quality]) -> dict[str, dict[str, float]]:
    """`mean_psnr` of each line."""
    lines: dict[str, list[Quality]] = {}
    for one in quality:
        lines.setdefault(one.line, []).append(one)
    return {line: mean_psnr(found) for line, found in lines.items()}


@dataclass(frozen=True)
class Film:
    """A video that was written."""

    name: str
    title: str
    video: str
    """File name inside `videos/`."""
    poster: str
    description: str
    """What it shows, in words."""
    actions: int
    """Length in control steps."""
    quality: Sequence[Quality]


@dataclass(frozen=True)
class View:
    """A line as one source shows it: V variants, all cameras in one picture."""

    world: str
    sample: int | None
    """From 0; None where there is only one."""
    frames_VTHWC: Tensor

    @property
    def label(self) -> str:
        return self.world if self.sample is None else f"{self.world} {self.sample + 1}"


def frames_of(shot: Shot, samples: int, beside: bool) -> int:
    """Frames that the worlds will have to make."""
    return sum((samples + beside) * line.actions_VTA[..., 0].numel() for line in shot.lines)


def check_fits(shot: Shot, samples: int, beside: bool) -> None:
    """Raise `ConfigError` if the shot's video would be too large to be shown, before anything is imagined."""
    sizes = [(len(line.labels), samples + beside + (line.recorded_TVHWC is not None)) for line in shot.lines]
    rows = sum(views if variants > 1 else 1 for variants, views in sizes)
    columns = max(variants if variants > 1 else views for variants, views in sizes)
    task = shot.lines[0].task
    height, width = task.frames_TVHWC.shape[2:4]
    layout(rows, columns, height, len(task.cameras) * width, _pixels(rows))


def _pixels(rows: int) -> int:
    return PAIR_PIXELS if rows == 1 else GRID_PIXELS


def film(
    shot: Shot,
    worlds: Mapping[str, WorldModel],
    videos: Path,
    *,
    samples: int,
    seed: int,
    fps: int,
    done: Callable[[int], None],
) -> Film:
    """Write the shot's video and poster into `videos`. `worlds` holds IMAGINED first, then the one beside if any."""
    rows: list[Row] = []
    quality: list[Quality] = []
    sources: list[str] = []
    for number, line in enumerate(shot.lines):
        views = _views(shot, number, worlds, samples, seed, done)
        sources = sources or [view.label for view in views]
        rows += _rows(line, views)
        quality += _quality(shot, line, views)
    picture_THWC = compose(rows, min_pixels=_pixels(len(rows)))
    video, poster = f"{shot.name}.mp4", f"{shot.name}.jpg"
    write_video(picture_THWC, videos / video, fps=fps, min_pixels=1)
    write_poster(picture_THWC, videos / poster, min_pixels=1)
    steps = len(picture_THWC) - 1
    shown = " beside ".join(sources).capitalize()
    description = f"{shown}, {steps} action{'s' * (steps > 1)}. {shot.title}."
    return Film(shot.name, shot.title, video, poster, description, steps, quality)


def _views(
    shot: Shot, number: int, worlds: Mapping[str, WorldModel], samples: int, seed: int, done: Callable[[int], None]
) -> list[View]:
    line = shot.lines[number]
    variants = len(line.labels)
    cameras = cameras_of(worlds[IMAGINED], line.task)
    views = []
    if line.recorded_TVHWC is not None:
        views.append(View(RECORDED, None, picture(line.recorded_TVHWC, line.task.cameras, cameras)[None]))
    for name, world in worlds.items():
        copies = samples if name == IMAGINED else 1
        with blaming(name, name != IMAGINED):
            frames_BTHWC = roll_out(
                world,
                [line.task] * (copies * variants),
                line.actions_VTA.repeat(copies, 1, 1),
                chunks=line.chunks,
                cameras=cameras,
                generator=noise(seed, name, shot.name, number),
                done=done,
            )
        views += [
            View(name, copy if copies > 1 else None, frames_VTHWC)
            for copy, frames_VTHWC in enumerate(frames_BTHWC.split(variants))
        ]
    return views


def noise(seed: int, world: str, shot: str, line: int = 0) -> Generator:
    """The randomness of one line in one world, whatever else is imagined."""
    return seeded_generator(seed, "imagine", world, shot, line)


def _rows(line: Line, views: Sequence[View]) -> list[Row]:
    """One variant: the sources side by side. Several: a row each source, its variants side by side."""
    if len(line.labels) == 1:
        return [Row(line.title, [Cell(view.label, view.frames_VTHWC[0]) for view in views])]
    return [
        Row(
            f"{line.title}: {view.label}",
            [Cell(label, frames) for label, frames in zip(line.labels, view.frames_VTHWC, strict=True)],
        )
        for view in views
    ]


def _quality(shot: Shot, line: Line, views: Sequence[View]) -> list[Quality]:
    reference = views[0] if views[0].world == RECORDED else views[-1]
    if reference.world == IMAGINED:
        return []
    found = []
    for view in views:
        if view is reference or view.frames_VTHWC.shape != reference.frames_VTHWC.shape:
            continue
        for label, frames_THWC, truth_THWC in zip(line.labels, view.frames_VTHWC, reference.frames_VTHWC, strict=True):
            start = psnr(truth_THWC[:1], truth_THWC).tolist()
            values = psnr(frames_THWC, truth_THWC).tolist()
            found += [
                Quality(shot.name, line.title, label, view.world, view.sample or 0, t, values[t], start[t])
                for t in range(1, len(values))
            ]
    return found
