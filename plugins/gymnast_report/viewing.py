"""The pages that `gymnast view` makes on request, and when it builds those of runs again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from threading import Lock

import jinja2

from gymnast_core.errors import DataError
from gymnast_core.runs.results import read_run
from gymnast_pages.server import FolderServer, find_pages
from gymnast_pages.state import WORDS, state_of
from gymnast_pages.templates import templates
from gymnast_pages.wording import p_value
from gymnast_report.compare import context
from gymnast_report.runs import run_row, run_rows
from gymnast_report.view import freshen, is_stale, runs_in

MOST = 12
"""Runs in one comparison."""
SHARE = 0.1
"""Of one core: what building one folder's page again may take, however often it is asked for."""


def viewer(folder: Path, port: int = 0) -> FolderServer:
    """A server of a folder: of one run, its page; of several, a start page and comparisons. Raises `ConfigError`."""
    folder = folder.resolve()
    made = {"compare": lambda query: compare_page(folder, query.get("run", []))}
    if not (folder / "config.yaml").is_file() and any(runs_in(folder)):
        made[""] = lambda query: start_page(folder)
    return FolderServer(folder, port, made=made, freshen=Freshener())


class Freshener:
    """Builds pages of runs again, but not so often that the run it watches would feel it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._next: dict[Path, float] = {}
        self._states: dict[Path, str] = {}

    def __call__(self, folder: Path) -> None:
        with self._lock:
            now = self._clock()
            state = state_of(folder).name if (folder / "config.yaml").is_file() else ""
            changed = self._states.get(folder) != state
            if not changed and now < self._next.get(folder, 0.0):
                return
            self._states[folder] = state
            if not is_stale(folder):
                return
            began = time.thread_time()
            freshen(folder)
            self._next[folder] = self._clock() + (time.thread_time() - began) / SHARE


def start_page(folder: Path) -> str:
    """The list of the runs in a folder."""
    rows = run_rows(folder)
    listed = {row.page for row in rows}
    return _environment().get_template("start.html.j2").render(
        title=folder.name, rows=rows, words=WORDS, counts=Counter(row.state.name for row in rows),
        others=[page for page in find_pages(folder) if page not in listed],
    )  # fmt: skip


def compare_page(folder: Path, names: list[str]) -> str:
    """Runs of a folder beside each other, the first one as the baseline. Raises `DataError`."""
    known = {path.relative_to(folder).as_posix(): path for path in runs_in(folder)}
    chosen = list(dict.fromkeys(names))
    strange = [name for name in chosen if name not in known]
    if strange:
        raise DataError(f"There is no run {strange[0]!r} here.")
    if not 2 <= len(chosen) <= MOST:
        raise DataError(f"Compare 2 to {MOST} runs; {len(chosen)} were given.")
    runs = {name: read_run(known[name]) for name in chosen}
    rows = [run_row(known[name], folder) for name in chosen]
    values: Mapping[str, object] = context(runs)
    return _environment().get_template("compare.html.j2").render(rows=rows, **values)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_report", p_value=p_value)
