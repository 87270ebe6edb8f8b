"""How the processes of one training end together.

Lightning starts the others by running the command again, or a launcher (torchrun, Slurm) starts all of them. Process 0
leads: it alone logs, evaluates and writes.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch

from gymnast_core.errors import GymnastError
from gymnast_core.training.launcher import Watch

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""
_ENDING_SECONDS = 30.0
"""From a connection that breaks to the end of the process behind it, at most."""


@contextmanager
def together(trainer: lightning.Trainer, advice: str) -> Iterator[None]:
    """Around the training of this process. `advice` says what to do when a process was killed."""
    if not trainer.is_global_zero:
        follow()
    with ending_together(trainer, advice) if trainer.is_global_zero else led():
        yield


def follow() -> None:
    """Let the leader end this process: Ctrl-C, and a scheduler's SIGTERM, reach all processes, and one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not _started_by_lightning():
        return
    # A leader that is killed cannot stop anyone, and a peer that waits for it on a GPU waits for long.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def ending_together(trainer: lightning.Trainer, advice: str) -> Iterator[None]:
    """In the leader: an error here ends the other processes; an error there ends this one without a second message."""
    try:
        yield
    except BaseException as error:
        others: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
        watch: Watch | None = getattr(trainer.strategy.launcher, "watch", None)
        if watch is not None:
            watch.notice()
        told = watch is not None and watch.spoke
        broken = _failed(others) if others and (told or _disconnected(error)) else None
        for process in others:
            process.kill()
        if broken is None:
            raise
        if broken.returncode > 0:
            raise SystemExit(broken.returncode) from error  # it has said why
        raise GymnastError(
            f"Training process {broken.pid} was killed ({signal.Signals(-broken.returncode).name}), most often because "
            f"memory ran out: {advice}"
        ) from error


@contextmanager
def led() -> Iterator[None]:
    """In another process than the leader: a connection that breaks means that the leader ended, and said why."""
    try:
        yield
    except RuntimeError as error:
        if _disconnected(error):
            raise SystemExit(1) from error
        raise


def _disconnected(error: BaseException) -> bool:
    """Whether a collective failed, which is how the end of another process shows here. Gloo has no class for it."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _failed(processes: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes] | None:
    """A process that ended with an error, or is just about to; None if all go on."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while time.monotonic() < deadline:
        if ended := next((process for process in processes if process.poll()), None):
            return ended
        time.sleep(0.05)
    return None


def _started_by_lightning() -> bool:
    return "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_PROCID" not in os.environ
