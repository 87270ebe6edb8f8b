"""Builds a bench's `report.html`: one file that works offline."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from gymnast_bench.config import BenchConfig
from gymnast_bench.matrix import SEED
from gymnast_bench.rows import UNFINISHED, Row, combine
from gymnast_core.runs.atomic import write_text
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.templates import templates
from gymnast_pages.wording import duration, interval, percent, points

COLOURS = 8
"""Distinct colours of a chart's series; later ones begin anew."""


def build_bench_page(folder: Path, rows: Sequence[Row], config: BenchConfig) -> Path:
    """Write `folder/report.html` and return its path; cells that have not ended are shown as such."""
    html = _environment().get_template("bench.html.j2").render(_context(folder, rows, config))
    target = folder / "report.html"
    write_text(target, html)
    return target


def _context(folder: Path, rows: Sequence[Row], config: BenchConfig) -> dict[str, Any]:
    combinations = combine(rows)
    problems: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.done and row.status != UNFINISHED:
            problems.setdefault((row.status, row.reason), []).append(row)
    measured = [found for found in combinations if found.mean is not None]
    quoted = shlex.quote(str(folder))
    return {
        "title": folder.name,
        "axes": list(config.axes),
        "seed_name": SEED,
        "rows": rows,
        "combinations": combinations,
        "best": max(measured, key=lambda found: found.mean or 0.0, default=None),
        "ended": sum(row.status != UNFINISHED for row in rows),
        "problems": problems,
        "unfinished": UNFINISHED,
        "reports": {row.cell for row in rows if (folder / "cells" / row.cell / "run/report.html").exists()},
        "charts": [chart for chart in _charts(rows) if chart.svg()],
        "colours": COLOURS,
        "totals": {
            "seconds": sum(row.seconds for row in rows),
            "frames": sum(row.frames for row in rows),
            "dollars": sum(row.dollars for row in rows),
        },
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Go on, or add values and seeds", f"gymnast bench --resume {quoted}"),
            ("Try again what failed", f"gymnast bench --resume {quoted} retry=true"),
            ("Repeat it all", f"gymnast bench {quoted}/config.yaml output={quoted}-again"),
        ],
    }


def _charts(rows: Sequence[Row]) -> list[Chart]:
    """A panel a combination on one scale, a line a seed: imagined success, and what the evaluations measured."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.combination, []).append(row)
    charts = []
    for labels, group in groups.items():
        series = [
            Series(f"seed {row.seed}, in training", [Point(x, y) for x, y in row.imagined_success]) for row in group
        ]
        series += [
            Series(f"seed {row.seed}, evaluated", [Point(*point) for point in row.evaluations], "dots") for row in group
        ]
        charts.append(Chart(", ".join(labels) or "base", "success", series, y_range=(0.0, 1.0), percent=True))
    return charts


def memory(size: int) -> str:
    """3_200_000_000 -> "3.2 GB"; 0 -> "" (unknown)."""
    return f"{size / 1e9:.1f} GB" if size else ""


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates(
        "gymnast_bench", percent=percent, points=points, interval=interval, duration=duration, memory=memory
    )
