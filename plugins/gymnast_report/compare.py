"""Several runs beside each other: curves on one scale, what differs in their configs, results paired by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from gymnast_core.runs.results import Evaluation, Run, by_occurrence
from gymnast_core.statistics import (
    Interval,
    McNemar,
    bootstrap_interval,
    holm,
    is_binary,
    mcnemar,
    repeats,
    score_interval,
    sign_flip_test,
)
from gymnast_pages.charts import Chart, Series
from gymnast_pages.measure import Measure
from gymnast_report.comparable import incomparable
from gymnast_report.curves import evaluated, learned_measure, measure_of, points
from gymnast_report.panel import flat
from gymnast_report.runs import latest


@dataclass(frozen=True)
class Paired:
    """A run's latest evaluation against the first run's, on the tasks that both were judged on."""

    name: str
    measure: Measure
    first: float
    """Mean of the first run on these tasks."""
    second: float
    difference: float
    interval: Interval | None
    """95 %, by bootstrap."""
    n: int
    test: McNemar | None
    """Exact test of 0/1 outcomes; None for others and where tasks repeat, where the signs of tasks are flipped."""
    p_value: float
    p_holm: float
    """Corrected for comparing several runs with the first."""


@dataclass(frozen=True)
class Unpaired:
    """Why two runs' results are not compared."""

    name: str
    reason: str


def overlaid(runs: Mapping[str, Run]) -> list[Chart]:
    """A panel a quantity, a line a run; runs keep their colours in all panels."""
    panels: dict[tuple[str, str, bool], dict[str, Series]] = {}
    fits = any(run.kind == "fit" for run in runs.values())
    for name, run in runs.items():
        for measure, found in evaluated(run).items():
            panels.setdefault(("Evaluated", measure.name, measure.is_success), {})[name] = Series(name, found, "dotted")
        learned, column = learned_measure(run)
        panels.setdefault(("In training", learned.name, learned.is_success), {})[name] = Series(
            name, points(run, column)
        )
        named = {"approx_kl": "approximate KL (nats)", "entropy": "entropy (nats)"}
        if fits:
            named = {column: column for row in run.metrics for column in row if column not in ("step", "iteration")}
        for column, label in named.items():
            panels.setdefault((label, label, False), {})[name] = Series(name, points(run, column))
    charts = []
    for (place, label, success), series in panels.items():
        title = f"{place}: {label}" if place != label else label[0].upper() + label[1:]
        all_of_them = [series.get(name, Series(name, [])) for name in runs]
        bounds = (0.0, 1.0) if success else None
        x_label = "step" if fits else "iteration"
        charts.append(Chart(title, label, all_of_them, bounds, success, x_label))
    return [chart for chart in charts if chart.svg()]


def differences(configs: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Keys in which configs differ, with each one's value: "–" where it has none. Where a run writes is left out."""
    read = [flat(yaml.safe_load(text) or {}) for text in configs.values()]
    flats = [{key: value for key, value in found if value != {}} for found in read]
    keys = [key for key in dict.fromkeys(key for found in flats for key in found) if key != "output"]
    rows = [(key, [str(found.get(key, "–")) for found in flats]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def paired(runs: Mapping[str, Run]) -> tuple[list[Paired], list[Unpaired]]:
    """Every other run against the first one."""
    (first_name, first), *others = runs.items()
    base = latest(first)
    found: list[Paired] = []
    refused: list[Unpaired] = []
    for name, run in others:
        other = latest(run)
        reason = incomparable(base, other, first_name)
        if reason:
            refused.append(Unpaired(name, reason))
            continue
        assert base is not None and other is not None
        both = _both(base, other)
        if both:
            found.append(_pair(name, measure_of(other), tuple(both)))
        else:
            refused.append(Unpaired(name, f"no task was judged in it and in {first_name}"))
    corrected = holm([one.p_value for one in found])
    return [_with(one, p) for one, p in zip(found, corrected, strict=True)], refused


def _both(first: Evaluation, second: Evaluation) -> list[tuple[str, float, float]]:
    """What both judged; a task that one of them has twice is paired in order."""
    known = _values(first)
    return [(key[0], known[key], value) for key, value in _values(second).items() if key in known]


def _values(evaluation: Evaluation) -> dict[tuple[str, int], float]:
    keys = by_occurrence(episode.task for episode in evaluation.episodes)
    return {
        key: episode.value for key, episode in zip(keys, evaluation.episodes, strict=True) if episode.value is not None
    }


@lru_cache(maxsize=256)
def _pair(name: str, measure: Measure, both: tuple[tuple[str, float, float], ...]) -> Paired:
    tasks, a, b = [task for task, _, _ in both], [x for _, x, _ in both], [y for _, _, y in both]
    changes = [y - x for _, x, y in both]
    binary = measure.kind == "success" and is_binary(a) and is_binary(b)
    test = mcnemar(a, b) if binary and not repeats(tasks) else None
    p_value = test.p_value if test is not None else sign_flip_test(changes, tasks)
    bounded = measure.kind == "success"
    interval = bootstrap_interval(changes, tasks, bounds=(-1.0, 1.0)) if bounded else score_interval(changes, tasks)
    n = len(both)
    return Paired(name, measure, sum(a) / n, sum(b) / n, sum(changes) / n, interval, n, test, p_value, p_value)


def _with(one: Paired, p_holm: float) -> Paired:
    from dataclasses import replace

    return replace(one, p_holm=p_holm)


def context(runs: Mapping[str, Run]) -> dict[str, Any]:
    """What the template shows."""
    found, refused = paired(runs)
    return {
        "charts": overlaid(runs),
        "differences": differences({name: run.config for name, run in runs.items()}),
        "paired": found,
        "unpaired": refused,
        "headline": headline(next(iter(runs)), found),
    }


def headline(first: str, found: Sequence[Paired]) -> str:
    """What the comparison may claim, by the rule of all pages."""
    from gymnast_pages.claims import Candidate, Change, best

    if not found:
        return "Nothing was measured on the same tasks"
    measures = list(dict.fromkeys(one.measure for one in found))
    if len(measures) > 1:
        return "Results by several judges"
    candidates = [Candidate(one.name, one.second, Change(one.difference, one.interval, one.n)) for one in found]
    return best(measures[0], candidates, first)
