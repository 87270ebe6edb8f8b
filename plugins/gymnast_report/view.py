"""What `gymnast view` shows of a folder: the pages there are, brought up to date, or those that a plugin can build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.plugins.events import PageWanted
from gymnast_core.plugins.hooks import tell
from gymnast_pages.built import BUILT_PAGES
from gymnast_pages.server import find_pages
from gymnast_pages.state import state_of

SOURCES = (
    "config.yaml", "metrics.csv", "summary.json", "state.json", "resumed.json", "alarms.jsonl", "results.jsonl",
    "rows.jsonl", "groups.jsonl", "videos/index.json", "evaluations/*.json", "judging/*.jsonl",
)  # fmt: skip
"""What pages are made of."""


def prepare(folder: Path) -> None:
    """Build the page of a folder that has none yet, or an old one. Raises `DataError` if it holds nothing to show."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give one that a command printed, e.g. runs/....")
    if (folder / "config.yaml").is_file():
        if find_pages(folder):
            freshen(folder)
        else:
            build_page(folder)
    elif not find_pages(folder) and not any(runs_in(folder)):
        build_page(folder)


def freshen(folder: Path) -> None:
    """Build the page of a folder again if it is older than what it shows; an old one stays where that fails."""
    try:
        if is_stale(folder):
            build_page(folder)
    except GymnastError:
        if not any((folder / name).exists() for name in BUILT_PAGES):
            raise


def is_stale(folder: Path) -> bool:
    """Whether the page is missing, older than its sources, or says another state than the run is in."""
    page = next((folder / name for name in BUILT_PAGES if (folder / name).exists()), None)
    if page is None:
        return True
    written = page.stat().st_mtime_ns
    if any(path.stat().st_mtime_ns > written for name in SOURCES for path in folder.glob(name)):
        return True
    with page.open(encoding="utf-8", errors="replace") as file:
        said = re.search(r'data-state="(\w+)"', file.read(400))
    return said is not None and said[1] != state_of(folder).name


def runs_in(folder: Path) -> Iterator[Path]:
    """Folders that commands left, in this one or below it; hidden ones left out."""
    for config in sorted(folder.rglob("config.yaml")):
        if not any(part.startswith(".") for part in config.relative_to(folder).parts):
            yield config.parent


def build_page(folder: Path) -> Path:
    """Have the page of a folder written by the plugin whose it is; its path.

    Raises `DataError` if it is nobody's, and what that plugin raises of damaged files.
    """
    built = tell("gymnast_build_page", PageWanted(folder), passing=(GymnastError,))
    if built:
        return Path(built[0])
    if not folder.is_dir():
        found = "no such folder"
    elif not (folder / "config.yaml").is_file():
        found = "it holds no config.yaml"
    else:
        found = "no installed plugin builds a page of what it holds"
    raise DataError(f"{folder} is not a run folder: {found}. Give the folder that a command printed.")
