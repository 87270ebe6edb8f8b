"""What the benchmarks of the paper's claims have in common: paired tests, power before a run, what a result says.

All differences are of success rates in [0, 1], one for each unit (a seed, or a scene) that is taken as independent of
the others; positive means that the claim is right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.statistics import holm

FIRST_REPORTED = {"dyna": 1_000_000, "wovr": 1_100_000, "sim-to-real": 1_200_000, "adaptation": 2_000_000}
"""Index of a benchmark's first task in the splits "reporting" (results) and "choosing" (pilots): none that another one
looks at."""
ALPHA = 0.01
"""Two-sided level, after the correction for the number of claims on a page."""
POWER = 0.9
SMALLEST = 0.05
"""Smallest effect of interest, a difference of success rates: 5 points."""
MOST = 1_000_000
"""Units after which `needed` gives up."""


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Student's t test of "the mean difference is 0": mean, standard_error, interval (95 %) and p (two-sided).

    With one unit, or where all differences are equal, nothing is known of their spread: interval is None and p is 1.
    Raises `ValueError` without differences.
    """
    if not len(differences):
        raise ValueError("There are no differences to test.")
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) < 1e-12:
        error = None if len(values) < 2 else 0.0
        return {"mean": mean, "standard_error": error, "interval": None, "p": 1.0}
    result = stats.ttest_1samp(values, 0.0)
    interval = result.confidence_interval(0.95)
    return {
        "mean": mean,
        "standard_error": float(values.std(ddof=1) / math.sqrt(len(values))),
        "interval": [float(interval.low), float(interval.high)],
        "p": float(result.pvalue),
    }


def power_of(n: int, standard_deviation: float, effect: float, alpha: float = ALPHA) -> float:
    """Chance that `paired` over n units gives p < alpha, if the differences are normal with that mean and deviation.

    `effect` is the true mean. Exact, by the noncentral t distribution; both sides count.
    """
    if n < 2:
        return 0.0
    if standard_deviation <= 0:
        return 1.0
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(effect) / standard_deviation * math.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    if math.isfinite(power):
        return float(power)
    return float(stats.norm.sf(critical - shift))  # scipy's nct has no value for some large shifts


def needed(standard_deviation: float, effect: float, power: float = POWER, alpha: float = ALPHA) -> int:
    """Fewest units with which `paired` finds an effect of that size (a true mean difference) with that power.

    For a page of several claims, give alpha divided by their number (Holm's first step, the strictest). Raises
    `ValueError` for an effect of 0, and for one that a million units would not find.
    """
    if effect == 0:
        raise ValueError("No number of units finds an effect of 0.")
    low, high = 1, 2
    while power_of(high, standard_deviation, effect, alpha) < power:
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError(f"More than {MOST:,} units would be needed for {effect:g} at {standard_deviation:g}.")
    while high - low > 1:  # power grows with n
        middle = (low + high) // 2
        if power_of(middle, standard_deviation, effect, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def judgement(
    mean: float, interval: Sequence[float] | None, p: float, *, smallest: float = SMALLEST, alpha: float = ALPHA
) -> str:
    """What a result says of its claim. `p` is corrected for the number of claims, `interval` is not.

    - "shows here": p < alpha and the mean is above 0 (also where the effect is smaller than `smallest`).
    - "the contrary shows here": p < alpha and the mean is below 0.
    - "does not": neither, and the whole 95 % interval lies below `smallest`, so that an effect as large as that,
      which the pilot said the run could find, is excluded.
    - "not resolved": all else, one unit included; an effect that matters may be there or not.
    """
    if p < alpha:
        return "shows here" if mean > 0 else "the contrary shows here"
    if interval is not None and interval[1] < smallest:
        return "does not"
    return "not resolved"


def settle(
    claims: Mapping[str, Sequence[float]], *, smallest: float | Mapping[str, float] = SMALLEST, alpha: float = ALPHA
) -> dict[str, dict[str, Any]]:
    """All claims of a page: claim -> its differences by unit; `paired`, `corrected` p (Holm) and `verdict` of each.

    `smallest` is the smallest effect of interest, of all claims or by claim.
    """
    found = {claim: {"differences": [float(d) for d in values], **paired(values)} for claim, values in claims.items()}
    corrected = holm([row["p"] for row in found.values()])
    for (claim, row), p in zip(found.items(), corrected, strict=True):
        least = smallest if isinstance(smallest, (int, float)) else smallest[claim]
        row["smallest"] = float(least)
        row["corrected"] = float(p)
        row["verdict"] = judgement(row["mean"], row["interval"], p, smallest=least, alpha=alpha)
    return found


def plan(
    claims: Mapping[str, Sequence[float]], planned: int, *, smallest: float | Mapping[str, float] = SMALLEST
) -> dict[str, dict[str, Any]]:
    """What a pilot says about the size of the run: claim -> from its differences by pilot unit (two or more):

    mean, standard_deviation, and `upper`, above which the true deviation lies with a chance of 20 % only (few units
    know it badly); units `needed` for a power of 0.9 at the smallest effect of interest, at alpha divided by the number
    of claims, by the deviation and by its upper bound; and the power that `planned` units have.
    """
    alpha, found = ALPHA / len(claims), {}
    for claim, values in claims.items():
        n, deviation = len(values), float(np.std(values, ddof=1))
        upper = deviation * math.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1))
        least = float(smallest if isinstance(smallest, (int, float)) else smallest[claim])
        found[claim] = {
            "units": n,
            "mean": float(np.mean(values)),
            "standard_deviation": deviation,
            "upper": upper,
            "smallest": least,
            "needed": needed(deviation, least, alpha=alpha),
            "needed_at_upper": needed(upper, least, alpha=alpha),
            "planned": planned,
            "power": power_of(planned, deviation, least, alpha),
        }
    return found


def plan_table(planned: Mapping[str, Mapping[str, Any]] | None, units: str) -> list[str]:
    """Lines of Markdown about a pilot: `plan`, or None where none was run; `units` is what they are called."""
    if planned is None:
        return ["No pilot was run before (`--pilot`)."]
    rows = list(planned.values())
    lines = [
        f'The pilot, {rows[0]["units"]} {units} of the split "choosing" before the run: how many {units} find the '
        f"smallest effect of interest with a power of {POWER:g} at {ALPHA:g} / {len(rows)}.",
        "",
        f"| claim | pilot's mean, points | deviation (upper 80 %) | smallest effect | {units} needed (at the upper) "
        f"| power of {rows[0]['planned']} |",
        "|---" * 6 + "|",
    ]
    for claim, row in planned.items():
        lines.append(
            f"| {claim} | {100 * row['mean']:+.1f} | {100 * row['standard_deviation']:.1f} ({100 * row['upper']:.1f}) "
            f"| {100 * row['smallest']:.1f} | {row['needed']} ({row['needed_at_upper']}) | {row['power']:.2f} |"
        )
    return lines


def claims_table(claims: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown about what `settle` found."""
    lines = ["| claim | difference, points | 95 % | p, corrected | |", "|---" * 5 + "|"]
    for claim, row in claims.items():
        lines.append(
            f"| {claim} | {with_error(row['mean'], row['standard_error'], '+')} | {points(row['interval'])} "
            f"| {row['corrected']:.2g} | {row['verdict']} |"
        )
    return lines


def with_error(mean: float, error: float | None, sign: str = "") -> str:
    """0.123, 0.01 -> "12.3 ± 1.0": percent or points."""
    return f"{100 * mean:{sign}.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def points(interval: Sequence[float] | None, sign: str = "+") -> str:
    """0.1, 0.2 -> "+10.0 to +20.0"; nothing for None."""
    return "" if interval is None else f"{100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f}"


def change(differences: Sequence[float]) -> str:
    """The mean difference with its 95 % interval: "+12.3 (+10.0 to +14.6)", points."""
    found = paired(differences)
    interval = points(found["interval"])
    return f"{100 * found['mean']:+.1f}" + (f" ({interval})" if interval else "")


def overridden(settings: Mapping[str, Any], *keys: str) -> str:
    """Sentence on the overrides that a page's runs had, by the keys of the settings that list them; "" without any."""
    found = [text for key in keys for text in settings.get(key, ())]
    return f" With {', '.join(found)}." if found else ""


def write_results(name: str, results: Path, data: Mapping[str, Any], text: str) -> None:
    """RESULTS/NAME.json, and NAME.md, which says it in words."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (results / f"{name}.md").write_text(text)


def same_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write them if the file is not there yet. Raises `SystemExit` if it holds others: runs do not mix."""
    if file.exists():
        held = json.loads(file.read_text())
        changed = sorted(key for key in {*held, *settings} if held.get(key) != settings.get(key))
        if changed:
            told = ", ".join(f"{key} {held.get(key)!r}, now {settings.get(key)!r}" for key in changed)
            raise SystemExit(f"{file.parent} holds runs with other settings ({told}). Choose another --output.")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=1) + "\n")
