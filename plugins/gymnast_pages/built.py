"""Which page belongs to what a command left."""

from __future__ import annotations

BUILT = {
    "train": "report.html", "fit": "report.html", "evaluate": "evaluation.html", "probe": "probe.html",
    "gate": "gate.html", "adapt": "adapt.html", "dyna": "dyna.html", "judge": "confusion.html",
}  # fmt: skip
"""By command, for those whose page a plugin builds from the folder."""
BUILT_PAGES = tuple(dict.fromkeys(BUILT.values()))
"""The page of a folder that a command left, whichever it was; the first ones are to be shown first."""
PAGES = (*BUILT_PAGES, "index.html")
"""Those, and pages that a command writes once."""
