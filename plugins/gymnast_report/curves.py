"""A run's metrics and evaluations as charts."""

from __future__ import annotations

import re

import yaml

from gymnast_core.runs.results import Evaluation, Run, position
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.measure import SUCCESS, Measure, judge_name
from gymnast_report.media import during_training


def charts(run: Run) -> list[Chart]:
    """One panel a quantity, without those that the run has no numbers of."""
    found = _fitting_charts(run) if run.kind == "fit" else _learning_charts(run)
    return [chart for chart in found if chart.svg()]


def measure_of(evaluation: Evaluation) -> Measure:
    """What an evaluation's numbers are."""
    return Measure(evaluation.reward_kind, evaluation.reward_model)


def judge_of(run: Run) -> str:
    """The name of the reward model that the run learned from."""
    config = yaml.safe_load(run.config)
    part = config.get("reward_model") if isinstance(config, dict) else None
    return judge_name(part)


def learned_measure(run: Run) -> tuple[Measure, str]:
    """What the judge gives that the run learned from, and the column of its metrics."""
    rewards = any(row.get("imagined_reward") is not None for row in run.metrics)
    kind, column = ("score", "imagined_reward") if rewards else ("success", "imagined_success")
    measure = Measure(kind, judge_of(run))
    return (SUCCESS if measure.is_success else measure), column


def evaluated(run: Run) -> dict[Measure, list[Point]]:
    """The evaluations of a training by iteration; success is one measure, whoever says so."""
    found: dict[Measure, list[Point]] = {}
    for one in run.evaluations.values():
        if one.rate is not None and (one.label in ("before", "after") or during_training(one.label)):
            measure = measure_of(one)
            point = Point(one.iteration, one.rate, *(one.interval or (None, None)))
            found.setdefault(SUCCESS if measure.is_success else measure, []).append(point)
    return {measure: sorted(points, key=lambda point: point.x) for measure, points in found.items()}


def points(run: Run, column: str) -> list[Point]:
    """A column of metrics.csv."""
    found = []
    for row in run.metrics:
        value, x = row.get(column), position(row)
        if value is not None and x is not None:
            found.append(Point(x, value))
    return found


def _fitting_charts(run: Run) -> list[Chart]:
    """One panel a metric: what is fitted, and so what is measured, differs from run to run."""
    columns = dict.fromkeys(name for row in run.metrics for name in row)
    # Of a measure by frame (psnr_1, psnr_4, ...), its mean (psnr) is shown; the table has the rest.
    by_frame = {name for name in columns if re.sub(r"_\d+$", "", name) in columns.keys() - {name}}
    return [
        Chart(name, name, [Series(name, points(run, name))], x_label="step")
        for name in columns
        if name not in {"step", "iteration", *by_frame}
    ]


def _learning_charts(run: Run) -> list[Chart]:
    groups = [
        Series("kept", points(run, "groups_kept"), "bars"),
        Series("dropped", points(run, "groups_dropped"), "bars"),
    ]
    return [
        *_reward_charts(run),
        Chart("Groups with a training signal", "groups", groups),
        Chart("Policy change", "approximate KL (nats)", [Series("KL", points(run, "approx_kl"))]),
        Chart("Policy entropy", "entropy (nats)", [Series("entropy", points(run, "entropy"))]),
    ]


def _reward_charts(run: Run) -> list[Chart]:
    """A panel a measure: what is success is never drawn on the scale of other rewards."""
    learned, column = learned_measure(run)
    called = "imagined success" if learned.is_success else "imagined"
    series: dict[Measure, list[Series]] = {learned: [Series(called, points(run, column))]}
    for measure, found in evaluated(run).items():
        series.setdefault(measure, []).append(Series("evaluation with 95 % interval", found, "dots"))
    return [
        Chart(
            measure.title, measure.name, found, y_range=(0.0, 1.0) if measure.is_success else None,
            percent=measure.is_success,
        )
        for measure, found in series.items()
    ]  # fmt: skip
