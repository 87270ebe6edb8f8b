"""How the leader starts the other processes of a training on its machine, and what it hears of one that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers.launcher import _Launcher
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

PATIENCE = 5.0
"""Seconds from the failure of a process to when the leader is told, and from then to when it must have heard."""


class Watch(threading.Thread):
    """Sees that the leader does not go on, or wait for ever, when another process failed.

    It notices by itself when it next adds numbers up with the others, which may be minutes away. So it is told by
    SIGTERM, upon which it ends as it should. If it does not even hear that, because it waits for the other one in a
    library, it is killed. Lightning's own observer kills it in any case, whatever it is writing: the snapshot after
    Ctrl-C, say, or why the other one failed.
    """

    def __init__(self, others: Sequence[subprocess.Popen[bytes]], patience: float = PATIENCE) -> None:
        super().__init__(daemon=True, name="watch-of-other-processes")
        self._others, self._patience = others, patience
        self._noticed = threading.Event()
        self.spoke = False
        """Whether the leader had to be told."""

    def notice(self) -> None:
        """The leader is ending, and needs no help."""
        self._noticed.set()

    def run(self) -> None:
        while not self._noticed.wait(0.5):
            codes = [process.poll() for process in self._others]
            if all(code == 0 for code in codes):
                return
            if any(codes):
                break
        if self._noticed.wait(self._patience):
            return
        listens = signal.getsignal(signal.SIGTERM)
        self.spoke = True
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._noticed.wait(self._patience) and signal.getsignal(signal.SIGTERM) is listens:
            os.kill(os.getpid(), signal.SIGKILL)


def watching(launcher: _Launcher | None) -> _Launcher | None:
    """In place of Lightning's launcher of further processes, ours; any other as it is."""
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return launcher
    return Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


class Launcher(_SubprocessScriptLauncher):
    """Runs the leader's command again for each of the others, and watches them."""

    watch: Watch | None = None

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **options: Any) -> Any:
        """Start the others, unless torchrun or a scheduler did, and call `function`."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
            self.watch = Watch(self.procs)
            self.watch.start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **options)
