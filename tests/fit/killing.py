"""`gymnast fit` in processes of its own that can be killed at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import toy

from gymnast_core import cli
from gymnast_core.runs import snapshot
from gymnast_core.runs.writing import SnapshotWriter

MOMENTS = ("in a step", "after a row of the log", "while a snapshot is written", "while the checkpoint is written")


def run(
    arguments: list[str],
    moment: str | None = None,
    environment: Mapping[str, str] | None = None,
    script: str = "gymnast",
) -> None:
    """What the process does; exit code 0 if it ended by itself."""
    os.environ.update(environment or {})
    # As in a process that a shell has started: workers are its children, and end when it is killed.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    toy.register()
    if moment is not None:
        _arrange_death(moment)
    sys.argv = [script, *arguments]
    cli.main()


def run_in_session(arguments: list[str], output: Path) -> None:
    """`run` as a terminal's foreground job would: in a session of its own, its output in `output`.out and .err."""
    os.setsid()
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    # Lightning starts the second process by running the script again.
    run(arguments, script=str(Path(__file__).with_name("gymnast_toys.py")))


def _arrange_death(moment: str) -> None:
    if moment == "in a step":
        toy.Toy.training_loss = _dying(toy.Toy.training_loss, calls=6)  # type: ignore[method-assign]
    elif moment == "after a row of the log":
        SnapshotWriter.write = _dying(SnapshotWriter.write, calls=2)  # type: ignore[method-assign]
    elif moment == "while a snapshot is written":
        snapshot.save_file = _dying(snapshot.save_file, calls=2, after=True)
    elif moment == "while the checkpoint is written":
        toy.Toy.save = _dying(toy.Toy.save, calls=1)  # type: ignore[method-assign]


def _dying(function: Callable[..., Any], calls: int, after: bool = False) -> Callable[..., Any]:
    """`function` whose n-th call is the end of the process, before or after its work."""
    made = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == calls and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if made == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call
