"""Parts that the tests of evaluations share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_parts import Command, Judge

from gymnast_core import cli
from gymnast_core.plugins.compose import registries

for neighbour in ("run", "bench"):  # for `bandit`, `bench_parts`
    sys.path.append(str(Path(__file__).parents[1] / neighbour))


@pytest.fixture
def gymnast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def call(*line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gymnast", *line])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return call


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> type[Judge]:
    known = registries().reward_models
    monkeypatch.setattr(known, "_registered", dict(known._registered))
    known.register("listed-judge", Judge)
    Judge.answers, Judge.announced = [], []
    return Judge
