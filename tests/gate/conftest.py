"""Gates are tested with the loop's own small parts, which lie beside its tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

for neighbour in ("run", "training"):
    sys.path.append(str(Path(__file__).parents[1] / neighbour))


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The street, registered for one test; nobody has been asked yet."""
    from gate_parts import Dream, Onlooker, Street, install

    from gymnast_core.plugins.registry import registries

    for registry in registries():
        monkeypatch.setattr(registry, "_registered", dict(registry._registered))
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    install()
    for cls in (Street, Dream):
        cls.resets.clear()
    Onlooker.calls.clear()


@pytest.fixture
def gymnast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line with an empty working directory."""
    from small import CommandLine

    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)
