"""LIBERO's task suites: how many tasks, how long an episode, where a task's files are."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from gymnasium.error import DependencyNotInstalled

HORIZONS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Control steps of an episode (20 a second) in published evaluations (OpenVLA, arXiv 2406.09246, and what followed):
the longest demonstration and some more."""
TASKS = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
"""Tasks of the five suites, 130 together."""
STATES = 50
"""Initial states that come with each of those tasks."""
INSTALL = (
    "LIBERO is not installed in this interpreter ({missing}). Give it one of its own: python -m venv libero; "
    "libero/bin/pip install 'gymnast-libero[environment]'; and set world_model.args.hosting.python to "
    "libero/bin/python."
)


@dataclass(frozen=True)
class LiberoTask:
    """One task of a suite."""

    suite: str
    index: int
    name: str
    """The name of its file, without ending."""
    instruction: str
    """What published policies are told: the words of the file's name."""
    bddl_file: str
    """Path of the scene and the goal."""
    states_KN: np.ndarray
    """float64 initial states of the simulator, K of them."""


def find_task(suite: str, task: int | str) -> LiberoTask:
    """A task by its number in the suite or by its name.

    Raises `DependencyNotInstalled` without LIBERO, and `ValueError` for what there is not.
    """
    libero = import_libero()
    known = libero.benchmark.get_benchmark_dict()
    if suite not in known:
        raise ValueError(f"LIBERO has no suite {suite!r}; it has {', '.join(sorted(known))}.")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the order of its tasks
        tasks = known[suite]()
    names = tasks.get_task_names()
    index = names.index(task) if isinstance(task, str) and task in names else task
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(names):
        raise ValueError(
            f"{suite} has no task {task!r}; it has the numbers 0 to {len(names) - 1}, or the names {', '.join(names)}."
        )
    found = tasks.get_task(index)
    path = os.path.join(libero.get_libero_path("bddl_files"), found.problem_folder, found.bddl_file)  # noqa: PTH118
    return LiberoTask(suite, index, found.name, found.language, path, np.asarray(tasks.get_task_init_states(index)))


def import_libero() -> ModuleType:
    """`libero.libero`. Raises `DependencyNotInstalled` with what to install."""
    if sys.platform.startswith("linux"):
        # Read when MuJoCo is imported; there is no display where policies are evaluated.
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import libero.libero
        import libero.libero.benchmark
    except ImportError as error:
        raise DependencyNotInstalled(INSTALL.format(missing=error)) from error
    return libero.libero


def horizon_of(suite: str, horizon: int | None) -> int:
    """Control steps of an episode. Raises `ValueError` for a suite of which nothing is published, if none is given."""
    if horizon is not None:
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; an episode has at least one control step.")
        return horizon
    if suite not in HORIZONS:
        raise ValueError(f"Nobody published the length of an episode of {suite!r}: set horizon to control steps.")
    return HORIZONS[suite]
