"""`gymnast` in processes of its own that begin at once: forked from a server that has imported what trainings need.

What happens before and within the imports is not shown that way; `sys.executable -m gymnast_core.cli` shows it.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from forked import Forked

PRELOADED = [
    "gymnast_core.training.run", "gymnast_fit.fit", "gymnast_report.report", "torch.utils.tensorboard",
    "gymnast_openvla_oft.policy", "gymnast_worldgym.world_model", "gymnast_success_classifier.reward",
]  # fmt: skip


def forkserver() -> ForkServerContext:
    """Where such processes come from: one server for whoever asks in this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Launched(Forked):
    """`gymnast WORDS`, as `subprocess.Popen` would have it; its output goes to files."""

    def __init__(
        self, words: Sequence[object], folder: Path | None = None, environment: Mapping[str, str] = {}
    ) -> None:
        """`environment` is added to this process's; PYTHONPATH in it counts, too."""
        self._output = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._output, ignore_errors=True)
        (self._output / "err").touch()
        variables = {"OMP_NUM_THREADS": "1", **environment}
        arguments = ([str(word) for word in words], folder or Path.cwd(), variables, self._output)
        super().__init__(forkserver().Process(target=_gymnast, args=arguments))

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote on stdout and stderr, once it has ended."""
        self.wait(timeout)
        return (self._output / "out").read_text(), self.said()

    def said(self) -> str:
        """What it wrote on stderr so far."""
        return (self._output / "err").read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def gymnast(
    *words: object, folder: Path | None = None, environment: Mapping[str, str] = {}, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """`gymnast WORDS` from beginning to end."""
    launched = Launched(words, folder, environment)
    try:
        out, err = launched.communicate(timeout)
    finally:
        launched.kill()
    return subprocess.CompletedProcess(["gymnast", *map(str, words)], launched.wait(), out, err)


def _gymnast(words: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path) -> None:
    """What the process does; it ends as an interpreter does that was started for this."""
    import torch

    from gymnast_core import cli

    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # Lightning starts further processes by running the script of this one again.
    sys.modules["__main__"].__spec__ = None
    sys.argv = [str(Path(sys.executable).with_name("gymnast")), *words]
    try:
        cli.main()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
