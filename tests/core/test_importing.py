"""Imports without the garbage collector in their way."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gymnast_core.plugins.importing import undisturbed

HEAVY = """
import gc
collections = []
gc.callbacks.append(lambda phase, about: collections.append(about["generation"]) if phase == "stop" else None)
from gymnast_core.plugins.importing import undisturbed
with undisturbed():
    collections.clear()
    import decimal, email.message, http.client, xml.dom.minidom
    inside = len(collections)
print(inside, gc.isenabled(), gc.get_freeze_count() > 1000)
"""


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_nothing_is_collected_while_modules_come_and_they_are_left_alone_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "True"]


def test_where_nothing_was_imported_nothing_is_frozen() -> None:
    frozen = gc.get_freeze_count()
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def test_an_error_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), undisturbed():
        raise ImportError
    assert gc.isenabled()


def test_who_has_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with undisturbed():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
