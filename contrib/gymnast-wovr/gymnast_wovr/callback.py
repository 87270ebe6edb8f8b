"""When a co-evolving world model is refined."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning
from gymnast_core.errors import ConfigError
from gymnast_core.plugins.events import RunEvent
from gymnast_core.runs.atomic import atomic_directory, write_json

from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.refinement import refine

FOLDER, REPORT = "world_model", "refinement.json"


class CoEvolution(lightning.Callback):
    """Refines the run's world model between iterations, in one process; see `CoEvolvingWorld`."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.world_size > 1:
            raise ConfigError(f"co-evolving works in one process, not in {trainer.world_size}; set trainer.devices=1.")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        run, iteration = pl_module.record.event(RunEvent), pl_module.iteration
        world = run.parts.world_model
        assert isinstance(world, CoEvolvingWorld)
        if iteration >= run.config.loop.iterations or not world.is_due(iteration):
            return
        report = refine(world, run.parts.policy, run.config, iteration)
        with atomic_directory(place(run.folder, iteration)) as folder:
            world.save(folder)
            write_json(folder / REPORT, report)


def place(run_folder: Path, iteration: int) -> Path:
    """Where the world model is kept that was refined before that iteration."""
    return run_folder / FOLDER / f"iteration-{iteration:06d}"


def refinements(run_folder: Path) -> list[int]:
    """Iterations before which a run folder's world model was refined, in order."""
    found = (re.fullmatch(r"iteration-(\d+)", path.name) for path in (run_folder / FOLDER).glob("iteration-*"))
    return sorted(int(match[1]) for match in found if match)
