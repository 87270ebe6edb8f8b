"""What a probe cost: RUN/spending.jsonl has every payment from the moment that it was made, whatever became of it.

Rows of results.jsonl say what a trial cost, and a batch that is killed, or stopped by too many errors, leaves none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gymnast_core.money import total_usd
from gymnast_core.runs.spending import FILE, Payment, note
from gymnast_evaluation.trials import Trial
from gymnast_probe.kept import kept_costs


def note_edit(folder: Path, index: int, usd: float | None) -> None:
    """A provider was paid for a trial's edit."""
    note(folder, Payment("edit", index, usd))


def note_judged(folder: Path, first: int, costs: Sequence[float | None]) -> None:
    """A judge was paid for the batch that begins with the trial `first`."""
    note(folder, Payment("probe", first, total_usd(costs)))


def note_earlier(folder: Path, trials: Sequence[Trial]) -> None:
    """What a folder of before there was such a file tells of: its rows, and what was made for trials without one."""
    if (folder / FILE).exists():
        return
    made = [cost for (label, index), cost in kept_costs(folder).items() if not is_booked(trials, label, index, cost)]
    note(folder, Payment("probe", 0, total_usd([*(trial.cost_usd for trial in trials), *made])))


def is_booked(trials: Sequence[Trial], label: str, index: int, usd: float | None) -> bool:
    """Whether a row holds what an edit cost."""
    rows = [trial.cost_usd for trial in trials if (trial.world, trial.index) == (label, index)]
    return any(cost is None or (usd is not None and cost >= usd) for cost in rows)
