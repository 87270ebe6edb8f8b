"""Where environments live: the section `hosting` of every config that has some."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gymnast_core.config.ranges import Count, Positive, ZeroOrMore

SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
"""Names of environment variables that no simulator needs to know."""
OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""What would lead another interpreter into our packages."""


@dataclass(frozen=True)
class Hosting:
    """Processes, their number and their patience.

    An environment gets a process of its own, since renderers that share one draw each other's textures; only those
    whose class says `metadata["gymnast_shared_process"] = True` run in this process, unless `python` is set.
    """

    python: str | None = None
    """Interpreter in which environments run, as "/home/me/libero/bin/python": its packages need not agree with ours.
    It needs Python 3.9 or later, numpy, gymnasium 1.0 or later and the environment. Null: this one."""
    workers: ZeroOrMore | None = None
    """Environments that step at once; null: as many as this process has cores; 0: all of them in this process, one
    after another (to debug; a crash then takes the run along)."""
    max_environments: Count = 8
    """Environments with a process of their own that are alive at once, which bounds memory. Larger batches of episodes
    are split; idle environments are closed when others need their place. Those in this process are not counted."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of the workers beside those of this process, as {MUJOCO_GL: egl}. Keys and tokens are not
    handed on."""
    make_timeout_s: Positive = 600.0
    """Seconds until an environment that is being made counts as hanging."""
    reset_timeout_s: Positive = 300.0
    """The same for a reset."""
    step_timeout_s: Positive = 120.0
    """The same for one action."""

    @property
    def parallel(self) -> int:
        """Environments that step at once, at least 1."""
        return max(1, cores() if self.workers is None else self.workers)


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_variables(hosting: Hosting, ours: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a worker: ours without secrets, one thread each unless somebody said otherwise.

    Software rendering has one, too (Mesa's LP_NUM_THREADS; 0 is the thread that asks for a picture).
    """
    kept = {name: value for name, value in ours.items() if not SECRET.search(name)}
    if hosting.python is not None:
        kept = {name: value for name, value in kept.items() if name not in OURS}
    alone = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
    return {**alone, "PYTHONUNBUFFERED": "1", **kept, **hosting.variables}
