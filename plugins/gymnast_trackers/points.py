"""What there is to send of a run, read from its folder: the rows of metrics.csv, its evaluations, a few videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast_core.runs.metrics import FILE, read_metrics
from gymnast_trackers.secrets import flat
from gymnast_trackers.sink import Film, Point

if TYPE_CHECKING:
    from gymnast_core.runs.results import Evaluation
    from gymnast_report.gallery import Clip

_ITERATION = "iteration-"


def newest_snapshot(folder: Path) -> int:
    """The step behind which a run cannot fall any more; 0 without a snapshot."""
    names = [path.name.removeprefix("step-") for path in (folder / "snapshots").glob("step-*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def points(folder: Path, upto: float, total: int, videos: int) -> list[Point]:
    """Steps from 0 (before the first) to `upto`, in order, of a run of `total` steps, with `videos` at most."""
    from gymnast_core.runs.results import read_run  # imports torch, which a command that lists hooks has no use for

    numbers: dict[int, dict[str, float]] = {}
    for row in read_metrics(folder / FILE):
        step = int(row["step"])
        numbers[step] = {name: float(text) for name, text in row.items() if name != "step"}
    evaluations = read_run(folder).evaluations
    for evaluation in evaluations.values():  # "after" comes last
        numbers.setdefault(evaluation.iteration, {}).update(_measured(evaluation))
    last = evaluations["after"].iteration if "after" in evaluations else total
    films = _films(folder / "videos", total, last, videos)
    steps = sorted(step for step in {*numbers, *films} if step <= upto)
    return [Point(step, numbers.get(step, {}), films.get(step, ())) for step in steps]


def summary_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary, by dotted key with slashes for dots."""
    values = flat(summary)
    return {
        name.replace(".", "/"): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _measured(evaluation: Evaluation) -> dict[str, float]:
    name = "evaluation/success" if evaluation.reward_kind == "success" else "evaluation/reward"
    found = {"evaluation/n": float(evaluation.n), "evaluation/unscored": float(evaluation.unscored)}
    if evaluation.rate is not None:
        found[name] = evaluation.rate
    if evaluation.interval is not None:
        found[f"{name}_low"], found[f"{name}_high"] = evaluation.interval
    return found


def _films(folder: Path, total: int, end: int, most: int) -> dict[int, list[Film]]:
    """A quarter of the videos each from before and after the run, and half from iterations, evenly spread."""
    from gymnast_report.gallery import read_clips

    phases: dict[str, list[Clip]] = {}
    for clip in read_clips(folder):
        if clip.of_training or not clip.phase.startswith(_ITERATION):
            phases.setdefault(clip.phase, []).append(clip)
    ends = -(-most // 4) if most > 1 else most
    chosen: dict[int, list[Clip]] = {0: phases.get("before", [])[:ends]}
    places, last = most // 2, 0
    for phase in sorted(name for name in phases if name.startswith(_ITERATION)):
        step = int(phase.removeprefix(_ITERATION))
        place = -(-step * places // max(total, 1))  # the first iteration takes the first place
        if last < place <= places:
            chosen.setdefault(step, []).append(phases[phase][0])
            last = place
    left = max(most - sum(map(len, chosen.values())), 0)
    chosen.setdefault(end, []).extend(phases.get("after", [])[: min(ends, left)])
    return {step: _described(folder, clips) for step, clips in chosen.items() if clips}


def _described(folder: Path, clips: Sequence[Clip]) -> list[Film]:
    return [Film(folder / clip.file, f"{clip.title} ({clip.kind}, {clip.phase})") for clip in clips]
