"""What `gymnast view` shows of a folder: the pages there are, or the one that a plugin can build."""

from __future__ import annotations

from pathlib import Path

from gymnast_core.errors import DataError, GymnastError
from gymnast_core.plugins.events import PageWanted
from gymnast_core.plugins.hooks import tell
from gymnast_pages.server import find_pages


def prepare(folder: Path) -> None:
    """Build the page of a folder that has none yet. Raises `DataError` if the folder holds nothing to show."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give one that a command printed, e.g. runs/....")
    if not find_pages(folder):
        build_page(folder)


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
