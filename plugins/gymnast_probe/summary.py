"""From trials to summary.json: success of each policy under each edit, and how far it falls on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gymnast_core.money import total_usd
from gymnast_core.statistics import (
    bootstrap_interval,
    holm,
    is_binary,
    mcnemar,
    mean_interval,
    repeats,
    score_interval,
    sign_flip_test,
)
from gymnast_evaluation.trials import Trial
from gymnast_probe.config import ORIGINAL


def summarise(
    trials: Sequence[Trial], policies: Sequence[str], labels: Sequence[str], *, judge: str = "", seed: int = 0
) -> dict[str, Any]:
    """Means with 95 % intervals; falls are paired by task, with Holm's correction over the edits of a policy. `judge`
    is the reward model's name."""
    kind = next((trial.kind for trial in trials), "success")
    table: dict[tuple[str, str], dict[int, Trial]] = {}
    for trial in trials:
        table.setdefault((trial.policy, trial.world), {})[trial.index] = trial
    summary: dict[str, Any] = {"judge": {"name": judge, "kind": kind}, "policies": {}}
    for policy in policies:
        original = table.get((policy, ORIGINAL), {})
        cells = {label: _cell(table.get((policy, label), {}), original, label, kind, seed) for label in labels}
        falls = [cell["fall"] for cell in cells.values() if cell.get("fall")]
        for fall, adjusted in zip(falls, holm([fall["p_value"] for fall in falls]), strict=True):
            fall["p_holm"] = adjusted
        summary["policies"][policy] = cells
    summary["unscored"] = sum(trial.value is None and trial.applies for trial in trials)
    summary["cost_usd"] = total_usd(trial.cost_usd for trial in trials)
    return summary


def _cell(rows: dict[int, Trial], original: dict[int, Trial], label: str, kind: str, seed: int) -> dict[str, Any]:
    scored = [(trial.task, trial.value) for trial in rows.values() if trial.value is not None]
    tasks, values = [task for task, _ in scored], [value for _, value in scored]
    left_out = sum(not trial.applies for trial in rows.values())
    cell: dict[str, Any] = {
        "rate": float(np.mean(values)) if values else None,
        "interval": mean_interval(values, kind, tasks, seed=seed) if values else None,
        "n": len(values),
        "unscored": len(rows) - len(values) - left_out,
        "not_applicable": left_out,
    }
    if label != ORIGINAL:
        cell["fall"] = _fall(rows, original, kind, seed)
    return cell


def _fall(rows: dict[int, Trial], original: dict[int, Trial], kind: str, seed: int) -> dict[str, Any] | None:
    """Edited minus original over the tasks that were judged both ways; None if there are none. Where a task occurs
    more than once, it counts as one case in interval and test."""
    pairs, tasks = [], []
    for index, trial in sorted(rows.items()):
        untouched = original[index].value if index in original else None
        if trial.value is not None and untouched is not None:
            pairs.append((untouched, trial.value))
            tasks.append(trial.task)
    if not pairs:
        return None
    before, after = np.array(pairs, dtype=float).T
    success, change = kind == "success", after - before
    found: dict[str, Any] = {
        "n": len(pairs),
        "original": float(before.mean()),
        "difference": float(change.mean()),
        "interval": bootstrap_interval(change, tasks, bounds=(-1.0, 1.0), seed=seed)
        if success
        else score_interval(change, tasks, seed=seed),
    }
    binary, repeated = success and is_binary(before) and is_binary(after), repeats(tasks)
    counts = asdict(mcnemar(before, after)) if binary else {}
    if binary and not repeated:
        return {**found, "test": "exact McNemar", **counts}
    test = "paired permutation of tasks" if repeated else "paired permutation"
    return {**found, "test": test, **counts, "p_value": sign_flip_test(change, tasks, seed=seed)}
