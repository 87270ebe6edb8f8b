"""What an iteration of a training brought, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gymnast_core.money import in_dollars
from gymnast_pages.measure import Measure


class Telling:
    """Tells one run's iterations; knows what the first one imagined, also in an earlier process."""

    def __init__(self, total: int, judge: str, rows: Sequence[Mapping[str, float | None]] = ()) -> None:
        """`rows` are the metrics that are written already, in order; `judge` is the reward model's name."""
        self._total, self._score = total, Measure("score", judge)
        self._first: float | None = None
        for row in rows:
            self._note(row)

    def words(self, step: int, metrics: Mapping[str, float | None], spent_usd: float | None = 0.0) -> str | None:
        """The beginning of a sentence; None of a step that imagined nothing, as one of `gymnast fit`.

        `spent_usd` is what the run has cost so far, None if that is not known.
        """
        shown = _imagined(metrics)
        if shown is None:
            return None
        is_first = self._first is None
        self._note(metrics)
        assert self._first is not None
        if "imagined_success" in metrics:
            by = f" by coin flips ({self._score.judge})" if self._score.is_chance else ""
            said = f"{shown:.0%} of imagined rollouts judged successful{by}".replace("%", " %")
            was = f"{self._first:.0%}".replace("%", " %")
        else:
            said, was = f"{self._score.name} {shown:.3g} in imagination", f"{self._first:.3g}"
        parts = [f"iteration {step} of {self._total}: {said}" + ("" if is_first else f" (was {was} at first)")]
        if metrics.get("groups_kept") == 0 and metrics.get("groups_dropped"):
            parts.append(f"nothing learned: none of {metrics['groups_dropped']:.0f} groups tells good from bad")
        if unscored := metrics.get("unscored"):
            parts.append(f"{unscored:.0f} not judged")
        if spent_usd != 0:
            parts.append(f"{in_dollars(spent_usd)} spent so far")
        return ", ".join(parts)

    def _note(self, metrics: Mapping[str, float | None]) -> None:
        if self._first is None:
            self._first = _imagined(metrics)


def _imagined(metrics: Mapping[str, float | None]) -> float | None:
    found = metrics.get("imagined_success")
    return metrics.get("imagined_reward") if found is None else found
