"""`gymnast imagine`: config in, a folder of videos, numbers and a page out; or a session on a local page."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gymnast_core.closing import close_all
from gymnast_core.config import to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.runs.atomic import atomic_directory, write_json, write_text
from gymnast_core.runs.progress import Progress
from gymnast_core.signals import terminating
from gymnast_imagine.action_sources import write_actions
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.filming import IMAGINED, Film, Quality, check_fits, film, frames_of, mean_psnr, psnr_by_line
from gymnast_imagine.page import build_page
from gymnast_imagine.shots import Shot, plan
from gymnast_imagine.starts import open_episodes


def imagine_command(config: ImagineConfig) -> dict[str, Any]:
    """Do what `gymnast imagine` is told, and return what it prints. Raises `GymnastError`s only for bad input."""
    config = replace(config, output=config.output or f"runs/imagine-{datetime.now():%Y%m%d-%H%M%S}")
    _check_output(Path(str(config.output)))
    episodes = None if config.episodes is None else open_episodes(config.episodes)
    if config.actions == "keyboard":
        from gymnast_imagine.keyboard import keyboard

        with terminating(), open_worlds(config) as worlds:
            return keyboard(config, worlds, episodes)
    shots = plan(config, episodes)
    for shot in shots:
        check_fits(shot, config.samples, config.beside is not None)
    with terminating(), open_worlds(config) as worlds:
        return _film_all(config, worlds, shots)


@contextmanager
def open_worlds(config: ImagineConfig) -> Iterator[dict[str, WorldModel]]:
    """The world model as IMAGINED, and the one beside under its plugin's name; closed at the end."""
    build = registries().world_models.build
    worlds = {IMAGINED: build(config.world_model.name, config.world_model.args)}
    try:
        if config.beside is not None:
            worlds[config.beside.name] = build(config.beside.name, config.beside.args, key="beside")
        for world in worlds.values():
            world.attach(Parts(world_model=world, config=config))
        yield worlds
    finally:
        close_all(worlds.values())


def _film_all(config: ImagineConfig, worlds: dict[str, WorldModel], shots: Sequence[Shot]) -> dict[str, Any]:
    began = time.monotonic()
    total, made, films = sum(frames_of(shot, config.samples, len(worlds) > 1) for shot in shots), 0, []
    with (
        atomic_directory(Path(str(config.output))) as folder,
        Progress("Imagining", total, unit="frame", log_seconds=5.0) as progress,
    ):

        def done(frames: int) -> None:
            nonlocal made
            made += frames
            progress.update(made, {})

        write_text(folder / "config.yaml", to_yaml(config))
        for shot in shots:
            films.append(
                film(
                    shot, worlds, folder / "videos", samples=config.samples, seed=config.seed, fps=config.fps, done=done
                )
            )
            _write_actions(folder, shot)
        seconds = time.monotonic() - began
        summary = _summary(films)
        write_json(folder / "summary.json", summary)
        _write_quality(folder / "psnr.csv", films)
        write_text(folder / "index.html", build_page(config, films, folder / "videos"))
    speed = {"frames": total, "frames_per_second": round(total / seconds, 1)}
    return {"output": config.output, "page": f"{config.output}/index.html", **speed, **summary}


def _write_actions(folder: Path, shot: Shot) -> None:
    """The actions of a single-variant shot in a file that `actions: file` takes."""
    if len(shot.lines) == 1 and len(shot.lines[0].labels) == 1:
        line = shot.lines[0]
        path = folder / "actions" / f"{shot.name}.json"
        path.parent.mkdir(exist_ok=True)
        write_actions(path, line.actions_VTA[0], line.chunks, {"start": line.task.id})


def _summary(films: Sequence[Film]) -> dict[str, Any]:
    """The videos and their mean PSNR (dB) by line, where there is something to compare with.

    The lines of a sweep have no common mean: the start frame repeated is perfect while nothing moves.
    """
    videos: list[dict[str, Any]] = [
        {"video": f"videos/{one.video}", "title": one.title, "actions": one.actions, "psnr": psnr_by_line(one.quality)}
        for one in films
    ]
    single = all(len(video["psnr"]) <= 1 for video in videos)
    every = [quality for one in films for quality in one.quality if single]
    return {"psnr": mean_psnr(every), "videos": videos}


def _write_quality(path: Path, films: Sequence[Film]) -> None:
    rows = [asdict(quality) for one in films for quality in one.quality]
    if not rows:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Quality)])
        writer.writeheader()
        writer.writerows(
            {**row, "psnr": f"{row['psnr']:.4f}", "psnr_start": f"{row['psnr_start']:.4f}"} for row in rows
        )


def _check_output(path: Path) -> None:
    """Refuse what the new folder would replace, before hours of imagination rather than after."""
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ConfigError(f"{path} exists already. Choose another folder with output=FOLDER, or delete it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made: {error.strerror}. Choose another folder with output=FOLDER."
        ) from error
