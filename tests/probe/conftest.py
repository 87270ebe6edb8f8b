"""Parts that the tests of probes share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from editing_server import Server

from gymnast_core import cli

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))  # for `evaluation_parts`
sys.path.append(str(Path(__file__).parents[1] / "core"))  # for `escapings`

from evaluation_parts import Command


@pytest.fixture
def gymnast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def call(*line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gymnast", *map(str, line)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        written = capsys.readouterr()
        return code or 0, written.out, written.err

    return call


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
