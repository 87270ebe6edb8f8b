"""What a run leaves behind while it works: metrics.csv, versions.json; progress on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from gymnast_core.money import in_dollars
from gymnast_core.runs.atomic import write_text
from gymnast_core.runs.metrics import FILE, MetricsFile, read_metrics
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.spending import Spending
from gymnast_core.runs.versions import versions
from gymnast_pages.measure import Measure
from gymnast_report.telling import Telling

_SHOWN = (
    "loss", "imagined_success", "imagined_reward", "groups_kept", "groups_dropped", "approx_kl", "rollouts_per_second",
    "unscored",
)  # fmt: skip
"""Metrics on the progress line, where a run has them and they are not 0."""


class Recorder:
    """Records one run. `done` steps were recorded by an earlier process; rows of later steps are dropped.

    `judge` is the name of the run's reward model: what the terminal calls a mean reward that is no success.
    """

    def __init__(self, path: Path, title: str, total: int, unit: str, done: int, judge: str = "") -> None:
        self._spending = Spending(path)
        self._names = {"imagined_reward": Measure("score", judge).name}
        self._metrics = MetricsFile(path / FILE, done)
        self._telling = Telling(total, judge, _numbers(read_metrics(path / FILE)) if done else ())
        self._progress = Progress(title, total, unit=unit, start=done)
        self._progress.__enter__()
        if not (path / "versions.json").exists():
            write_text(path / "versions.json", json.dumps(versions(), indent=1))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row a step in metrics.csv."""
        self._metrics.append(step, metrics)
        numbers = {self._names.get(key, key): metrics[key] for key in _SHOWN if metrics.get(key)}
        spent = self._spending.usd()
        shown: dict[str, float | str] = {**numbers, **({"spent": in_dollars(spent)} if spent != 0 else {})}
        self._progress.update(step, shown, self._telling.words(step, metrics, spent))

    def close(self) -> None:
        self._progress.__exit__()


def _numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float | None]]:
    """What a run wrote of its earlier steps: its numbers, and nothing where a column was not logged."""
    return [{key: float(text) if text else None for key, text in row.items()} for row in rows]
