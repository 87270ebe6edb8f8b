"""Builds `evaluation.html`: one file that works offline and lets a reader judge what `gymnast evaluate` found."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_evaluation.scatter import measure_of, policy_scatter, task_scatter
from gymnast_evaluation.trials import Trial, read_trials
from gymnast_evaluation.videos import video_path
from gymnast_pages import claims
from gymnast_pages.facts import Facts, facts_of, listed
from gymnast_pages.measure import Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, interval, p_value, percent, points

EMBEDDED_BYTES = 4_500_000
"""Bytes of video and stills put into the page, a third larger in base64."""


MATRIX_FROM = 3
"""Policies above which their differences are shown as a matrix, and the list of pairs is folded."""


@dataclass(frozen=True)
class Contrast:
    """A cell of the matrix: the row's mean minus the column's."""

    difference: float
    proven: bool
    """Whether the corrected p-value is below 0.05."""


@dataclass(frozen=True)
class Film:
    """One world's video of a trial."""

    trial: Trial
    file: str
    """Relative to the folder."""
    video: str | None
    """Data URI; None when the page has no room for it."""
    poster: str | None
    verdict: str


@dataclass(frozen=True)
class FilmedTrial:
    """The videos of one trial of a policy, a world each."""

    row: int
    """Number of its row among the trials of the page."""
    first: Trial
    films: Sequence[Film]


def build_evaluation_page(path: Path) -> Path:
    """Write `path/evaluation.html` from the folder of an evaluation and return its path.

    Raises `DataError` if the folder lacks what `gymnast evaluate` writes, or holds it damaged.
    """
    summary = _summary(path / "summary.json")
    rows = _rows(read_trials(path / "results.jsonl"))
    html = _environment().get_template("evaluation.html.j2").render(_context(path, summary, rows))
    target = path / "evaluation.html"
    write_text(target, html)
    return target


def _context(path: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Trial]]) -> dict[str, Any]:
    policies = list(summary["results"])
    worlds = list(next(iter(summary["results"].values())))
    measures = {world: measure_of(summary, world) for world in worlds}
    reference = summary["reference"] or worlds[0]
    agreements = {world: found for world, found in summary["agreement"].items() if found is not None}
    folder = shlex.quote(str(path))
    return {
        "title": path.resolve().name,
        "summary": summary,
        "policies": policies,
        "worlds": worlds,
        "reference": reference,
        "measures": measures,
        "all_success": all(measure.is_success for measure in measures.values()),
        "graded": [world for world in worlds if any(row[world]["partial"] for row in summary["results"].values())],
        "ranking": summary["rankings"].get(reference),
        "tasks": sorted(
            {task for row in summary["results"].values() for cell in row.values() for task in cell["tasks"]}
        ),
        "headline": _headline(summary, policies, reference, measures[reference]),
        "value": _best(summary, reference),
        "facts": _facts(path, summary),
        "matrices": {world: _matrix(summary, world) for world in worlds} if len(policies) > MATRIX_FROM else {},
        "agreements": agreements,
        "scatters": {
            world: [policy_scatter(summary, world)]
            + ([task_scatter(summary, world)] if len(found["tasks"]) > 1 else [])
            for world, found in agreements.items()
        },
        "filmed": _filmed(path, rows, measures),
        "data": _data(rows, policies, measures),
        "config": (path / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Add a policy, or go on after a stop", f"gymnast evaluate --resume {folder} policies.LABEL=..."),
            ("Repeat it with the same config and seed", f"gymnast evaluate {folder}/config.yaml output={folder}-again"),
        ],
    }


def _headline(summary: Mapping[str, Any], policies: Sequence[str], world: str, measure: Measure) -> str:
    """What the evaluation may claim of its reference world."""
    ranking = summary["rankings"].get(world)
    if not ranking:
        cell = summary["results"][policies[0]][world]
        found = claims.rate(measure, cell["rate"], cell["interval"], cell["n"])
        return (
            f"{policies[0]} {f'succeeds in {world}' if measure.is_success else f'in {world}, {measure.name}'}: {found}"
        )
    best, *rest = ranking["policies"]
    shown = {
        ({row["first"], row["second"]} - {best}).pop(): row["p_holm"] < 0.05
        for row in summary["comparisons"]
        if row["world"] == world and best in (row["first"], row["second"])
    }
    order = list(zip(ranking["policies"], ranking["rates"], strict=True))
    return claims.first_of(measure, world, order, [shown.get(policy, False) for policy in rest])


def _best(summary: Mapping[str, Any], world: str) -> float | None:
    """The mean of the policy that is first in a world, which the headline is about."""
    rates = [cells[world]["rate"] for cells in summary["results"].values() if world in cells]
    return max((rate for rate in rates if rate is not None), default=None)


def _facts(path: Path, summary: Mapping[str, Any]) -> Facts:
    judges = listed([judge["name"] for judge in summary["judges"].values()])
    n = f"{counted(summary['trials'], 'trial')} of each policy in each world, {counted(summary['starts'], 'start')}"
    return facts_of((path / "config.yaml").read_text(encoding="utf-8")).but(judge=judges, n=n)


def _matrix(summary: Mapping[str, Any], world: str) -> list[tuple[str, list[Contrast | None]]]:
    """Policies from best to worst, each with its difference from every other in the same order; None for itself."""
    found: dict[tuple[str, str], Contrast] = {}
    for row in summary["comparisons"]:
        if row["world"] == world:
            proven = row["p_holm"] < 0.05
            found[row["second"], row["first"]] = Contrast(row["difference"], proven)
            found[row["first"], row["second"]] = Contrast(-row["difference"], proven)
    rates = {policy: cells[world]["rate"] for policy, cells in summary["results"].items()}
    order = sorted(rates, key=lambda policy: -math.inf if rates[policy] is None else rates[policy], reverse=True)
    return [(policy, [found.get((policy, other)) for other in order]) for policy in order]


def _data(
    rows: Sequence[Mapping[str, Trial]], policies: Sequence[str], worlds: Mapping[str, Measure]
) -> dict[str, Any]:
    """What the script filters and shows: texts once, rows as short as they can be."""
    instructions = sorted({trial.instruction for row in rows for trial in row.values()})
    place = {text: index for index, text in enumerate(instructions)}
    return {
        "policies": list(policies),
        "worlds": list(worlds),
        "success": [measure.is_success for measure in worlds.values()],
        "instructions": instructions,
        "rows": [
            [
                policies.index(first.policy),
                first.index,
                place[first.instruction],
                first.task,
                [
                    None if world not in row else [row[world].value, row[world].partial, row[world].error]
                    for world in worlds
                ],
            ]
            for row in rows
            for first in [next(iter(row.values()))]
        ],
    }


def _rows(trials: Sequence[Trial]) -> list[dict[str, Trial]]:
    """Trials joined across worlds: world -> trial, one entry a policy and trial number."""
    joined: dict[tuple[str, int], dict[str, Trial]] = {}
    for trial in trials:
        joined.setdefault((trial.policy, trial.index), {})[trial.world] = trial
    return list(joined.values())


def _filmed(path: Path, rows: Sequence[Mapping[str, Trial]], worlds: Mapping[str, Measure]) -> list[FilmedTrial]:
    """Trials with videos; all policies' first trial first, so that a full page leaves none of them out."""
    shown = []
    for number, row in enumerate(rows):
        files = {
            world: video_path(path, row[world].policy, world, row[world].index) for world in worlds if world in row
        }
        files = {world: file for world, file in files.items() if file.exists()}
        if files:
            shown.append((next(iter(row.values())), number, row, files))
    left = EMBEDDED_BYTES
    filmed = []
    for first, number, row, files in sorted(shown, key=lambda item: item[0].index):
        films = []
        for world, file in files.items():
            poster = file.with_suffix(".jpg")
            size = sum(part.stat().st_size for part in (file, poster) if part.exists())
            fits = size <= left
            left -= size if fits else 0
            films.append(
                Film(
                    row[world],
                    str(file.relative_to(path)),
                    _data_uri(file, "video/mp4") if fits else None,
                    _data_uri(poster, "image/jpeg") if fits and poster.exists() else None,
                    worlds[world].verdict(row[world].value),
                )
            )
        filmed.append(FilmedTrial(number, first, films))
    return filmed


def _data_uri(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _summary(path: Path) -> dict[str, Any]:
    again = resume_command("evaluate", path.parent)
    if not path.exists():
        raise DataError(f"{path.parent} holds no {path.name}: the evaluation has not ended. {again}")
    try:
        found = read_object(path, allow_nan=True)
        worlds: dict[str, Any] = next(iter(found.object("results").values.values()), {})
    except DataError as error:
        raise DataError(f"{error} {again}") from error
    # Summaries of earlier versions know success alone.
    return {"judges": {world: {"name": "", "kind": "success"} for world in worlds}, **found.values}


def decimal(value: float | None) -> str:
    """0.98765 -> "0.988"; None -> "–"."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def bounds(pair: Sequence[float | None] | None) -> str:
    """(0.9, 0.99) -> "0.900 to 0.990"."""
    return "–" if pair is None or None in pair else f"{decimal(pair[0])} to {decimal(pair[1])}"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates(
        "gymnast_evaluation",
        percent=percent,
        points=points,
        interval=interval,
        p_value=p_value,
        decimal=decimal,
        bounds=bounds,
    )
