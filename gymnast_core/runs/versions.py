"""What ran: the versions and the command that a run's numbers belong to."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_REPORTED_PACKAGES = (
    "gymnast",
    "torch",
    "lightning",
    "transformers",
    "mujoco",
    "gymnasium",
    "numpy",
    "av",
    "safetensors",
)


def versions() -> dict[str, Any]:
    """What ran: Python, platform, packages, git revision of the working directory, command line."""
    packages = {}
    for name in _REPORTED_PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    revision, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "git_revision": revision,
        "git_dirty": bool(changes) if revision else None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
