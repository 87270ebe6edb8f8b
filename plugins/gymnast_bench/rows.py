"""What became of each cell: one flat row, as JSON Lines and Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gymnast_bench.matrix import SEED, Cell
from gymnast_bench.supervisor import DONE
from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import replacing, write_text
from gymnast_core.runs.results import Evaluation, Run, position, read_run
from gymnast_core.runs.spending import spent_usd
from gymnast_core.statistics import mean_interval
from gymnast_pages.measure import SUCCESS, Measure

UNFINISHED = "unfinished"
"""Of a cell that has not ended: waiting, running, or cut off with the bench."""


@dataclass(frozen=True)
class Measured:
    """Success, or mean reward, in the evaluation world; None where nothing was scored."""

    rate: float | None = None
    low: float | None = None
    """95 % interval, over episodes of this cell."""
    high: float | None = None
    n: int = 0
    unscored: int = 0
    kind: str = "success"
    """The kind of the reward model that judged: "success" or "score"."""
    judge: str = ""
    """Its name."""

    @property
    def measure(self) -> Measure:
        return Measure(self.kind, self.judge)


@dataclass(frozen=True)
class Row:
    """One cell. Whatever a cell that failed had found by then is kept."""

    cell: str
    """Name of its folder in cells/."""
    labels: Mapping[str, str]
    seed: int
    status: str
    reason: str
    exit_code: int | None
    before: Measured
    after: Measured
    difference: float | None
    """After minus before on the same tasks."""
    difference_low: float | None
    difference_high: float | None
    imagined_success: Sequence[tuple[float, float]]
    """Learning curve: (iteration, success by the run's own judge)."""
    evaluations: Sequence[tuple[float, float, float | None, float | None]]
    """(iteration, mean, interval) of every evaluation on the way."""
    iterations: int
    seconds: float
    """Wall-clock, over all attempts."""
    attempts: int
    peak_memory_bytes: int
    rollouts: int
    """Imagined in training."""
    frames: int
    """Imagined in training: rollouts times horizon."""
    dollars: float | None
    """What its judges cost, over all attempts; None: not known."""
    command: str
    imagined_reward: Sequence[tuple[float, float]] = ()
    """Learning curve of a judge that tells no success: (iteration, mean reward)."""

    @property
    def done(self) -> bool:
        return self.status == DONE

    @property
    def title(self) -> str:
        return ", ".join([*self.labels.values(), f"seed {self.seed}"])

    @property
    def combination(self) -> tuple[str, ...]:
        """The labels, which cells of different seeds share."""
        return tuple(self.labels.values())


def read_row(cell: Cell, folder: Path, horizon: int, command: str) -> Row:
    """The row of a cell from what its folder holds."""
    result = _json(folder / "result.json")
    run = _run(folder / "run")
    metrics = [] if run is None else run.metrics
    evaluations = {} if run is None else run.evaluations
    difference = None if run is None else run.difference
    low, high = (None, None) if difference is None or difference.interval is None else difference.interval
    rollouts = int(sum(row.get("rollouts") or 0.0 for row in metrics))
    clock = _json(folder / "clock.json")
    return Row(
        cell=folder.name,
        labels=dict(cell.labels),
        seed=cell.seed,
        status=result.get("status", UNFINISHED),
        reason=result.get("reason", ""),
        exit_code=result.get("exit_code"),
        before=_measured(evaluations.get("before")),
        after=_measured(evaluations.get("after")),
        difference=None if difference is None else difference.mean,
        difference_low=low,
        difference_high=high,
        imagined_success=_curve(metrics, "imagined_success"),
        imagined_reward=_curve(metrics, "imagined_reward"),
        evaluations=[
            (float(found.iteration), found.rate, *(found.interval or (None, None)))
            for found in evaluations.values()
            if found.rate is not None
        ],
        iterations=len(metrics),
        seconds=float(result.get("seconds", clock.get("seconds", 0.0))),
        attempts=int(result.get("attempts", clock.get("attempts", 0))),
        peak_memory_bytes=int(result.get("peak_memory_bytes", 0)),
        rollouts=rollouts,
        frames=rollouts * horizon,
        dollars=_spent(folder / "run"),
        command=command,
    )


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """rows.jsonl (as nested as `Row`) and rows.parquet (a column an axis), of the cells that have ended."""
    import pyarrow
    from pyarrow import parquet

    ended = [row for row in rows if row.status != UNFINISHED]
    write_text(folder / "rows.jsonl", "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in ended))
    if ended:
        with replacing(folder / "rows.parquet") as temporary:
            parquet.write_table(pyarrow.Table.from_pylist([_flat(row) for row in ended]), temporary)


@dataclass(frozen=True)
class Combination:
    """Cells that differ in their seed only."""

    labels: tuple[str, ...]
    cells: int
    done: int
    mean: float | None
    """Of what was measured after training, over the seeds that are done."""
    standard_error: float | None
    """Over seeds; None for fewer than two."""
    interval: tuple[float, float] | None
    """95 %: Student's t over seeds; of one seed, the cell's own interval over episodes."""
    gain: float | None
    """Mean difference from before training."""
    gain_error: float | None
    measure: Measure = SUCCESS
    """What the numbers are."""
    gain_interval: tuple[float, float] | None = None
    """95 %, of the gain: as `interval`."""
    gain_degrees: int | None = None
    """Degrees of freedom of that interval, over seeds; None of one seed, whose interval is over episodes."""


def combine(rows: Sequence[Row]) -> list[Combination]:
    """The table over seeds, in the order of the rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.combination, []).append(row)
    return [_combination(labels, group) for labels, group in groups.items()]


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard error; None where there are too few values."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _combination(labels: tuple[str, ...], rows: Sequence[Row]) -> Combination:
    done = [row for row in rows if row.done and row.after.rate is not None]
    mean, error = mean_and_error([row.after.rate for row in done if row.after.rate is not None])
    gained = [row for row in done if row.difference is not None]
    gain, gain_error = mean_and_error([row.difference for row in gained if row.difference is not None])
    interval: tuple[float, float] | None = None
    measure = done[0].after.measure if done else SUCCESS
    if mean is not None and error is not None:
        interval = _over_seeds(mean, error, len(done))
        if measure.is_success:
            interval = (max(0.0, interval[0]), min(1.0, interval[1]))
    elif done and done[0].after.low is not None and done[0].after.high is not None:
        interval = (done[0].after.low, done[0].after.high)
    gain_interval: tuple[float, float] | None = None
    gain_degrees: int | None = None
    if gain is not None and gain_error is not None:
        gain_interval, gain_degrees = _over_seeds(gain, gain_error, len(gained)), len(gained) - 1
    elif gained and gained[0].difference_low is not None and gained[0].difference_high is not None:
        gain_interval = (gained[0].difference_low, gained[0].difference_high)
    return Combination(
        labels, len(rows), sum(row.done for row in rows), mean, error, interval, gain, gain_error, measure,
        gain_interval, gain_degrees,
    )  # fmt: skip


def _over_seeds(mean: float, error: float, count: int) -> tuple[float, float]:
    """Student's t interval, of count - 1 degrees of freedom."""
    from scipy import stats

    half = float(stats.t.ppf(0.975, count - 1)) * error
    return (mean - half, mean + half)


def _flat(row: Row) -> dict[str, Any]:
    values = asdict(row)
    for name in ("before", "after"):
        values |= {f"{name}_{key}": value for key, value in values.pop(name).items()}
    labels = values.pop("labels")
    for name, mean in (("imagined_success", "success"), ("imagined_reward", "reward"), ("evaluations", "mean")):
        keys = ("iteration", mean, "low", "high")
        values[name] = [dict(zip(keys, point, strict=False)) for point in values[name]]
    return {**{f"axis_{axis}" if axis in values or axis == SEED else axis: labels[axis] for axis in labels}, **values}


def _run(path: Path) -> Run | None:
    """The run folder of a cell, as far as it came; None if it did not begin or is damaged."""
    try:
        return read_run(path)
    except DataError:
        return None


def _spent(run: Path) -> float | None:
    """What it cost, as far as that is known."""
    try:
        return spent_usd(run)
    except DataError:
        return None


def _measured(found: Evaluation | None) -> Measured:
    if found is None or found.rate is None:
        return Measured(unscored=0 if found is None else found.unscored)
    scored = [(episode.task, episode.value) for episode in found.episodes if episode.value is not None]
    tasks, values = [task for task, _ in scored], [value for _, value in scored]
    low, high = found.interval or mean_interval(values, found.reward_kind, tasks) or (None, None)
    return Measured(found.rate, low, high, found.n, found.unscored, found.reward_kind, found.reward_model)


def _curve(metrics: Sequence[Mapping[str, float | None]], name: str) -> list[tuple[float, float]]:
    found = ((position(row), row.get(name)) for row in metrics)
    return [(float(at), float(value)) for at, value in found if at is not None and value is not None]


def _json(path: Path) -> dict[str, Any]:
    return read_object(path, allow_nan=True).values if path.exists() else {}
