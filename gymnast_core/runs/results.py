"""Reads a run folder into typed records; what an unfinished run has not written is absent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gymnast_core.config.presets import config_kind, config_values
from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.folder import read_resumes
from gymnast_core.runs.metrics import read_metrics


@dataclass(frozen=True)
class Scored:
    """One episode of an evaluation."""

    task: str
    instruction: str
    value: float | None
    """Success in [0, 1], or a score of another kind; None when unscored."""


@dataclass(frozen=True)
class MeasuredWith:
    """The components that an evaluation was made with, as the section `evaluation` of its config named them."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Key ("world", "reward_model", "tasks") -> {"name": …, "args": {…}}. A key is missing where nobody knows."""
    free: Sequence[str] = ()
    """Dotted keys of arguments that change nothing of what is computed ("world.args.device")."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MeasuredWith:
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        parts = {str(key): dict(part) for key, part in dict(content["parts"]).items()}
        return cls(parts, tuple(content["free"]))


MEASURING_PARTS = ("world", "reward_model", "tasks")
"""The keys of `MeasuredWith.parts`."""


@dataclass(frozen=True)
class Evaluation:
    """One file of `evaluations/`."""

    label: str
    iteration: int
    world: str
    reward_model: str
    rate: float | None
    """Mean success, or mean reward, of the scored episodes; None when none was scored."""
    interval: tuple[float, float] | None
    """95 % confidence interval of `rate`."""
    n: int
    """Scored episodes."""
    unscored: int
    episodes: Sequence[Scored] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Temperature, horizon (control steps), seed."""
    reward_kind: str = "success"
    """The reward model's kind: "success" or "score"."""
    measured_with: MeasuredWith = field(default_factory=MeasuredWith)
    """What `world` and `reward_model` name, and the tasks, with arguments. Where the file does not say it, what the
    run's config says."""


@dataclass(frozen=True)
class Difference:
    """The evaluation after a run minus the one before it, on the same tasks."""

    mean: float
    interval: tuple[float, float] | None
    """95 % confidence interval."""
    n: int
    """Tasks judged both times."""
    method: str


@dataclass(frozen=True)
class Run:
    """Everything the report shows."""

    path: Path
    config: str
    """The resolved config as YAML text."""
    versions: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float | None]]
    """One row an iteration, in order; None where a column was not logged."""
    evaluations: Mapping[str, Evaluation]
    resumes: Sequence[Mapping[str, Any]] = ()
    """What each resume changed: {"time": …, "changes": {key: [before, after]}}."""

    @property
    def difference(self) -> Difference | None:
        """What the run changed, by its summary; None where that says nothing of the kind."""
        found = self.summary.get("difference")
        if not isinstance(found, Mapping) or _number(found.get("mean")) is None:
            return None
        interval = found.get("interval")
        bounds = [_number(bound) for bound in interval] if isinstance(interval, list | tuple) else []
        known = len(bounds) == 2 and None not in bounds
        return Difference(
            mean=float(found["mean"]),
            interval=(bounds[0], bounds[1]) if known else None,  # type: ignore[arg-type]
            n=int(_number(found.get("n")) or 0),
            method=str(found.get("method", "")),
        )

    @cached_property
    def kind(self) -> str:
        """The command that made the run: "train", "fit" or "evaluate"."""
        return config_kind(self.config)


def read_kind(path: Path) -> str | None:
    """The command that made a folder; None if it holds no config."""
    file = path / "config.yaml"
    return config_kind(file.read_text(encoding="utf-8")) if file.is_file() else None


def position(row: Mapping[str, float | None]) -> float | None:
    """The iteration (or gradient step) of a row of metrics."""
    return row.get("iteration", row.get("step"))


def read_run(path: Path) -> Run:
    """Read a run folder. Raises `DataError` if there is none or if a file in it is damaged."""
    if not (path / "config.yaml").exists():
        found = "it holds no config.yaml" if path.is_dir() else "no such folder"
        raise DataError(f"{path} is not a run folder: {found}. Give the folder that `gymnast train` printed.")
    config = (path / "config.yaml").read_text(encoding="utf-8")
    configured = _configured(config)
    evaluations = [_evaluation(file, configured) for file in sorted((path / "evaluations").glob("*.json"))]
    return Run(
        path=path,
        config=config,
        versions=_json(path / "versions.json"),
        summary=_json(path / "summary.json"),
        metrics=_metrics(path / "metrics.csv"),
        evaluations={evaluation.label: evaluation for evaluation in sorted(evaluations, key=_order)},
        resumes=read_resumes(path),
    )


def by_occurrence(names: Iterable[str]) -> list[tuple[str, int]]:
    """Each task's name with how often it occurred so far, from 1: what results of two policies are paired by. A task
    that occurs twice is paired in order, and none is dropped."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append((name, seen[name]))
    return found


def _order(evaluation: Evaluation) -> tuple[bool, bool, int]:
    return evaluation.label != "before", evaluation.label == "after", evaluation.iteration


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return read_object(path, allow_nan=True).values


def _configured(config: str) -> MeasuredWith:
    """What evaluations of a run are made with by its config; nothing of a config that cannot be read."""
    section = config_values(config).get("evaluation")
    return MeasuredWith(_parts(section if isinstance(section, Mapping) else {}))


def _parts(section: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {key: section[key] for key in MEASURING_PARTS if isinstance(section.get(key), Mapping)}


def _evaluation(path: Path, configured: MeasuredWith) -> Evaluation:
    """The evaluation in a file; `configured` is what it was made with where the file does not say it."""
    content = _json(path)
    try:
        rate, noted = _number(content["rate"]), content.get("measured_with")
        interval = content.get("interval")
        bounds = [_number(bound) for bound in interval or ()]
        return Evaluation(
            label=content["label"],
            iteration=int(content.get("iteration") or 0),
            world=content["world"],
            reward_model=content.get("reward_model", ""),
            rate=rate,
            interval=(bounds[0], bounds[1]) if len(bounds) == 2 and None not in bounds else None,  # type: ignore[arg-type]
            n=int(content["n"]),
            unscored=int(content.get("unscored", 0)),
            episodes=[
                Scored(episode["task"], episode["instruction"], _number(episode["value"]))
                for episode in content.get("episodes", [])
            ],
            settings={key: content[key] for key in ("temperature", "horizon", "seed") if key in content},
            reward_kind=content.get("reward_kind", "success"),
            measured_with=configured if noted is None else MeasuredWith.from_json(noted),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not an evaluation ({error!r}). Delete it or evaluate again.") from error


def _metrics(path: Path) -> list[dict[str, float | None]]:
    """Rows of one iteration are merged, the later value winning: a resumed run repeats its last iteration."""
    by_iteration: dict[int, dict[str, float | None]] = {}
    for row in read_metrics(path):
        iteration = _number(row.get("iteration", row.get("step")))
        if iteration is None:
            continue
        merged = by_iteration.setdefault(int(iteration), {})
        for name, text in row.items():
            number = _number(text)
            if number is not None or name not in merged:
                merged[name] = number
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _number(value: Any) -> float | None:
    """A finite number, or None for what is empty, text or NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
