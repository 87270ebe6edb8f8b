"""The loop's tests: their parts, some of which lie beside those of whole runs, and no hooks but their own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gymnast_core.plugins import discovery, hooks

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))


@pytest.fixture(autouse=True)
def no_installed_hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What reports and judges do during a run is tested with them."""
    found = discovery.sources
    hooks.plugin_manager.cache_clear()
    monkeypatch.setattr(discovery, "sources", lambda group: {} if group == "gymnast.hooks" else found(group))
    yield
    hooks.plugin_manager.cache_clear()
