"""When a co-evolving world model is refined, and how the processes of a run share what came of it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from gymnast_core.plugins.events import RunEvent
from torch import distributed, nn

from gymnast_wovr.co_evolving import CoEvolvingWorld
from gymnast_wovr.refinement import FOLDER, REPORT, refine

PATIENCE = timedelta(days=30)
"""How long processes wait for the one that fits; its end is noticed at once."""


class CoEvolution(lightning.Callback):
    """Refines the run's world model, and its judge, between iterations; see `CoEvolvingWorld`."""

    def __init__(self) -> None:
        self._link: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.world_size > 1:
            # Connections of their own, which may be silent for as long as a fit takes.
            self._link = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        run, iteration = pl_module.record.event(RunEvent), pl_module.iteration
        world = run.parts.world_model
        assert isinstance(world, CoEvolvingWorld)
        if iteration >= run.config.loop.iterations or not world.is_due(iteration):
            return
        if trainer.is_global_zero:
            refine(world, run.parts.policy, run.config, run.folder, iteration)
        else:
            world.recorded, world.refined = [*world.recorded, iteration], iteration
        if self._link is not None:
            for key, learner in world.learners().items():
                world.take(key, _shared(learner.live.module(), self._link))


def _shared(network: nn.Module, link: Any) -> dict[str, torch.Tensor]:
    """The weights that the first process has."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    for value in weights.values():
        distributed.broadcast(value.reshape(-1).view(torch.uint8), src=0, group=link)  # bytes, whatever the dtype
    return weights


def refinements(run_folder: Path) -> list[int]:
    """Iterations before which a run folder's world model was refined, in order."""
    found = (re.fullmatch(r"iteration-(\d+)", path.parent.name) for path in (run_folder / FOLDER).glob(f"*/{REPORT}"))
    return sorted(int(match[1]) for match in found if match)
