"""Builds `report.html`: one file without network access that lets a reader judge a run."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, parse_json
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.results import Evaluation, Run, position, read_run
from gymnast_core.statistics import mean_interval
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.measure import SUCCESS, Measure
from gymnast_pages.state import state_of
from gymnast_pages.templates import templates
from gymnast_pages.wording import duration, moment, percent
from gymnast_report.gallery import Clip, phase_title, read_clips

EMBEDDED_BYTES = 3_900_000
"""Bytes of video and stills put into the page, a third larger in base64; the page stays below 6 MB."""


@dataclass(frozen=True)
class Rate:
    """A mean with its 95 % interval; `value` is None when nothing was scored."""

    value: float | None
    interval: tuple[float, float] | None
    n: int
    unscored: int


@dataclass(frozen=True)
class Media:
    """A clip ready to be shown; `video` is None when the page has no room for it."""

    clip: Clip
    video: str | None
    poster: str | None

    @property
    def verdict(self) -> str:
        return self.clip.measure.verdict(self.clip.value)


@dataclass(frozen=True)
class Comparison:
    """Videos of one task in several evaluations, side by side."""

    task: str
    instruction: str
    media: Sequence[Media]


def build_report(path: Path, *, summary: Mapping[str, Any] | None = None) -> Path:
    """Write `path/report.html` from the run folder `path` and return its path.

    `summary` replaces `summary.json`. Raises `DataError` if `path` is no run folder or damaged.
    """
    run = read_run(path)
    if summary is not None:
        run = replace(run, summary={**run.summary, **summary})
    html = _environment().get_template("report.html.j2").render(_context(run))
    target = path / "report.html"
    write_text(target, html)
    return target


def _context(run: Run) -> dict[str, Any]:
    media = _embed(run)
    before, after = run.evaluations.get("before"), run.evaluations.get("after")
    columns = [evaluation for evaluation in run.evaluations.values() if not _during_training(evaluation.label)]
    headline = after or before or next(iter(columns), None)
    return {
        "run": run,
        "state": state_of(run.path),
        "title": run.path.resolve().name,
        "before": before,
        "after": after,
        "difference": run.difference,
        "measure": SUCCESS if headline is None else measure_of(headline),
        "measure_of": measure_of,
        "columns": columns,
        "places": list(dict.fromkeys((column.world, column.reward_model) for column in columns)),
        "rows": _by_instruction(columns),
        "charts": [chart for chart in _charts(run) if chart.svg()],
        "alarms": _alarms(run.path / "alarms.jsonl"),
        "comparisons": _comparisons(media),
        "training": _by_phase(media),
        "resumes": [resume for resume in run.resumes if resume["changes"]],
        "metric_names": list(dict.fromkeys(name for row in run.metrics for name in row)),
        "unscored": _total(run, "unscored"),
        "cost_usd": _total(run, "cost_usd"),
        "versions": yaml.safe_dump(dict(run.versions), sort_keys=False),
        "steps": int(position(run.metrics[-1]) or 0) if run.metrics else 0,
        "commands": _commands(run),
    }


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_report", percent=percent, phase=phase_title, duration=duration, moment=moment)


def measure_of(evaluation: Evaluation) -> Measure:
    """What an evaluation's numbers are."""
    return Measure(evaluation.reward_kind, evaluation.reward_model)


def _during_training(label: str) -> bool:
    return label.startswith("iteration-")


def _rate(values: Iterable[float | None], kind: str) -> Rate:
    values = list(values)
    scored = [value for value in values if value is not None]
    if not scored:
        return Rate(None, None, 0, len(values))
    return Rate(sum(scored) / len(scored), mean_interval(scored, kind), len(scored), len(values) - len(scored))


def _by_instruction(columns: Sequence[Evaluation]) -> list[tuple[str, list[Rate]]]:
    instructions = sorted({episode.instruction for column in columns for episode in column.episodes})
    return [
        (
            text,
            [
                _rate((e.value for e in column.episodes if e.instruction == text), column.reward_kind)
                for column in columns
            ],
        )
        for text in instructions
    ]


def _charts(run: Run) -> list[Chart]:
    return _fitting_charts(run) if run.kind == "fit" else _learning_charts(run)


def _fitting_charts(run: Run) -> list[Chart]:
    """One panel a metric: what is fitted, and so what is measured, differs from run to run."""
    columns = dict.fromkeys(name for row in run.metrics for name in row)
    # Of a measure by frame (psnr_1, psnr_4, ...), its mean (psnr) is shown; the table has the rest.
    by_frame = {name for name in columns if re.sub(r"_\d+$", "", name) in columns.keys() - {name}}
    return [
        Chart(name, name, [Series(name, _points(run, name))], x_label="step")
        for name in columns
        if name not in {"step", "iteration", *by_frame}
    ]


def _learning_charts(run: Run) -> list[Chart]:
    groups = [
        Series("kept", _points(run, "groups_kept"), "bars"),
        Series("dropped", _points(run, "groups_dropped"), "bars"),
    ]
    return [
        *_reward_charts(run),
        Chart("Groups with a training signal", "groups", groups),
        Chart("Policy change", "approximate KL (nats)", [Series("KL", _points(run, "approx_kl"))]),
        Chart("Policy entropy", "entropy (nats)", [Series("entropy", _points(run, "entropy"))]),
    ]


def _reward_charts(run: Run) -> list[Chart]:
    """A panel a measure: what is success is never drawn on the scale of other rewards."""
    evaluated: dict[Measure, list[Point]] = {}
    for one in run.evaluations.values():
        if one.rate is not None and (one.label in ("before", "after") or _during_training(one.label)):
            measure = SUCCESS if one.reward_kind == "success" else measure_of(one)
            point = Point(one.iteration, one.rate, *(one.interval or (None, None)))
            evaluated.setdefault(measure, []).append(point)
    judge = Measure("score", _judge(run))
    series: dict[Measure, list[Series]] = {
        SUCCESS: [Series("imagined success", _points(run, "imagined_success"))],
        judge: [Series("imagined", _points(run, "imagined_reward"))],
    }
    for measure, points in evaluated.items():
        ordered = sorted(points, key=lambda point: point.x)
        series.setdefault(measure, []).append(Series("evaluation with 95 % interval", ordered, "dots"))
    return [
        Chart(
            measure.title, measure.name, found, y_range=(0.0, 1.0) if measure.is_success else None,
            percent=measure.is_success,
        )
        for measure, found in series.items()
    ]  # fmt: skip


def _judge(run: Run) -> str:
    """The name of the reward model that the run learned from."""
    config = yaml.safe_load(run.config)
    part = config.get("reward_model") if isinstance(config, dict) else None
    return str(part.get("name", "")) if isinstance(part, dict) else ""


def _points(run: Run, column: str) -> list[Point]:
    found = []
    for row in run.metrics:
        value, x = row.get(column), position(row)
        if value is not None and x is not None:
            found.append(Point(x, value))
    return found


def _alarms(path: Path) -> list[dict[str, Any]]:
    """What went wrong with the rewards, and when that ended; a line that is being written is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
    try:
        return [
            as_object(parse_json(line, f"{path}, line {number}", allow_nan=True), f"{path}, line {number}").values
            for number, line in enumerate(lines, start=1)
        ]
    except DataError as error:
        raise DataError(f"{error} Restore or delete that file, then rebuild.") from error


def _total(run: Run, column: str) -> float | None:
    values = [row[column] for row in run.metrics if row.get(column) is not None]
    return sum(value for value in values if value is not None) if values else None


def _embed(run: Run) -> list[Media]:
    """Read clips into data URIs until the budget is spent: evaluations first, then the latest iterations."""
    clips = read_clips(run.path / "videos")
    evaluations = [clip for clip in clips if not _during_training(clip.phase)]
    training = [clip for clip in clips if _during_training(clip.phase)]
    left = EMBEDDED_BYTES
    media = []
    for clip in evaluations + sorted(training, key=lambda clip: clip.phase, reverse=True):
        video, poster = run.path / "videos" / clip.file, run.path / "videos" / clip.poster
        size = sum(file.stat().st_size for file in (video, poster) if file.exists())
        if size <= left:
            left -= size
            media.append(Media(clip, _data_uri(video, "video/mp4"), _data_uri(poster, "image/jpeg")))
        else:
            media.append(Media(clip, None, None))
    return media


def _data_uri(path: Path, mime: str) -> str | None:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _comparisons(media: Sequence[Media]) -> list[Comparison]:
    by_task: dict[tuple[str, str], list[Media]] = {}
    for item in media:
        if not _during_training(item.clip.phase):
            by_task.setdefault((item.clip.kind, item.clip.task), []).append(item)
    return [
        Comparison(task, items[0].clip.instruction, sorted(items, key=lambda item: item.clip.phase != "before"))
        for (_, task), items in by_task.items()
    ]


def _by_phase(media: Sequence[Media]) -> list[tuple[str, list[Media]]]:
    phases: dict[str, list[Media]] = {}
    for item in media:
        if _during_training(item.clip.phase):
            phases.setdefault(item.clip.phase, []).append(item)
    return sorted(
        ((phase, sorted(items, key=lambda item: item.clip.file)) for phase, items in phases.items()),
        reverse=True,
    )


def _commands(run: Run) -> list[tuple[str, str]]:
    """What to type to see, continue and repeat the run."""
    kind = run.kind
    folder = shlex.quote(str(run.path))
    config = shlex.quote(str(run.path / "config.yaml"))
    repeat = f"gymnast {kind} {config} output={shlex.quote(str(run.path) + '-again')}"
    commands = [("Repeat it with the same config and seed", repeat)]
    if kind != "evaluate":
        commands.insert(0, ("Continue it where it stopped", f"gymnast {kind} --resume {folder}"))
    command = run.versions.get("command")
    if isinstance(command, list):
        commands.append(("It was started by", shlex.join(map(str, command))))
    commands.append(("Rebuild this page", f"python -m gymnast_report {folder}"))
    return commands
