"""From trials to summary.json: rates with intervals, tests between policies, rankings, agreement of worlds.

Shapes: P policies, U trials of each policy in each world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gymnast_core.money import total_usd
from gymnast_core.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    is_binary,
    mcnemar,
    repeats,
    score_interval,
    sign_flip_test,
    wilson_interval,
)
from gymnast_evaluation.agreement import agreement
from gymnast_evaluation.ranking import rank_policies
from gymnast_evaluation.trials import Trial


class Scores:
    """Trials as arrays: NaN where a trial is unscored or was not rolled out."""

    def __init__(self, trials: Sequence[Trial], policies: Sequence[str], worlds: Sequence[str], group_by: str) -> None:
        self.policies, self.worlds = tuple(policies), tuple(worlds)
        self.trials = [trial for trial in trials if trial.policy in policies and trial.world in worlds]
        self.size = 1 + max((trial.index for trial in self.trials), default=-1)
        self.starts_U = np.full(self.size, "", dtype=object)
        self.tasks_U = np.full(self.size, "", dtype=object)
        shape = (len(self.worlds), len(self.policies), self.size)
        self.values_WPU, self.partial_WPU = np.full(shape, np.nan), np.full(shape, np.nan)
        self.done_WPU = np.zeros(shape, dtype=bool)
        self.kinds = {world: "success" for world in self.worlds}
        """The kind of each world's reward model: "success" or "score"."""
        for trial in self.trials:
            place = (self.worlds.index(trial.world), self.policies.index(trial.policy), trial.index)
            self.done_WPU[place] = True
            self.kinds[trial.world] = trial.kind
            self.values_WPU[place] = math.nan if trial.value is None else trial.value
            self.partial_WPU[place] = math.nan if trial.partial is None else trial.partial
            self.starts_U[trial.index] = trial.task
            self.tasks_U[trial.index] = trial.instruction if group_by == "instruction" else trial.task
        self.starts_U, self.tasks_U = self.starts_U.astype(str), self.tasks_U.astype(str)

    def reference(self, wanted: str | None) -> str:
        """The world that counts as the truth: `wanted`, or the first one that knows outcomes, or the last."""
        knowing = {trial.world for trial in self.trials if trial.outcome is not None}
        return wanted or next((world for world in self.worlds if world in knowing), self.worlds[-1])


def summarise(
    scores: Scores, judges: Mapping[str, str] | None = None, *, reference: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """What summary.json holds; only finite numbers, strings and None. Policies without a trial are left out.

    `judges` names the reward model of each world.
    """
    worlds = [world for w, world in enumerate(scores.worlds) if scores.done_WPU[w].any()]
    truth = scores.reference(reference)
    summary = {
        "starts": len(set(scores.starts_U)),
        "trials": scores.size,
        "unscored": int((scores.done_WPU & np.isnan(scores.values_WPU)).sum()),
        "cost_usd": total_usd(trial.cost_usd for trial in scores.trials),
        "reference": truth if len(worlds) > 1 else None,
        "judges": {world: {"name": (judges or {}).get(world, ""), "kind": scores.kinds[world]} for world in worlds},
        "results": {
            policy: {world: _cell(scores, policy, world, seed) for world in worlds} for policy in scores.policies
        },
        "comparisons": [row for world in worlds for row in _comparisons(scores, world, seed)],
        "rankings": {world: _ranking(scores, world, seed) for world in worlds},
        "agreement": {world: _agreement(scores, world, truth, seed) for world in worlds if world != truth},
    }
    return _plain(summary)


def brief(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed of a summary: rates, tests and agreement without their parts."""
    cells = ("rate", "interval", "n", "unscored")
    agreements = ("policies", "trials", "pearson", "spearman", "mean_maximum_rank_violation", "mean_difference")
    return {
        "judges": summary["judges"],
        "results": {
            policy: {world: {key: cell[key] for key in cells} for world, cell in row.items()}
            for policy, row in summary["results"].items()
        },
        "comparisons": [
            {key: value for key, value in row.items() if key != "partial"} for row in summary["comparisons"]
        ],
        "agreement": {
            world: None if found is None else {key: found[key] for key in agreements}
            for world, found in summary["agreement"].items()
        },
        "unscored": summary["unscored"],
        "cost_usd": summary["cost_usd"],
    }


def _cell(scores: Scores, policy: str, world: str, seed: int) -> dict[str, Any]:
    """Mean score of a policy in a world, overall and by task, and its mean partial credit where there is any."""
    w, p, kind = scores.worlds.index(world), scores.policies.index(policy), scores.kinds[world]
    done_U, values_U, partial_U = scores.done_WPU[w, p], scores.values_WPU[w, p], scores.partial_WPU[w, p]
    judged_U, graded_U = done_U & ~np.isnan(values_U), ~np.isnan(partial_U)
    values = values_U[judged_U]
    tasks = {}
    for task in sorted(set(scores.tasks_U[done_U])):
        of_task = done_U & (scores.tasks_U == task)
        tasks[str(task)] = _rate(values_U[of_task], scores.starts_U[of_task], kind, seed)
    graded = _bootstrap(partial_U[graded_U], scores.starts_U[graded_U], "success", seed)
    binary = kind == "success" and len(values) and is_binary(values)
    return {
        **_rate(values_U[done_U], scores.starts_U[done_U], kind, seed),
        "wilson": wilson_interval(int(values.sum()), len(values)) if binary else None,
        "bootstrap": _bootstrap(values, scores.starts_U[judged_U], kind, seed),
        "partial": graded and {"mean": float(partial_U[graded_U].mean()), "interval": graded, "n": int(graded_U.sum())},
        "tasks": tasks,
    }


def _rate(values: NDArray[Any], starts: NDArray[Any], kind: str, seed: int) -> dict[str, Any]:
    """Mean, its interval and counts; NaN is unscored.

    The interval is Wilson's for 0/1 success of different starts. What is graded, and repeated trials of several starts,
    which tell less of other starts than as many different ones, have a bootstrap interval over starts.
    """
    judged = ~np.isnan(values)
    scored, clusters = values[judged], starts[judged]
    count = len(set(clusters))
    if kind == "success" and len(scored) and is_binary(scored) and count in (1, len(scored)):
        interval: Interval | None = wilson_interval(int(scored.sum()), len(scored))
    else:
        interval = _bootstrap(scored, clusters, kind, seed)
    return {
        "rate": float(scored.mean()) if len(scored) else None,
        "interval": interval,
        "n": len(scored),
        "unscored": int((~judged).sum()),
        "starts": count,
    }


def _bootstrap(
    values: NDArray[Any], starts: NDArray[Any], kind: str, seed: int, bounds: Interval = (0.0, 1.0)
) -> Interval | None:
    """None where nothing was judged, or where scores, which have no bounds, are all alike."""
    if not len(values):
        return None
    if kind != "success":
        return score_interval(values, starts, seed=seed)
    return bootstrap_interval(values, starts, bounds=bounds, seed=seed)


def _comparisons(scores: Scores, world: str, seed: int) -> list[dict[str, Any]]:
    """Every pair of policies in a world on the trials judged for both; Holm's correction over these pairs."""
    w = scores.worlds.index(world)
    rows = []
    for first, second in combinations(range(len(scores.policies)), 2):
        pair = (scores.policies[first], scores.policies[second])
        values, partials, starts = scores.values_WPU[w], scores.partial_WPU[w], scores.starts_U
        success = _paired(values[first], values[second], starts, scores.kinds[world], seed)
        partial = _paired(partials[first], partials[second], starts, "success", seed)
        if success is not None:
            rows.append({"world": world, "first": pair[0], "second": pair[1], **success, "partial": partial})
    for measured in (rows, [row["partial"] for row in rows if row["partial"] is not None]):
        for row, adjusted in zip(measured, holm([row["p_value"] for row in measured]), strict=True):
            row["p_holm"] = adjusted
    return rows


def _paired(
    first_U: NDArray[Any], second_U: NDArray[Any], starts_U: NDArray[Any], kind: str, seed: int
) -> dict[str, Any] | None:
    """Second minus first: mean, interval and test.

    The test is McNemar's where both are 0/1 success and no start is repeated. What is graded has sign flips, and so
    have repeated trials of several starts: whole starts are flipped, for what happens twice from one start says nothing
    of others. Of one start alone, trials are tested; they say nothing of other starts.
    """
    both = ~np.isnan(first_U) & ~np.isnan(second_U)
    if not both.any():
        return None
    a, b, clusters = first_U[both], second_U[both], starts_U[both]
    found: dict[str, Any] = {
        "n": int(both.sum()),
        "starts": len(set(clusters)),
        "difference": float((b - a).mean()),
        "interval": _bootstrap(b - a, clusters, kind, seed, bounds=(-1.0, 1.0)),
    }
    binary, repeated = kind == "success" and is_binary(a) and is_binary(b), repeats(clusters)
    # How many trials only one of them solved is told even where they are no independent evidence.
    counts = asdict(mcnemar(a, b)) if binary else {}
    if binary and not repeated:
        return {**found, "test": "exact McNemar", **counts}
    test = "paired permutation of starts" if repeated else "paired permutation"
    return {**found, "test": test, **counts, "p_value": sign_flip_test(b - a, clusters, seed=seed)}


def _ranking(scores: Scores, world: str, seed: int) -> dict[str, Any] | None:
    found = rank_policies(scores.policies, scores.values_WPU[scores.worlds.index(world)], scores.starts_U, seed=seed)
    return None if found is None else asdict(found)


def _agreement(scores: Scores, world: str, truth: str, seed: int) -> dict[str, Any] | None:
    imagined_PU, reference_PU = (scores.values_WPU[scores.worlds.index(label)] for label in (world, truth))
    kinds = (scores.kinds[world], scores.kinds[truth])
    found = agreement(
        scores.policies, imagined_PU, reference_PU, scores.starts_U, scores.tasks_U, kinds=kinds, seed=seed
    )
    return None if found is None else asdict(found)


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not defined is None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
