"""What an adaptation changed: on its target, and on what it was not trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnast_core.money import total_usd


def summarise(
    measured: Mapping[str, Mapping[str, Any]], policy: str, practice_usd: float | None = 0.0
) -> dict[str, Any]:
    """`measured` holds the summaries of the evaluations of "before" and "after", by what they are of; `practice_usd` is
    what judging cost while it practised, None if that is not known.

    Rates with intervals, and after minus before over the trials that were judged both times, by world.
    """
    found: dict[str, Any] = {"policy": policy}
    for name, summary in measured.items():
        rows = {row["world"]: row for row in summary["comparisons"]}
        found[name] = {
            world: {
                "judge": summary["judges"][world],
                "before": _cell(summary["results"]["before"][world]),
                "after": _cell(summary["results"]["after"][world]),
                "change": _change(rows.get(world)),
            }
            for world in summary["judges"]
        }
        found[name + "_starts"] = summary["starts"]
    found["unscored"] = sum(summary["unscored"] for summary in measured.values())
    found["cost_usd"] = total_usd((practice_usd, *(summary["cost_usd"] for summary in measured.values())))
    return found


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("rate", "interval", "n", "unscored")}


def _change(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """After minus before; None where no trial was judged both times."""
    if row is None:
        return None
    return {key: row[key] for key in ("difference", "interval", "n", "test", "p_value")}
