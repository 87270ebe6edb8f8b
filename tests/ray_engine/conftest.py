"""One Ray of this machine for all tests of a module, and parts that its workers find."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_parts

from gymnast_core.plugins import discovery, hooks


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The dot on a line is installed."""
    folder = tmp_path_factory.mktemp("installed")
    ray_parts.install(folder)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture(autouse=True)
def no_installed_hooks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What reports and judges do during a run is tested with them."""
    found = discovery.sources
    monkeypatch.chdir(tmp_path)
    hooks.plugin_manager.cache_clear()
    monkeypatch.setattr(discovery, "sources", lambda group: {} if group == "gymnast.hooks" else found(group))
    yield
    hooks.plugin_manager.cache_clear()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=80 * 2**20,
    )  # fmt: skip
    yield
    ray.shutdown()
