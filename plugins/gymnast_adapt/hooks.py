"""The hook through which `gymnast view` gets the page of an adaptation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnast_core.plugins import events


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """`adapt.html` of a folder that `gymnast adapt` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "adapt":
        return None
    from gymnast_adapt.page import build_adaptation_page

    return build_adaptation_page(event.folder)
