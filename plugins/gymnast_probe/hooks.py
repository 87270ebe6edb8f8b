"""The hook through which `gymnast view` gets the page of a probe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnast_core.plugins import events


def gymnast_build_page(event: events.PageWanted) -> Path | None:
    """`probe.html` of a folder that `gymnast probe` wrote."""
    from gymnast_core.runs.results import read_kind

    if read_kind(event.folder) != "probe":
        return None
    from gymnast_probe.page import build_probe_page

    return build_probe_page(event.folder)
