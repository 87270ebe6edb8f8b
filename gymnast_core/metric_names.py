"""What a plugin's metric may be called, so that a run's own numbers stay what they are and metrics.csv a table."""

import re
from collections.abc import Collection, Iterable

RESERVED = frozenset(
    (
        "step", "rollouts", "unscored", "cost_usd", "groups_kept", "groups_dropped", "groups_waiting",
        "imagined_success", "imagined_reward", "loss", "demonstration_loss", "grad_norm", "learning_rate",
        "stopped_early", "unmoved", "seconds", "seconds_imagining", "seconds_updating", "rollouts_per_second",
    )
)  # fmt: skip
"""Numbers of every run. (`entropy` is not among them: an optimizer may say its own.)"""
VALIDATION = "validation/"
"""What begins the names of numbers on held-out episodes."""
RESERVED_PREFIXES = ("judge_", VALIDATION)
"""What begins names that no plugin's metric may have: a judge's own numbers, and those on held-out episodes."""
_FORM = re.compile(r"[^\W\d][\w./-]*")


def fault_of_form(names: Iterable[object]) -> str | None:
    """What is wrong with the first name that is no text, does not begin with a letter, or holds other characters than
    letters, digits and _ . / -; None if all can be columns."""
    for name in names:
        if not isinstance(name, str) or not _FORM.fullmatch(name):
            return f"a metric named {name!r:.80}: names begin with a letter, and hold letters, digits and _ . / -"
    return None


def fault_of_names(names: Collection[object]) -> str | None:
    """As `fault_of_form`, and of the first name that is one of the run's own."""
    if fault := fault_of_form(names):
        return fault
    for name in map(str, names):
        if name in RESERVED or name.startswith(RESERVED_PREFIXES):
            return f"a metric named {name!r}, which is a number of the run's own: choose another name"
    return None
