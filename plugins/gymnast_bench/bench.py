"""`gymnast bench`: matrix -> cells -> rows -> page; what a killed bench left is kept or taken up again."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnast_bench.config import BenchConfig
from gymnast_bench.executors import run_cells
from gymnast_bench.matrix import Cell, cells_of, check_names, command_line, run_config, warnings_of
from gymnast_bench.page import build_bench_page
from gymnast_bench.rows import UNFINISHED, Row, combine, read_row, write_rows
from gymnast_bench.supervisor import DONE
from gymnast_core.errors import ConfigError
from gymnast_core.money import total_usd
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import storing, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.signals import terminating

logger = logging.getLogger(__name__)


def bench_command(config: BenchConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume a bench; writes its folder and returns what the command prints."""
    if Path(config.base).is_file():
        config = replace(config, base=str(Path(config.base).resolve()))
    cells, retry = cells_of(config), config.retry
    check_names(cells)
    if resume is None and config.output is not None and (Path(config.output) / "config.yaml").exists():
        folder = Path(config.output).resolve()
        raise ConfigError(
            f"{folder} already holds a bench. Continue it with {resume_command('bench', folder)}, or set output=FOLDER."
        )
    # Trying again is said each time; it is no part of the bench.
    with terminating(), run_folder(replace(config, retry=False), "bench", resume) as (config, folder):
        return _Bench(replace(config, retry=retry), folder.resolve(), cells).run()


class _Bench:
    """The cells of one bench, by the name of their folder."""

    def __init__(self, config: BenchConfig, folder: Path, cells: Sequence[Cell]) -> None:
        self.config, self.folder = config, folder
        self.cells = {cell.name: cell for cell in cells}
        self.threads = config.threads or max(1, (os.cpu_count() or 1) // config.jobs)
        self.horizons = {name: run_config(cell).loop.horizon for name, cell in self.cells.items()}
        self.warnings = warnings_of(cells)
        self.rows: dict[str, Row] = {}

    def run(self) -> dict[str, Any]:
        """Run the cells that have no result; a result stays, whatever it is, unless it is to be tried again."""
        for warning in self.warnings:
            logger.warning("%s", warning)
        for name in self.cells:
            self._prepare(name)
            self.rows[name] = self._read(name)
        waiting = [self.folder / "cells" / name for name, row in self.rows.items() if row.status == UNFINISHED]
        ended = len(self.cells) - len(waiting)
        self._write()
        with Progress("Cells", len(self.cells), unit="cell", start=ended, log_seconds=0.0) as progress:
            for folder in run_cells(waiting, self.config, self.threads):
                self.rows[folder.name] = self._read(folder.name)
                ended += 1
                self._write()
                progress.update(ended, Counter(row.status for row in self.rows.values() if row.status != UNFINISHED))
        return self._summary()

    def _prepare(self, name: str) -> None:
        """Write cell.json. Raises `ConfigError` if the folder belongs to a cell of other overrides."""
        cell, folder = self.cells[name], self.folder / "cells" / name
        start = cell.arguments(folder / "run")
        python = [sys.executable, "-m", "gymnast_core.cli"]
        path, budget = folder / "cell.json", self.config.budget
        if path.exists() and (known := read_object(path).texts("arguments")) != start:
            changed = " ".join(sorted(set(known) ^ set(start)))
            raise ConfigError(
                f"The cell {cell.title} of {self.folder} was run with other overrides ({changed}). Leave the matrix as "
                "it was to resume (values, seeds and axis labels may be added), or start anew with output=FOLDER."
            )
        spec = {
            "arguments": start,
            "start": [*python, *start],
            "resume": [*python, "train", "--resume", str(folder / "run")],
            "environment": {"OMP_NUM_THREADS": str(self.threads)},
            "minutes": budget.minutes,
            "dollars": budget.dollars,
        }
        write_text(path, json.dumps(spec, indent=1))
        result = folder / "result.json"
        if self.config.retry and result.exists() and read_object(result, allow_nan=True)["status"] != DONE:
            with storing(result):
                result.unlink()

    def _read(self, name: str) -> Row:
        folder = self.folder / "cells" / name
        arguments = self.cells[name].arguments(folder / "run")
        return read_row(self.cells[name], folder, self.horizons[name], command_line(arguments, self.threads))

    def _write(self) -> None:
        rows = list(self.rows.values())
        write_rows(self.folder, rows)
        build_bench_page(self.folder, rows, self.config, self.warnings)

    def _summary(self) -> dict[str, Any]:
        rows = list(self.rows.values())
        summary = {
            "output": str(self.folder),
            "cells": len(rows),
            "statuses": dict(Counter(row.status for row in rows)),
            "results": [
                {
                    "cell": dict(zip(self.config.axes, found.labels, strict=True)),
                    "seeds": f"{found.done} of {found.cells}",
                    "success" if found.measure.is_success else found.measure.name: found.mean,
                    "standard_error": found.standard_error,
                    "interval": found.interval,
                    "gain": found.gain,
                }
                for found in combine(rows)
            ],
            "problems": {row.title: f"{row.status}: {row.reason}" for row in rows if not row.done},
            "frames": sum(row.frames for row in rows),
            "cell_seconds": sum(row.seconds for row in rows),
            "cost_usd": total_usd(row.dollars for row in rows),
        }
        write_text(self.folder / "summary.json", json.dumps(summary, indent=1))
        return summary
