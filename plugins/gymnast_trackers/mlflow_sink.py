"""A run in MLflow, by its own client: nothing of this module is global, as in MLflow's fluent interface."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

# A server that does not answer is asked again later, by us, rather than for minutes in the midst of a step.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import yaml
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gymnast_trackers.mlflow_options import Config
from gymnast_trackers.secrets import flat
from gymnast_trackers.sink import Opening, Point

_BATCH = 100
"""Parameters, or metrics, of one request."""
_LONGEST = 500
"""Letters of a parameter's value that every store takes."""
T = TypeVar("T")


class MlflowSink:
    """MLflow keeps every value that it is sent, also two of one step: of a run that goes on, it is asked which."""

    rewrites = False

    def __init__(self, config: Config, opening: Opening) -> None:
        self._client = MlflowClient(tracking_uri=config.tracking_uri)
        self._known: dict[str, set[int]] | None = None
        """Of a run that goes on: the steps that it has, by metric, as far as they were asked for."""
        if opening.run is not None:
            self.run = opening.run
            self._client.update_run(self.run, status="RUNNING")
            self._known = {}
        else:
            tags = {**config.tags, "gymnast.command": opening.kind}
            name = config.name or opening.folder.resolve().name
            self.run = self._client.create_run(
                self._experiment(config.experiment), tags=tags, run_name=name
            ).info.run_id
            parameters = [Param(key, str(value)[:_LONGEST]) for key, value in flat(opening.config).items()]
            for part in _parts(parameters):
                self._client.log_batch(self.run, params=part)
        # Parameters never change, and a resumed run's options may.
        self._client.log_text(self.run, yaml.safe_dump(dict(opening.config), sort_keys=False), "config.yaml")

    def has(self, step: int) -> bool:
        return False  # a step may have arrived in part: `send` asks metric by metric

    def send(self, point: Point) -> None:
        now = int(1000 * time.time())
        names = [name for name in point.numbers if point.step not in self._steps(name)]
        metrics = [Metric(name, point.numbers[name], now, point.step) for name in names]
        for part in _parts(metrics):
            self._client.log_batch(self.run, metrics=part)
        for film in point.films:
            self._client.log_artifact(self.run, str(film.file), f"videos/step-{point.step:06d}")

    def summarise(self, numbers: Mapping[str, float]) -> None:
        self._client.log_dict(self.run, dict(numbers), "summary.json")

    def attach(self, page: Path) -> None:
        self._client.log_artifact(self.run, str(page))

    def finish(self, complete: bool) -> None:
        self._client.set_terminated(self.run, status="FINISHED" if complete else "KILLED")

    def _steps(self, name: str) -> set[int]:
        """The steps of a metric that earlier processes sent."""
        if self._known is None:
            return set()
        if name not in self._known:
            self._known[name] = {metric.step for metric in self._client.get_metric_history(self.run, name)}
        return self._known[name]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another run made it in this moment
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)


def _parts(items: Sequence[T]) -> Iterator[list[T]]:
    return (list(items[first : first + _BATCH]) for first in range(0, len(items), _BATCH))
