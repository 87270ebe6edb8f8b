"""From verdicts to summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gymnast_core.statistics import bootstrap_interval, score_interval
from gymnast_judging.statistics import Confusion, Share, calibration
from gymnast_judging.verdicts import Verdict
from gymnast_judging.votes import vote_agreement

RATES = ("accuracy", "precision", "recall", "false_positive_rate")


def summarise(
    rows: Sequence[Verdict],
    *,
    reward_model: str,
    clips: str,
    threshold: float,
    bins: int,
    unlabelled: int,
    cost_usd: float | None,
) -> dict[str, Any]:
    """Everything that is known of a judge; only finite numbers, strings and None.

    Clips without a verdict count in no rate: they are reported beside, by truth, and as abstentions or failures.
    """
    scored = [row for row in rows if row.value is not None]
    confusion = Confusion.count([bool(row.judged(threshold)) for row in scored], [row.success for row in scored])
    by_instruction = {
        text: _share(
            Share(sum(row.judged(threshold) == row.success for row in mine), len(mine)),
        )
        for text in sorted({row.instruction for row in scored})
        for mine in [[row for row in scored if row.instruction == text]]
    }
    is_success = all(row.reward_kind == "success" for row in rows)
    return {
        "reward_model": reward_model,
        "reward_kind": "success" if is_success else "score",
        "clips": clips,
        "threshold": threshold,
        "n": len(scored),
        "successes": sum(row.success for row in scored),
        **({} if is_success else {mean_key(reward_model): _mean_rewards(scored)}),
        "confusion": asdict(confusion),
        "rates": {name: _share(getattr(confusion, name)) for name in RATES},
        "accuracy_of_guessing": confusion.guessing,
        "by_instruction": by_instruction,
        "unscored": _unscored(rows),
        "unlabelled": unlabelled,
        "calibration": _calibration(scored, bins),
        "votes": _votes(rows),
        "cost_usd": cost_usd,
        "cost_per_clip_usd": None if cost_usd is None else cost_usd / len(rows),
    }


def mean_key(judge: str) -> str:
    """What the mean of a judge's scores is called."""
    return f"mean reward by {judge}"


def brief(summary: dict[str, Any]) -> dict[str, Any]:
    """What the command prints."""
    kept = (
        "reward_model",
        "clips",
        "n",
        "successes",
        "confusion",
        "rates",
        "accuracy_of_guessing",
        "unscored",
        "votes",
    )
    found = {key: summary[key] for key in kept}
    name = mean_key(summary["reward_model"])
    found |= {name: summary[name]} if name in summary else {}
    if summary["calibration"]:
        found["calibration"] = {key: value for key, value in summary["calibration"].items() if key != "bins"}
    return found | {"cost_usd": summary["cost_usd"]}


def _mean_rewards(scored: Sequence[Verdict]) -> dict[str, Any]:
    """The scores of clips that are successes, and of those that are none."""
    found = {}
    for name, outcome in (("successes", True), ("failures", False)):
        values = [row.value for row in scored if row.success == outcome and row.value is not None]
        mean = sum(values) / len(values) if values else None
        found[name] = {"mean": mean, "interval": score_interval(values), "n": len(values)}
    return found


def _share(share: Share) -> dict[str, Any]:
    return {"value": share.value, "interval": share.interval, "n": share.n}


def _unscored(rows: Sequence[Verdict]) -> dict[str, Any]:
    errors = [row for row in rows if row.error is not None]
    kinds = {"abstained": [], "failed": []}  # type: dict[str, list[Verdict]]
    for row in errors:
        kinds["abstained" if row.abstained else "failed"].append(row)
    return {
        "n": len(errors),
        **{
            kind: {"successes": sum(row.success for row in mine), "failures": sum(not row.success for row in mine)}
            for kind, mine in kinds.items()
        },
        "first_error": errors[0].error if errors else None,
    }


def _calibration(scored: Sequence[Verdict], bins: int) -> dict[str, Any] | None:
    graded = [(row.partial, row.success) for row in scored if row.partial is not None]
    found = calibration([score for score, _ in graded], [success for _, success in graded], bins)
    if found is None:
        return None
    return {
        "n": found.n,
        "expected_calibration_error": found.expected_error,
        "brier": found.brier,
        "brier_interval": found.brier_interval,
        "brier_of_base_rate": found.brier_of_base_rate,
        "bins": [asdict(one) | {"interval": one.interval} for one in found.bins],
    }


def _votes(rows: Sequence[Verdict]) -> dict[str, Any] | None:
    found = vote_agreement([row.votes for row in rows])
    if found is None:
        return None
    return {
        "clips": found.items,
        "votes": found.votes,
        "pairwise_agreement": found.mean,
        "pairwise_agreement_interval": bootstrap_interval(found.pairwise, bounds=(0.0, 1.0)),
        "unanimous": found.unanimous,
        "fleiss_kappa": found.kappa,
    }
