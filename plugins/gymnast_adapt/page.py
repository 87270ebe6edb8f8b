"""Builds `adapt.html`: one file that works offline."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_evaluation.trials import Trial, read_trials
from gymnast_evaluation.videos import video_path
from gymnast_pages import claims
from gymnast_pages.facts import Facts, facts_of
from gymnast_pages.measure import Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, p_value

EMBEDDED_BYTES = 3_000_000
"""Bytes of video put into the page, a third larger in base64."""
PARTS = {"target": "The target", "retention": "Other tasks"}


@dataclass(frozen=True)
class Row:
    """One world's numbers of one part."""

    part: str
    world: str
    measure: Measure
    cells: dict[str, Any]


@dataclass(frozen=True)
class Film:
    """A trial before and after, in one world."""

    world: str
    before: Trial
    after: Trial
    videos: tuple[str, str]
    """Data URIs."""
    posters: tuple[str, str]
    """Data URIs of their first frames."""
    measure: Measure


def build_adaptation_page(folder: Path) -> Path:
    """Write `folder/adapt.html` and return its path. Raises `DataError` if the adaptation has not ended."""
    path = folder / "summary.json"
    if not path.exists():
        raise DataError(
            f"{folder} holds no summary.json: the adaptation has not ended. {resume_command('adapt', folder)}"
        )
    summary = read_object(path, allow_nan=True).values
    html = _environment().get_template("adapt.html.j2").render(_context(folder, summary))
    target = folder / "adapt.html"
    write_text(target, html)
    return target


def _context(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    rows = [
        Row(title, world, Measure(cells["judge"]["kind"], cells["judge"]["name"]), cells)
        for part, title in PARTS.items()
        for world, cells in summary.get(part, {}).items()
    ]
    quoted = shlex.quote(str(folder))
    # What the environment says counts for more than what the judge says that was trained for.
    headline = next(row for row in reversed(rows) if row.part == PARTS["target"])
    return {
        "title": folder.resolve().name,
        "summary": summary,
        "rows": rows,
        "headline": headline,
        "claim": _claim(headline),
        "facts": _facts(folder, headline),
        "elsewhere": next(
            (row for row in rows if row.part == PARTS["retention"] and row.world == headline.world), None
        ),
        "films": _films(folder / "target", rows),
        "parts": {part: (folder / part / name).exists() and f"{part}/{name}" for part, name in _PAGES.items()},
        "config": (folder / "config.yaml").read_text(encoding="utf-8"),
        "commands": [
            ("Go on after a stop", f"gymnast adapt --resume {quoted}"),
            ("Repeat it", f"gymnast adapt {quoted}/config.yaml output={quoted}-again"),
            ("Put it on the robot, or measure it", f"gymnast evaluate ... policy.args.checkpoint={summary['policy']}"),
        ],
    }


def _claim(row: Row) -> str:
    """What may be said of the target."""
    found = row.cells["change"]
    change = found and claims.Change(found["difference"], found["interval"], found["n"])
    place = "the environment" if row.world == "environment" else "imagination"
    said = claims.change(row.measure, row.cells["before"]["rate"], row.cells["after"]["rate"], change)
    return f"On the target, in {place}: {said[0].lower()}{said[1:]}"


def _facts(folder: Path, row: Row) -> Facts:
    facts = facts_of((folder / "config.yaml").read_text(encoding="utf-8"))
    n = f"{counted(row.cells['after']['n'], 'trial')} after, {row.cells['before']['n']} before"
    return facts.but(judge=row.cells["judge"]["name"], world=row.world, n=n)


_PAGES = {"training": "report.html", "target": "evaluation.html", "retention": "evaluation.html"}


def _films(folder: Path, rows: list[Row]) -> list[Film]:
    """Filmed trials of the target, before beside after, as many as there is room for."""
    trials = {(t.policy, t.world, t.index): t for t in read_trials(folder / "results.jsonl")}
    films, left = [], EMBEDDED_BYTES
    for row in rows:
        if row.part != PARTS["target"]:
            continue
        for index in sorted({number for _, world, number in trials if world == row.world}):
            files = [video_path(folder, policy, row.world, index) for policy in ("before", "after")]
            size = sum(
                part.stat().st_size for file in files for part in (file, file.with_suffix(".jpg")) if part.exists()
            )
            if not all(file.exists() for file in files) or size > left:
                continue
            left -= size
            before, after = (trials[policy, row.world, index] for policy in ("before", "after"))
            videos = (_data_uri(files[0], "video/mp4"), _data_uri(files[1], "video/mp4"))
            posters = (_poster(files[0]), _poster(files[1]))
            films.append(Film(row.world, before, after, videos, posters, row.measure))
    return films


def _poster(video: Path) -> str:
    return _data_uri(video.with_suffix(".jpg"), "image/jpeg")


def _data_uri(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_adapt", p_value=p_value)
