"""A run in Weights & Biases, by its own library."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

# Its library reports crashes and timings of its own to its makers, in threads of its own.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from gymnast_trackers.sink import Opening, Point
from gymnast_trackers.wandb_options import Config

_SECONDS = 60.0
"""How long the beginning or the end of a run may take where the network does not answer."""


class WandbSink:
    """Online, the server knows which steps it has. Offline, a killed process leaves a file that ends anywhere, and
    files of one run are not joined when they are synced: a process that goes on writes a whole new one in its place.
    """

    def __init__(self, config: Config, opening: Opening) -> None:
        self.rewrites = config.mode == "offline"
        self.run = opening.run or uuid.uuid4().hex[:8]
        earlier = [*(opening.folder / "wandb").glob("offline-run-*")] if self.rewrites else []
        self._run = wandb.init(
            project=config.project, entity=config.entity, name=config.name or opening.folder.resolve().name,
            tags=config.tags or None, job_type=opening.kind, id=self.run, dir=str(opening.folder),
            mode=cast(Any, config.mode),
            resume=None if self.rewrites else "allow", settings=_settings(), reinit="create_new",
        )  # fmt: skip
        for folder in earlier:
            shutil.rmtree(folder, ignore_errors=True)
        self._run.config.update(dict(opening.config), allow_val_change=True)
        self._next = 0 if self.rewrites else int(self._run.step)

    def has(self, step: int) -> bool:
        return step < self._next

    def send(self, point: Point) -> None:
        values: dict[str, Any] = dict(point.numbers)
        if point.films:
            values["videos"] = [wandb.Video(str(film.file), caption=film.caption, format="mp4") for film in point.films]
        self._run.log(values, step=point.step, commit=True)
        self._next = point.step + 1

    def summarise(self, numbers: Mapping[str, float]) -> None:
        self._run.summary.update({f"summary/{name}": value for name, value in numbers.items()})

    def attach(self, page: Path) -> None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{page.stem}-{self.run}")
        artifact = wandb.Artifact(name, type="report")
        artifact.add_file(str(page))
        self._run.log_artifact(artifact)

    def finish(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)
        if wandb.run is None:
            wandb.teardown()  # its process and its threads, unless a run of somebody else goes on


def _settings() -> wandb.Settings:
    """Nothing of the machine, its environment, its code or its terminal; no question, and no waiting without end."""
    return wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
        x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False, init_timeout=_SECONDS,
        finish_timeout=10 * _SECONDS, finish_timeout_raises=True,
    )  # fmt: skip
