"""Builds `dyna.html`: one file that works offline."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_pages import claims
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.facts import Facts, facts_of, part
from gymnast_pages.measure import Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted

STAGES = {"collect": None, "world_model": None, "reward_model": None, "train": "report.html"}
"""Stage -> its page, where it has one."""


def build_dyna_page(folder: Path) -> Path:
    """Write `folder/dyna.html` and return its path. Raises `DataError` if no round has ended."""
    path = folder / "summary.json"
    if not path.exists():
        raise DataError(f"{folder} holds no summary.json: no round has ended. {resume_command('dyna', folder)}")
    summary = read_object(path, allow_nan=True).values
    html = _environment().get_template("dyna.html.j2").render(_context(folder, summary))
    target = folder / "dyna.html"
    write_text(target, html)
    return target


def _context(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    rows = summary["rounds"]
    last = rows[-1]
    worlds, reference = list(last["measured"]), last["reference"]
    measures = {world: Measure(last["judges"][world]["kind"], last["judges"][world]["name"]) for world in worlds}
    change = _change(folder, rows, reference)
    quoted = shlex.quote(str(folder))
    return {
        "title": folder.resolve().name,
        "state": summary["state"],
        "cost_usd": summary.get("cost_usd", 0.0),
        "rows": rows,
        "worlds": worlds,
        "measures": measures,
        "reference": reference,
        "headline": _headline(rows, reference, measures[reference], change),
        "change": change,
        "facts": _facts(folder, last),
        "last": last["measured"][reference],
        "fitted": _columns(rows),
        "charts": [_chart(rows, world, measures[world]) for world in worlds],
        "links": {row["label"]: _links(folder, row["label"]) for row in rows},
        "policy": summary["policy"],
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Go on after a stop, or add a round", f"gymnast dyna --resume {quoted} rounds={_rounds(rows) + 1}"),
            ("Repeat it", f"gymnast dyna {quoted}/config.yaml output={quoted}-again"),
        ],
    }


def _rounds(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many rounds there were: rows are also of the start, and of practice before the first round."""
    return sum(row["label"].startswith("round-") and row["label"] != "round-0" for row in rows)


def _change(folder: Path, rows: Sequence[Mapping[str, Any]], world: str) -> claims.Change | None:
    """The last policy's difference from the first one, paired, where that was measured."""
    path, pair = folder / "evaluation" / "summary.json", {rows[0]["label"], rows[-1]["label"]}
    found = read_object(path, allow_nan=True).values.get("comparisons", []) if path.exists() else []
    for row in found:
        if row["world"] == world and {row["first"], row["second"]} == pair and row["interval"] is not None:
            if row["second"] == rows[-1]["label"]:
                return claims.Change(row["difference"], tuple(row["interval"]), row["n"])
            return claims.Change(-row["difference"], (-row["interval"][1], -row["interval"][0]), row["n"])
    return None


def _headline(rows: Sequence[Mapping[str, Any]], world: str, measure: Measure, change: claims.Change | None) -> str:
    """What may be said of the first policy and the last one."""
    first, last = (row["measured"][world] for row in (rows[0], rows[-1]))
    if change is None:
        numbers = f"{measure.value(first['rate'])} before, {measure.value(last['rate'])} after {rows[-1]['label']}"
        return f"{measure.title} in {world}: {numbers}"
    said = claims.change(measure, first["rate"], last["rate"], change)
    return f"In {world}, after {rows[-1]['label']}: {said[0].lower()}{said[1:]}"


def _facts(folder: Path, last: Mapping[str, Any]) -> Facts:
    world = last["reference"]
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    algorithm = part((yaml.safe_load(config) or {}).get("train") or {}, "optimizer")
    n = f"{counted(last['measured'][world]['n'], 'trial')} of each policy"
    return facts_of(config).but(judge=last["judges"][world]["name"], world=world, algorithm=algorithm, n=n)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Validation numbers of what was refitted: part and name, those that every round has first."""
    found = {
        (part, name): None for row in rows for part in ("world_model", "reward_model") for name in row.get(part, {})
    }
    return list(found)[:8]


def _chart(rows: Sequence[Mapping[str, Any]], world: str, measure: Measure) -> Chart:
    points = []
    for place, row in enumerate(rows):
        cell = row["measured"].get(world)
        if cell is not None and cell["rate"] is not None:
            low, high = cell["interval"] or (None, None)
            points.append(Point(place, cell["rate"], low, high))
    bounds = (0.0, 1.0) if measure.is_success else None
    return Chart(
        f"{measure.title} in {world}",
        measure.name,
        [Series(world, points, "dotted")],
        bounds,
        measure.is_success,
        "policy",
    )


def _links(folder: Path, label: str) -> list[tuple[str, str]]:
    """Stages of a round whose folders are there."""
    found = []
    for stage, page in STAGES.items():
        path = folder / label / stage
        if path.exists():
            target = path / page if page and (path / page).exists() else path
            found.append((stage.replace("_", " "), str(target.relative_to(folder))))
    return found


def decimal(value: Any) -> str:
    """0.98765 -> "0.9877"; anything else as it is."""
    return f"{value:.4g}".replace("-", "−") if isinstance(value, int | float) else "–" if value is None else str(value)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_dyna", decimal=decimal)
