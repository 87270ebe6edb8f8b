"""`gymnast fit` in processes of its own that can be killed at a chosen moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
import toy

from gymnast_core import cli, snapshot
from gymnast_fit import module

MOMENTS = ("in a step", "after a row of the log", "while a snapshot is written", "while the checkpoint is written")


def run(arguments: list[str], moment: str | None = None) -> None:
    """What the process does; exit code 0 if it ended by itself."""
    torch.set_num_threads(1)
    toy.register()
    if moment is not None:
        _arrange_death(moment)
    sys.argv = ["gymnast", *arguments]
    cli.main()


def _arrange_death(moment: str) -> None:
    if moment == "in a step":
        toy.Toy.training_loss = _dying(toy.Toy.training_loss, calls=6)  # type: ignore[method-assign]
    elif moment == "after a row of the log":
        module.save_snapshot = _dying(module.save_snapshot, calls=2)  # type: ignore[assignment]
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
