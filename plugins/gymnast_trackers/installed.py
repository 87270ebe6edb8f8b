"""Whether a tracker's library is there."""

from __future__ import annotations

import importlib.util

from gymnast_core.errors import ConfigError


def require(module: str, section: str, extra: str) -> None:
    """Raises `ConfigError` with the command that installs `module`, if it is missing."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"hooks.{section} needs the library {module}, which is not installed. Type `pip install "
            f"'gymnast[{extra}]'`, or leave hooks.{section} out."
        )
