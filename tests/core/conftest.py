"""A folder that stands for site-packages, and the command line run against it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gymnast_core.plugins import compose, hooks


class SitePackages:
    """Real `*.dist-info` folders and modules in a folder that is put on the path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, distribution: str, entry_points: str | bytes = "", modules: dict[str, str] | None = None) -> None:
        info = self.path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        text = entry_points.encode() if isinstance(entry_points, str) else entry_points
        (info / "entry_points.txt").write_bytes(text)
        for name, source in (modules or {}).items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """`python COMMAND` with this folder on the path."""
        environment = {**os.environ, "PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def gymnast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "gymnast_core.cli", *arguments)


@pytest.fixture
def outside(tmp_path: Path) -> SitePackages:
    """A folder that only subprocesses see."""
    return SitePackages(tmp_path)


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SitePackages:
    """A folder on this process's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return SitePackages(tmp_path)


@pytest.fixture
def fresh():
    """No registries or hooks are remembered, before and after."""

    def clear() -> None:
        hooks.plugin_manager.cache_clear()
        compose.registries.cache_clear()

    clear()
    yield
    clear()
