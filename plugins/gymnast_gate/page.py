"""Builds `gate.html`: one file that works offline, with the verdict of every gate and what it rests on."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gymnast_core.errors import DataError
from gymnast_core.plugins.registry import registries
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_gate.rows import Batches, Row
from gymnast_gate.strips import KINDS
from gymnast_gate.verdicts import FAIL
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.facts import facts_of
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, interval, p_value, percent, points

EMBEDDED_BYTES = 3_500_000
"""Bytes of film strips put into the page, a third larger in base64."""
LINES = {"model": "world model", "copy": "frame repeated", "shuffled": "other actions"}


@dataclass(frozen=True)
class Strip:
    """One film strip."""

    row: Row
    kind: str
    picture: str
    """Data URI."""

    @property
    def alt(self) -> str:
        """What a screen reader says instead."""
        what = {
            "frames": "real frames above imagined ones under the same actions",
            "false alarm": "judged a success in imagination, a failure in truth",
            "miss": "judged a failure in imagination, a success in truth",
        }
        return f"{self.row.instruction}: {what[self.kind]}"


def build_gate_page(folder: Path) -> Path:
    """Write `folder/gate.html` from what `gymnast gate` left there and return its path.

    Raises `DataError` if something is missing or damaged.
    """
    try:
        summary = read_object(folder / "summary.json").values
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, DataError) as error:
        raise DataError(
            f"{folder} is not a finished measurement ({error}). {resume_command('gate', folder)}"
        ) from error
    rows = _rows(folder)
    gates = {gate["key"]: gate for gate in summary["gates"]}
    text = shlex.quote(str(folder))
    context = {
        "title": folder.resolve().name,
        "summary": summary,
        "facts": facts_of(config, evaluated=False).but(
            n=f"{counted(summary['rollouts'], 'rollout')} of {summary['tasks']} starts"
        ),
        "gates": gates,
        "charts": _frame_charts(gates["frames"]["details"].get("curves")),
        "threshold_chart": _threshold_chart(gates.get("judge", gates.get("audit"))),
        "strips": _strips(folder, rows),
        "config": config,
        "commands": [
            ("Try other bounds on the same measurement", f"gymnast gate --resume {text} hooks.gate.precision=0.8"),
            ("Repeat it", f"gymnast gate {text}/config.yaml output={text}-again"),
            ("Watch the judge during the training", _training(summary)),
            *_thresholds(summary, gates.get("judge"), config),
        ],
    }
    write_text(folder / "gate.html", _environment().get_template("gate.html.j2").render(context))
    return folder / "gate.html"


def _training(summary: Mapping[str, Any]) -> str:
    """The command that a reader types next."""
    left_out = summary["leave_out"]
    out = shlex.quote(f"hooks.gate.leave_out={json.dumps(left_out, ensure_ascii=False)}") if left_out else ""
    return f"gymnast train CONFIG hooks.gate.every=1 {out}".strip()


def _thresholds(summary: Mapping[str, Any], judge: Mapping[str, Any] | None, config: str) -> list[tuple[str, str]]:
    """What to type next for a judge that fails and takes a threshold of its own for each instruction."""
    if judge is None or judge["verdict"] != FAIL or summary["by"] != "instruction":
        return []
    name, known_judges = yaml.safe_load(config)["reward_model"]["name"], registries().reward_models
    # A page can also be made where the judge's package is not installed.
    if name not in known_judges.names() or "thresholds" not in {x.name for x in fields(known_judges.load(name).Config)}:
        return []
    found = {group["group"]: group.get("would_do") for group in judge["groups"] if group["verdict"] == FAIL}
    known = {name: one["threshold"] for name, one in found.items() if one is not None}
    if not known:
        return []
    override = shlex.quote(f"reward_model.args.thresholds={json.dumps(known)}")
    return [("Measure again with thresholds that these rollouts suggest", f"gymnast gate CONFIG {override} seed=1")]


def _rows(folder: Path) -> list[Row]:
    batches, rows, number = Batches(folder), [], 0
    while (found := batches.read(number)) is not None:
        rows += found[0]
        number += 1
    return rows


def _strips(folder: Path, rows: Sequence[Row]) -> dict[str, list[Strip]]:
    """Of each kind; of the judge's mistakes those that it was surest of, from as many groups of tasks as there are."""
    found: dict[str, list[Strip]] = {}
    left, most = EMBEDDED_BYTES, max((sum(kind in row.strips for row in rows[:64]) for kind in KINDS), default=0)
    for kind in KINDS:
        mine = [row for row in rows if kind in row.strips]
        if kind != "frames":
            mine = _spread(sorted(mine, key=_sureness, reverse=True))
        found[kind] = []
        for row in mine[: max(most, 6)]:
            file = folder / row.strips[kind]
            if not file.exists() or file.stat().st_size > left or len(found[kind]) == 6:
                continue
            left -= file.stat().st_size
            uri = f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"
            found[kind].append(Strip(row, kind, uri))
    return found


def _sureness(row: Row) -> float:
    """How far a graded score is from the truth."""
    return abs((row.probability or 0.0) - bool(row.true))


def _spread(rows: Sequence[Row]) -> list[Row]:
    """The first row of every group, then the second ones, …"""
    seen: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(rows):
        seen[row.group] = seen.get(row.group, 0) + 1
        ranked.append((seen[row.group], place, row))
    return [row for _, _, row in sorted(ranked, key=lambda item: item[:2])]


def _frame_charts(curves: Mapping[str, Sequence[float | None]] | None) -> list[Chart]:
    """PSNR by frame: pixels that changed and pixels that did not, against the start frame."""
    charts = []
    for part in ("changed", "unchanged") if curves else ():
        series = []
        for source, label in LINES.items():
            values = (curves or {}).get(f"{part}/first/{source}")
            known = [Point(frame, value) for frame, value in enumerate(values or [], 1) if value is not None]
            series += [Series(label, known)] if known else []
        charts.append(Chart(f"Pixels that {'have' if part == 'changed' else 'have not'} changed", "PSNR, dB", series,
                            x_label="after action"))  # fmt: skip
    return [chart for chart in charts if chart.svg()]


def _threshold_chart(gate: Mapping[str, Any] | None) -> Chart | None:
    if gate is None or not gate["details"].get("thresholds"):
        return None
    rows = gate["details"]["thresholds"]
    precision = [
        Point(100 * row["threshold"], row["precision"], *(row["interval"] or (None, None)))
        for row in rows if row["precision"] is not None
    ]  # fmt: skip
    recall = [Point(100 * row["threshold"], row["recall"]) for row in rows if row["recall"] is not None]
    series = [Series("precision, 95 % interval", precision, "dots"), Series("recall", recall)]
    return Chart("If a success were a graded score above …", "share", series, (0.0, 1.0), True, "graded score, %")


def shown(value: float | None, unit: str) -> str:
    """A criterion's value in its unit: "26.8 %", "−1.5 points", "31.2 dB"; None -> "–"."""
    if value is None:
        return "–"
    if unit == "share":
        return percent(value)
    return points(value) if unit == "points" else f"{value:.1f} dB".replace("-", "−")


def bounds(pair: Sequence[float] | None, unit: str) -> str:
    """(0.2, 0.3) -> "20.0 % to 30.0 %"."""
    return "" if pair is None else f"{shown(pair[0], unit)} to {shown(pair[1], unit)}"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates(
        "gymnast_gate", percent=percent, points=points, interval=interval, p_value=p_value, shown=shown, bounds=bounds
    )
