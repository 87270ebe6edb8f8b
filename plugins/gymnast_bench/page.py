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
from gymnast_bench.rows import UNFINISHED, Combination, Row, combine
from gymnast_core.money import total_usd
from gymnast_core.runs.atomic import write_text
from gymnast_pages import claims
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.facts import Facts, facts_of, listed
from gymnast_pages.measure import SUCCESS, Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, duration

MOST_CONFIGS = 100
"""Cells whose configs are read for what stands beside the first number."""


def build_bench_page(folder: Path, rows: Sequence[Row], config: BenchConfig, warnings: Sequence[str] = ()) -> Path:
    """Write `folder/report.html` and return its path; cells that have not ended are shown as such.

    `warnings` are what reading the cells' configs warns of, such as arguments that a swap of components drops.
    """
    context = {**_context(folder, rows, config), "warnings": warnings}
    html = _environment().get_template("bench.html.j2").render(context)
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
    measures = list(dict.fromkeys(found.measure for found in measured)) or [SUCCESS]
    quoted = shlex.quote(str(folder))
    return {
        "title": folder.name,
        "axes": list(config.axes),
        "seed_name": SEED,
        "rows": rows,
        "combinations": combinations,
        "headline": _headline(rows, measured, measures),
        "value": max((found.mean for found in measured if found.mean is not None), default=None),
        "facts": _facts(folder, rows),
        "measure": measures[0] if len(measures) == 1 else None,
        "ended": sum(row.status != UNFINISHED for row in rows),
        "problems": problems,
        "unfinished": UNFINISHED,
        "reports": {row.cell for row in rows if (folder / "cells" / row.cell / "run/report.html").exists()},
        "charts": [chart for chart in _charts(rows) if chart.svg()],
        "totals": {
            "seconds": sum(row.seconds for row in rows),
            "frames": sum(row.frames for row in rows),
            "dollars": total_usd(row.dollars for row in rows),
        },
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Go on, or add values and seeds", f"gymnast bench --resume {quoted}"),
            ("Try again what failed", f"gymnast bench --resume {quoted} retry=true"),
            ("Repeat it all", f"gymnast bench {quoted}/config.yaml output={quoted}-again"),
        ],
    }


def _headline(rows: Sequence[Row], measured: Sequence[Combination], measures: Sequence[Measure]) -> str:
    """What the bench may claim; what different judges gave cannot be compared."""
    if not measured:
        return "Nothing was evaluated" if all(row.status != UNFINISHED for row in rows) else "No result yet"
    if len(measures) > 1:
        return "Results by several judges"
    candidates = [
        claims.Candidate(
            ", ".join(found.labels) or "base",
            found.mean,
            None if found.gain is None else claims.Change(found.gain, found.gain_interval, degrees=found.gain_degrees),
        )
        for found in measured
        if found.mean is not None
    ]
    return claims.best(measures[0], candidates, "the policy before training")


def _facts(folder: Path, rows: Sequence[Row]) -> Facts:
    """What the cells that began have in common, and in what they differ."""
    configs = [folder / "cells" / row.cell / "run/config.yaml" for row in rows[:MOST_CONFIGS]]
    found = [facts_of(file.read_text(encoding="utf-8")) for file in configs if file.exists()]
    judged = [row.after if row.after.n else row.before for row in rows]
    trials, judges = sum(measured.n for measured in judged), [measured.judge for measured in judged]
    seeds = len({row.seed for row in rows if row.done})
    return Facts(
        judge=listed([*judges, *(facts.judge for facts in found)]),
        world=listed([facts.world for facts in found]),
        policy=listed([facts.policy for facts in found]),
        algorithm=listed([facts.algorithm for facts in found]),
        n=f"{counted(trials, 'trial')} over {counted(seeds, 'seed')}" if trials else "",
    )


def _charts(rows: Sequence[Row]) -> list[Chart]:
    """A panel a combination and measure, those of a measure on one scale, a line a seed: what was imagined, and what
    the evaluations measured."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.combination, []).append(row)
    charts = []
    for labels, group in groups.items():
        panels: dict[Measure, list[Series]] = {SUCCESS: [], _IMAGINED: []}
        for row in group:
            for measure, curve in ((SUCCESS, row.imagined_success), (_IMAGINED, row.imagined_reward)):
                points = [Point(x, y) for x, y in curve]
                panels[measure].append(Series(f"seed {row.seed}, in training", points))
        for row in group:
            judged = row.after if row.after.n else row.before
            measure = SUCCESS if judged.measure.is_success else judged.measure
            points = [Point(*point) for point in row.evaluations]
            panels.setdefault(measure, []).append(Series(f"seed {row.seed}, evaluated", points, "dots"))
        title = ", ".join(labels) or "base"
        for measure, series in panels.items():
            bounds = (0.0, 1.0) if measure.is_success else None
            charts.append(Chart(title, measure.name, series, y_range=bounds, percent=measure.is_success))
    return charts


_IMAGINED = Measure("score", "the run's own judge")
"""What a run learned from, where that is no success."""


def memory(size: int) -> str:
    """3_200_000_000 -> "3.2 GB"; 0 -> "" (unknown)."""
    return f"{size / 1e9:.1f} GB" if size else ""


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_bench", duration=duration, memory=memory)
