"""Gymnast in Python: what the command line does, for scripts and notebooks.

    import gymnast

    run = gymnast.train("tabletop", "loop.iterations=2")
    run.metrics.to_pandas()

Nothing heavy is imported before it is needed: `import gymnast` takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnast_core import __version__

if TYPE_CHECKING:
    from gymnast.commands import evaluate, fit, imagine, judge, train
    from gymnast.films import Film, ShownRollout
    from gymnast.parts import dataset, episodes, optimizer, policy, reward_model, tasks, world_model
    from gymnast.results import Run, load_run
    from gymnast.rolling import roll_out
    from gymnast.tables import Table
    from gymnast_core.errors import GymnastError

_PLACES = {
    "gymnast.commands": ("train", "fit", "evaluate", "judge", "imagine"),
    "gymnast.parts": ("world_model", "policy", "reward_model", "optimizer", "dataset", "tasks", "episodes"),
    "gymnast.results": ("Run", "load_run"),
    "gymnast.rolling": ("roll_out",),
    "gymnast.films": ("Film", "ShownRollout"),
    "gymnast.tables": ("Table",),
    "gymnast_core.errors": ("GymnastError",),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Film",
    "GymnastError",
    "Run",
    "ShownRollout",
    "Table",
    "__version__",
    "dataset",
    "episodes",
    "evaluate",
    "fit",
    "imagine",
    "judge",
    "load_run",
    "optimizer",
    "policy",
    "reward_model",
    "roll_out",
    "tasks",
    "train",
    "world_model",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACE[name]), name)


def __dir__() -> list[str]:
    return __all__
