"""Where LIBERO is: in the interpreter that runs the tests, and in the one that GYMNAST_LIBERO_PYTHON names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

import gymnast_libero  # noqa: F401


@pytest.fixture(scope="session")
def libero() -> None:
    """Skips unless LIBERO is installed in this interpreter."""
    if importlib.util.find_spec("libero") is None:
        pytest.skip("LIBERO is not installed in this interpreter: pip install 'gymnast-libero[environment]'")


@pytest.fixture(scope="session")
def libero_python() -> str:
    """Another interpreter, one with LIBERO; skips if nobody names it."""
    python = os.environ.get("GYMNAST_LIBERO_PYTHON")
    if not python:
        pytest.skip("GYMNAST_LIBERO_PYTHON names no interpreter with gymnast-libero[environment]")
    return python


@pytest.fixture(scope="module")
def stove(libero: None) -> Iterator[Any]:
    """ "Turn on the stove", in small pictures."""
    environment = gymnasium.make(
        "gymnast/Libero-v0", suite="libero_goal", task=7, image_size=64, horizon=6, disable_env_checker=True
    )
    yield environment
    environment.close()
