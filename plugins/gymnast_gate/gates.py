"""From rows to gates: what was measured, what is wanted, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gymnast_core.money import total_usd
from gymnast_core.statistics import mcnemar, repeats, sign_flip_test
from gymnast_gate.config import GateConfig
from gymnast_gate.options import Config
from gymnast_gate.pixels import Comparison, Likeness
from gymnast_gate.rows import Row
from gymnast_gate.verdicts import (
    FAIL,
    NOT_MEASURED,
    Criterion,
    criterion,
    mean_interval,
    share_interval,
    worst,
)

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Graded scores above which a rollout could be called a success."""


@dataclass(frozen=True)
class Gate:
    """One of them."""

    key: str
    title: str
    question: str
    verdict: str
    criteria: list[Criterion] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    """By group of tasks."""
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Found:
    """What the gates are made of."""

    rows: Sequence[Row]
    config: GateConfig
    options: Config
    truth: str
    """The name of the world or judge that is believed."""
    replays: bool
    """Whether that is a world in which actions were executed."""
    environment: bool
    """Whether the policy was measured in an environment."""
    recorded: Sequence[Any] = ()
    """Errors on recorded episodes (`pixels.Sums`), where there is no environment."""


def gates_of(found: Found) -> list[Gate]:
    """The gates in their order; where nothing could be executed, an audit takes the place of the last two."""
    gates = [policy_gate(found), frames_gate(found)]
    if found.replays:
        return [*gates, actions_gate(found), judge_gate(found)]
    return [*gates, judge_gate(found)]


def summary_of(found: Found) -> dict[str, Any]:
    """What summary.json says."""
    gates = gates_of(found)
    return {
        "verdict": worst([gate.verdict for gate in gates]),
        "verdicts": {gate.key: gate.verdict for gate in gates},
        "leave_out": sorted(
            {group["group"] for gate in gates for group in gate.groups if group["verdict"] == FAIL}
        ),
        "by": found.options.by,
        "truth": found.truth,
        "rollouts": len(found.rows),
        "tasks": len({row.task for row in found.rows}),
        "errors": sum(bool(row.errors) for row in found.rows),
        "first_error": next((row.errors[0] for row in found.rows if row.errors), None),
        "cost_usd": total_usd(row.cost_usd for row in found.rows),
        "gates": [asdict(gate) for gate in gates],
    }  # fmt: skip


def policy_gate(found: Found) -> Gate:
    """Gate 1: does the policy show what can be learned from?"""
    asked = found.config.gate
    rows = [row for row in found.rows if row.real is not None]
    value, interval = _share(rows, lambda row: bool(row.real))

    def within(bound: float, at_least: bool) -> Criterion:
        side = "least" if at_least else "most"
        return criterion(
            f"sampled success, at {side}", value, interval, len(rows), bound, unit="share", least_n=asked.least,
            enough=asked.enough, at_least=at_least,
        )  # fmt: skip

    criteria = [within(asked.success_least, True), within(asked.success_most, False)]
    groups = []
    for name, mine in _grouped(rows):
        share, bounds = _share(mine, lambda row: bool(row.real))
        never = bounds is not None and bounds[1] < asked.success_least
        groups.append(
            {"group": name, "value": share, "interval": bounds, "n": len(mine), "verdict": FAIL if never else ""}
        )
    note = "" if found.environment else "No environment stands behind the tasks: nobody knows."
    return Gate(
        "policy", "Policy", "Does the policy succeed often enough in the environment, and not always?",
        worst([one.verdict for one in criteria]), criteria, groups, note=note,
    )  # fmt: skip


def frames_gate(found: Found) -> Gate:
    """Gate 2: are imagined frames nearer to real ones than frames in which nothing moves?"""
    asked = found.config.gate
    measured = [row for row in found.rows if row.pixels is not None]
    errors = [row.pixels for row in measured if row.pixels is not None] or list(found.recorded)
    seen = Comparison(errors, [row.task for row in measured] or None)
    title, question = "Frames", "Does the world model show what will be seen, where it moves and where it does not?"
    if not errors:
        note = "There are no real episodes: name some in gate.episodes." if not found.environment else ""
        return Gate("frames", title, question, NOT_MEASURED, note=note)
    early, late = min(asked.early_frame, seen.frames), min(asked.late_frame, seen.frames)

    def wanted(name: str, found: Likeness | None, bound: float) -> Criterion:
        return criterion(
            name, None if found is None else found.value, None if found is None else found.interval,
            0 if found is None else found.n, bound, unit="dB", least_n=asked.least, enough=asked.enough,
        )  # fmt: skip

    criteria = []
    frames = {early: asked.unchanged_early}
    frames.setdefault(late, asked.unchanged_late)
    for frame, unchanged in frames.items():
        criteria.append(wanted(f"unchanged pixels, frame {frame}", seen.psnr("unchanged", "model", frame), unchanged))
        gain = seen.gain("changed", "copy", frame)
        criteria.append(wanted(f"changed pixels above copying, frame {frame}", gain, asked.changed_gain))
    if seen.knows("shuffled"):
        gain = seen.gain("changed", "shuffled", late)
        criteria.append(wanted(f"changed pixels above other actions', frame {late}", gain, asked.actions_gain))
    return Gate(
        "frames", title, question, worst([one.verdict for one in criteria]), criteria,
        details={"frames": seen.frames, "episodes": len(errors), "curves": _curves(seen)},
    )  # fmt: skip


def actions_gate(found: Found) -> Gate:
    """Gate 3: do actions taken in imagination do in the environment what the policy's own do there?"""
    asked = found.config.gate
    rows = [row for row in found.rows if row.real is not None and row.true is not None]
    differences = [float(bool(row.true)) - float(bool(row.real)) for row in rows]
    tasks = [row.task for row in rows]
    value = sum(differences) / len(rows) if rows else None
    interval = mean_interval(differences, tasks, bounds=(-1.0, 1.0))
    lag = criterion(
        "true success of imagined actions, above the policy's in the environment", value, interval, len(rows),
        -asked.action_lag, unit="points", least_n=asked.least, enough=asked.enough,
    )  # fmt: skip
    details: dict[str, Any] = {}
    if rows:
        test = mcnemar([float(bool(row.real)) for row in rows], [float(bool(row.true)) for row in rows])
        details = {
            "real": sum(bool(row.real) for row in rows) / len(rows),
            "imagined": sum(bool(row.true) for row in rows) / len(rows),
            "only_real": test.only_first,
            "only_imagined": test.only_second,
            # Where tasks repeat, rollouts are no independent evidence: the signs of whole tasks are flipped.
            "test": "paired permutation of tasks" if repeats(tasks) else "exact McNemar",
            "p_value": sign_flip_test(differences, tasks) if repeats(tasks) else test.p_value,
        }
    question = "Do actions that were taken in imagination succeed as often as the policy does in the environment?"
    return Gate("actions", "Actions", question, lag.verdict, [lag], details=details)


def judge_gate(found: Found) -> Gate:
    """Gate 4: are judged successes true ones, in every group of tasks? Or an audit, if a second judge is believed."""
    asked, wanted = found.config.gate, found.options.precision
    rows = [row for row in found.rows if row.judged is not None and row.true is not None]
    name = "precision" if found.replays else f"judged successes that {found.truth!r} confirms"
    said = [row for row in rows if row.judged]
    value, interval = _share(said, lambda row: bool(row.true))
    overall = criterion(
        f"{name}, all tasks", value, interval, len(said), wanted, unit="share", least_n=asked.least,
        enough=asked.enough_judged,
    )  # fmt: skip
    groups = [_judged_group(found, group, mine) for group, mine in _grouped(rows)]
    true = [row for row in rows if row.true]
    recall, recall_interval = _share(true, lambda row: bool(row.judged))
    details = {
        "n": len(rows), "judged": len(said), "true": len(true), "recall": recall, "recall_interval": recall_interval,
        "agreement": sum(row.judged == row.true for row in rows) / len(rows) if rows else None,
        "thresholds": _thresholds(rows), "threshold": _reaching(rows, wanted, asked.least),
    }  # fmt: skip
    verdict = worst([overall.verdict, *(group["verdict"] for group in groups)])
    if found.replays:
        return Gate(
            "judge", "Judge", "Is what the judge calls a success one, in every group of tasks?", verdict, [overall],
            groups, details,
        )  # fmt: skip
    return Gate(
        "audit", "Audit by a second judge", f"Does {found.truth!r} confirm what the judge calls a success?", verdict,
        [overall], groups, details,
        note="No action was executed: that two judges agree does not make it true, and what the world model gets wrong "
        "deceives both.",
    )  # fmt: skip


def _judged_group(found: Found, name: str, rows: Sequence[Row]) -> dict[str, Any]:
    asked = found.config.gate
    said, true = [row for row in rows if row.judged], [row for row in rows if row.true]
    value, interval = _share(said, lambda row: bool(row.true))
    recall, recall_interval = _share(true, lambda row: bool(row.judged))
    one = criterion(
        name, value, interval, len(said), found.options.precision, unit="share", least_n=asked.least,
        enough=asked.enough_judged,
    )  # fmt: skip
    return {
        "group": name, "value": value, "interval": interval, "n": len(said), "verdict": one.verdict,
        "by_estimate": one.by_estimate, "needed": one.needed, "rollouts": len(rows), "recall": recall,
        "recall_interval": recall_interval, "true": len(true), "would_do": _would_do(found, rows),
    }  # fmt: skip


def _would_do(found: Found, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The lowest threshold of the graded score that would reach the wanted precision in a group, and what it would
    find; None if there is none."""
    threshold = _reaching(rows, found.options.precision, found.config.gate.least)
    if threshold is None:
        return None
    graded = [row for row in rows if row.probability is not None]
    return _above(threshold, graded)


def _thresholds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Precision and recall if a success were a graded score above each threshold; empty without graded scores."""
    graded = [row for row in rows if row.probability is not None]
    return [_above(threshold, graded) for threshold in THRESHOLDS] if graded else []


def _above(threshold: float, graded: Sequence[Row]) -> dict[str, Any]:
    """The same for one threshold, of rows with a graded score."""
    said = [row for row in graded if (row.probability or 0.0) > threshold]
    true = sum(bool(row.true) for row in graded)
    precision, interval = _share(said, lambda row: bool(row.true))
    recall = sum(bool(row.true) for row in said) / true if true else None
    return {
        "threshold": threshold, "precision": precision, "interval": interval, "judged": len(said), "recall": recall,
    }  # fmt: skip


def _reaching(rows: Sequence[Row], wanted: float, least: int) -> float | None:
    """The lowest threshold of the graded score from which on precision is the wanted one, by its estimates: over all
    tasks, and in each group that has at least `least` judged successes there. None if there is none."""
    lowest = None
    for threshold in reversed(THRESHOLDS):
        said = [row for row in rows if row.probability is not None and row.probability > threshold]
        shown = [mine for _, mine in _grouped(said) if len(mine) >= least]
        if len(said) < least:
            continue
        if any(sum(bool(row.true) for row in mine) < wanted * len(mine) for mine in (said, *shown)):
            break
        lowest = threshold
    return lowest


def _curves(seen: Comparison) -> dict[str, list[float | None]]:
    """PSNR by frame of every part, source and frame of comparison."""
    sources = [name for name in ("model", "copy", "shuffled") if seen.knows(name)]
    return {
        f"{part}/{against}/{source}": seen.curve(part, source, against)
        for against in ("first", "previous")
        for part in ("changed", "unchanged")
        for source in sources
    }


def _grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of each group, by name."""
    names = sorted({row.group for row in rows})
    return [(name, [row for row in rows if row.group == name]) for name in names]


def _share(rows: Sequence[Row], of: Callable[[Row], bool]) -> tuple[float | None, tuple[float, float] | None]:
    values = [of(row) for row in rows]
    return (sum(values) / len(values) if values else None), share_interval(values, [row.task for row in rows])
