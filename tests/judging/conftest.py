"""Parts that the tests of judges share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymnast_core import cli

for neighbour in ("run", "vlm_reward"):  # for `bandit`, `judging`
    sys.path.append(str(Path(__file__).parents[1] / neighbour))


@pytest.fixture
def gymnast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
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
        return code, written.out, written.err

    return call


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789-secret")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parts of `line_parts`, registered for one test."""
    import line_parts

    from gymnast_core.plugins.registry import registries

    known = registries()
    for registry in known:
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    line_parts.install()
    line_parts.Judge.calls, line_parts.Judge.fail, line_parts.Judge.announced = [], lambda rollout: False, []
    return line_parts
