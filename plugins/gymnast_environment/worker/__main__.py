"""A worker process, `python path/to/worker/__main__.py FD LIFE`: answers requests until nobody is there to ask.

FD is the socket, LIFE the reading end of a pipe whose writing end only the process that started us holds: when that
one dies, however it dies, the kernel ends us, even in the middle of a step. Requests have a key "do":

    make      id, args, entry?, view, path?   -> about
    rehearse  seed, options, constant         -> verdict
    reset     seed, options                   -> sensed
    step      the array "actions" (L, A)      -> L times sensed
    expert    function?                       -> the array "action"
    call      method, keywords                -> value

An answer has "ok": true, or "ok": false with "error" and "refused" (what the user can set right, or null).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

NAME = "gymnast_environment_worker"


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us decides what Ctrl-C ends
    load_package()
    from gymnast_environment_worker.serving import serve  # type: ignore[import-not-found]

    serve(connection)


def die_with_parent(life: int) -> None:
    """End this process when the pipe's other end is closed."""
    os.set_inheritable(life, False)
    try:
        # A signal, since a thread does not run while a simulator hangs in C with Python's lock held.
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    except (AttributeError, OSError):  # not on this system: the thread must do
        pass
    threading.Thread(target=watch, args=(life,), daemon=True).start()


def watch(life: int) -> None:
    waiting = select.poll()
    waiting.register(life, select.POLLIN | select.POLLHUP)
    waiting.poll()
    os._exit(1)


def load_package() -> Any:
    """This folder as a package of its own, without its parent folders in `sys.path`: they hold other packages."""
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, str(folder / "__init__.py"), submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    return package


if __name__ == "__main__":
    main()
