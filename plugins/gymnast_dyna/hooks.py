"""The hook through which `gymnast view` gets the page of the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnast_core.plugins import events


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """`dyna.html` of a folder that `gymnast dyna` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "dyna":
        return None
    from gymnast_dyna.page import build_dyna_page

    return build_dyna_page(event.folder)
