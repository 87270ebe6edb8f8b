"""Builds `confusion.html`: one file that works offline and shows what a judge gets right and wrong."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.commands import resume_command
from gymnast_judging.rows import RowFile
from gymnast_judging.summary import mean_key
from gymnast_judging.verdicts import CASES, Verdict
from gymnast_pages import claims
from gymnast_pages.charts import Chart, Point, Series
from gymnast_pages.facts import Facts, facts_of
from gymnast_pages.measure import Measure
from gymnast_pages.templates import templates
from gymnast_pages.wording import counted, interval, percent

EMBEDDED_BYTES = 4_500_000
"""Bytes of video and stills put into the page, a third larger in base64."""


@dataclass(frozen=True)
class Film:
    """One clip on the page."""

    verdict: Verdict
    case: str
    file: str
    """Relative to the folder."""
    video: str | None
    """Data URI; None when the page has no room for it."""
    poster: str | None

    @property
    def alt(self) -> str:
        """What a screen reader says instead of the video."""
        truth = "success" if self.verdict.success else "failure"
        return f"{self.verdict.instruction}: truly a {truth}, {self.case}"


def video_path(folder: Path, index: int) -> Path:
    """Where a clip's video is kept; its poster is beside it, with the suffix .jpg."""
    return folder / "videos" / f"{index:06d}.mp4"


def chosen_films(rows: Sequence[Verdict], threshold: float, count: int) -> list[Verdict]:
    """Up to `count` clips of each case: the mistakes that the judge was surest of, the others spread evenly."""
    chosen: list[Verdict] = []
    for case in CASES:
        mine = [row for row in rows if row.case(threshold) == case]
        if case.startswith("false"):
            mine = sorted(mine, key=lambda row: _sureness(row, threshold), reverse=True)[:count]
        else:
            shown = min(count, len(mine))
            mine = [mine[i * len(mine) // shown] for i in range(shown)]
        chosen += mine
    return chosen


def build_confusion_page(folder: Path) -> Path:
    """Write `folder/confusion.html` from what `gymnast judge` left there and return its path.

    Raises `DataError` if something is missing or damaged.
    """
    try:
        summary = read_object(folder / "summary.json", allow_nan=True).values
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, DataError) as error:
        raise DataError(
            f"{folder} is not a finished measurement ({error}). {resume_command('judge', folder)}"
        ) from error
    # Fewer clips may have been asked for since; a folder of an earlier edition does not say how many.
    clips = summary.get("asked", math.inf)
    rows = {row.index: row for row in RowFile(folder / "results.jsonl", Verdict).rows if row.index < clips}
    films = _films(folder, list(rows.values()), summary["threshold"])
    text = shlex.quote(str(folder))
    measure = Measure(summary["reward_kind"], summary["reward_model"])
    context = {
        "title": folder.resolve().name,
        "measure": measure,
        "headline": _headline(summary, measure),
        "facts": _facts(summary, config),
        "summary": summary,
        "mean_rewards": summary.get(mean_key(summary["reward_model"])),
        "judged": _judged(summary),
        "cases": CASES,
        "counts": {case: sum(row.case(summary["threshold"]) == case for row in rows.values()) for case in CASES},
        "films": films,
        "chart": _reliability(summary["calibration"]),
        "config": config,
        "commands": [
            ("Ask again about clips without a verdict", f"gymnast judge --resume {text}"),
            ("Repeat it", f"gymnast judge {text}/config.yaml output={text}-again"),
        ],
    }
    write_text(folder / "confusion.html", _environment().get_template("confusion.html.j2").render(context))
    return folder / "confusion.html"


def _films(folder: Path, rows: Sequence[Verdict], threshold: float) -> list[Film]:
    """Mistakes first; when the page is full, a video of every case has been put in before a second one."""
    found: list[tuple[int, int, Verdict, Path]] = []
    for place, case in enumerate(CASES):
        mine = [row for row in rows if row.case(threshold) == case and video_path(folder, row.index).exists()]
        mine.sort(key=lambda row: (-_sureness(row, threshold), row.index) if place < 2 else (0.0, row.index))
        found += [(rank, place, row, video_path(folder, row.index)) for rank, row in enumerate(mine)]
    left, films = EMBEDDED_BYTES, []
    for rank, place, row, file in sorted(found, key=lambda item: item[:2]):
        poster = file.with_suffix(".jpg")
        size = file.stat().st_size + poster.stat().st_size
        fits = size <= left
        left -= size if fits else 0
        uris = (_data_uri(file, "video/mp4"), _data_uri(poster, "image/jpeg")) if fits else (None, None)
        films.append((place, rank, Film(row, CASES[place], str(file.relative_to(folder)), *uris)))
    return [film for _, _, film in sorted(films, key=lambda item: item[:2])]


def _headline(summary: dict[str, Any], measure: Measure) -> str:
    """What may be claimed of the judge."""
    right = summary["rates"]["accuracy"]
    if right["value"] is None:
        return f"{measure.judge} judged none of the clips"
    return claims.accuracy(
        measure, right["value"], right["interval"], right["n"], guessing=summary["accuracy_of_guessing"],
        threshold=summary["threshold"],
    )  # fmt: skip


def _facts(summary: dict[str, Any], config: str) -> Facts:
    return facts_of(config).but(
        judge=summary["reward_model"], world=f"the clips of {summary['clips']}", policy="whoever acted in the clips",
        n=counted(summary["n"], "judged clip"),
    )  # fmt: skip


def _judged(summary: dict[str, Any]) -> tuple[str, str]:
    """What the judge said of clips above the threshold and of the others; only judges of success speak of success."""
    if summary["reward_kind"] == "success":
        return "success", "failure"
    return f"above {summary['threshold']:g}", f"at most {summary['threshold']:g}"


def _sureness(row: Verdict, threshold: float) -> float:
    """How far a mistaken judgement is from the truth, or a score from the threshold that it should not have passed."""
    if row.value is None:
        return 0.0
    if row.reward_kind == "score":
        return abs(row.value - threshold)
    return abs((row.value if row.partial is None else row.partial) - row.success)


def _reliability(calibration: dict[str, Any] | None) -> Chart | None:
    if calibration is None:
        return None
    observed = [Point(100 * one["score"], one["successes"] / one["n"], *one["interval"]) for one in calibration["bins"]]
    ideal = [Point(0.0, 0.0), Point(100.0, 1.0)]
    series = [Series("successes with 95 % interval", observed, "dots"), Series("perfectly calibrated", ideal)]
    return Chart("Reliability", "share of successes", series, (0.0, 1.0), True, "graded score, %")


def _data_uri(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"


def decimal(value: float | None) -> str:
    """0.98765 -> "0.988"; None -> "–"."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return templates("gymnast_judging", percent=percent, interval=interval, decimal=decimal)
