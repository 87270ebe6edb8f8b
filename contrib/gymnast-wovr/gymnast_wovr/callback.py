"""When a co-evolving world model is refined, and how a resumed run finds the one it had."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning
from gymnast_core.config import RunConfig
from gymnast_core.errors import ConfigError, PluginError
from gymnast_core.runs.atomic import atomic_directory, write_json

from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.refinement import Materials, gather_materials, refine

FOLDER, REPORT = "world_model", "refinement.json"


class CoEvolution(lightning.Callback):
    """Refines the run's world model between iterations, in one process; see `CoEvolvingWorld`."""

    def __init__(self) -> None:
        self._run: RunConfig | None = None
        self._world: CoEvolvingWorld | None = None
        self._materials: Materials | None = None
        self._refined = -1
        """Iteration before which the weights in use were refined; -1: never."""

    def begin(self, run: RunConfig, world: CoEvolvingWorld | None) -> None:
        """The run's folder is known and its world model built."""
        self._run, self._world = run, world

    def end(self) -> None:
        """Close what was opened."""
        if self._materials is not None:
            self._materials.environment.close()
        self._run = self._world = self._materials = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if trainer.world_size > 1:
            raise ConfigError(f"co-evolving works in one process, not in {trainer.world_size}; set trainer.devices=1.")
        if self._run is None or self._world is None:
            raise PluginError(
                "gymnast-wovr was not told that the run began; `gymnast plugins` says what is wrong with it."
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        saved = max((n for n in refinements(self._folder()) if n <= pl_module.iteration), default=None)
        if saved is not None:
            assert self._world is not None
            self._world.load(place(self._folder(), saved))
            self._refined = saved

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        assert self._run is not None and self._world is not None
        iteration = pl_module.iteration
        if iteration == self._refined or not self._world.is_due(iteration):
            return
        if self._materials is None:
            self._materials = gather_materials(self._run, self._world.config)
        report = refine(self._world, pl_module.policy, self._materials, self._run, iteration)
        with atomic_directory(place(self._folder(), iteration)) as folder:
            self._world.save(folder)
            write_json(folder / REPORT, report)
        self._refined = iteration

    def _folder(self) -> Path:
        assert self._run is not None and self._run.output is not None
        return Path(self._run.output)


def place(run_folder: Path, iteration: int) -> Path:
    """Where the world model is kept that was refined before that iteration."""
    return run_folder / FOLDER / f"iteration-{iteration:06d}"


def refinements(run_folder: Path) -> list[int]:
    """Iterations before which a run folder's world model was refined, in order."""
    found = (re.fullmatch(r"iteration-(\d+)", path.name) for path in (run_folder / FOLDER).glob("iteration-*"))
    return sorted(int(match[1]) for match in found if match)
