"""What `gymnast view` shows of a folder: the pages there are, or the one that can be built."""

from __future__ import annotations

from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_pages.server import find_pages


def prepare(folder: Path) -> None:
    """Build the page of a run that has none yet. Raises `DataError` if the folder holds nothing that can be shown."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give one that a command printed, e.g. runs/....")
    if find_pages(folder):
        return
    if (folder / "results.jsonl").exists():
        from gymnast_evaluation.page import build_evaluation_page

        build_evaluation_page(folder)
    else:
        from gymnast_report.report import build_report

        build_report(folder)
