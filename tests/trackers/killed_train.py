"""`gymnast train ARGUMENTS`, killed by SIGKILL after the fourth iteration's numbers, before the second snapshot."""

from __future__ import annotations

import os
import signal
from typing import Any

from gymnast_core import cli
from gymnast_core.runs.writing import SnapshotWriter

_write, _calls = SnapshotWriter.write, [0]


def _dying(writer: SnapshotWriter, *arguments: Any, **options: Any) -> Any:
    _calls[0] += 1
    if _calls[0] == 2:
        writer.wait()  # the first one is complete
        os.kill(os.getpid(), signal.SIGKILL)
    return _write(writer, *arguments, **options)


if __name__ == "__main__":
    SnapshotWriter.write = _dying  # type: ignore[method-assign]
    cli.main()
