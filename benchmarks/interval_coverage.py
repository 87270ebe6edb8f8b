"""How often the intervals of gymnast_evaluation hold the truth, by simulation.

    python benchmarks/interval_coverage.py [--experiments 1000] [--seed 0]

Success rates are those of policies on a tabletop-like benchmark: trials of one start are alike (a start's difficulty is
shared by policies and worlds). Every interval claims 95 %. Writes benchmarks/results/interval_coverage.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from gymnast_core.statistics import (
    biased_interval,
    bootstrap_interval,
    percentiles,
    resampled_means,
    success_interval,
    wilson_interval,
)
from gymnast_evaluation.agreement import correlations, fisher_interval, mean_maximum_rank_violations

Row = tuple[str, str, float, float]
"""What is measured, where, coverage, mean width."""
RESAMPLES = 500
"""Of the correlations' bootstrap; 2,000 in `gymnast evaluate`."""


def rates(experiments: int, rng: np.random.Generator) -> Iterator[Row]:
    """Success rates: exact over all outcomes for Wilson's, simulated for graded scores and repeated starts."""
    for n in (10, 50, 200, 400):
        bounds = np.array([wilson_interval(k, n) for k in range(n + 1)])
        for rate in (0.05, 0.35, 0.8):
            weights = stats.binom.pmf(np.arange(n + 1), n, rate)
            inside = (bounds[:, 0] <= rate) & (rate <= bounds[:, 1])
            yield ("success rate, Wilson", f"n = {n}, rate {rate}", weights @ inside, weights @ np.diff(bounds)[:, 0])
    for n in (10, 50, 200):
        found = [
            success_interval(rng.choice([0.0, 0.5, 1.0], n, p=[0.5, 0.3, 0.2]).tolist()) for _ in range(experiments)
        ]
        yield ("graded score, BCa bootstrap", f"n = {n}, scores 0, 0.5, 1", *_scored(found, 0.35))
    yield from repeated_starts(experiments, rng)


def repeated_starts(experiments: int, rng: np.random.Generator) -> Iterator[Row]:
    """40 starts of different difficulty, 5 trials of each; the truth is the mean over all starts there could be."""
    starts = np.repeat(np.arange(40), 5)
    methods: dict[str, Callable[[np.ndarray], Any]] = {
        "repeated starts, Wilson over trials": lambda values: success_interval(values.tolist()),
        "repeated starts, bootstrap of starts": lambda v: bootstrap_interval(v, starts, bounds=(0.0, 1.0)),
    }
    draws = [(rng.random(200) < rng.beta(0.5, 0.5, 40)[starts]).astype(float) for _ in range(experiments)]
    for name, method in methods.items():
        yield (name, "40 starts × 5 trials", *_scored([method(values) for values in draws], 0.5))


def differences(experiments: int, rng: np.random.Generator) -> Iterator[Row]:
    """Differences of two policies on the same trials."""
    for n in (20, 100, 400):
        first = rng.random((experiments, n)) < 0.4
        second = np.where(first, rng.random(first.shape) < 0.9, rng.random(first.shape) < 0.25)
        gaps = second.astype(float) - first
        found = [bootstrap_interval(row, bounds=(-1.0, 1.0)) for row in gaps]
        yield ("paired difference, BCa bootstrap", f"n = {n}", *_scored(found, 0.6 * 0.25 - 0.4 * 0.1))


def agreements(experiments: int, rng: np.random.Generator) -> Iterator[Row]:
    """Correlation and rank violation of two worlds: over trials for these policies, over policies for others."""
    for policies, trials, gap in ((8, 100, 0.05), (12, 256, 0.05), (12, 256, 0.15)):
        real = np.linspace(0.2, 0.8, policies)
        imagined = np.clip(real + gap * stats.norm.ppf((rng.permutation(policies) + 0.5) / policies), 0.02, 0.98)
        where = f"{policies} policies, {trials} trials, worlds {100 * gap:.0f} points apart"
        measures: dict[str, tuple[Callable[..., np.ndarray], tuple[float, float]]] = {
            "Pearson r": (correlations, (-1.0, 1.0)),
            "Spearman": (lambda a, b: correlations(a, b, spearman=True), (-1.0, 1.0)),
            "MMRV": (mean_maximum_rank_violations, (0.0, 1.0)),
        }
        found: dict[str, list[Any]] = {}
        for _ in range(experiments):
            sides = _worlds(np.stack([imagined, real]), trials, rng)
            drawn = [
                resampled_means(side, np.ones_like(side), np.zeros(trials), seed=1, resamples=RESAMPLES)
                for side in sides
            ]
            for name, (measure, bounds) in measures.items():
                value = float(measure(*(side.mean(axis=1)[None] for side in sides))[0])
                samples = measure(*drawn)
                found.setdefault(f"{name}, over trials", []).append(biased_interval(value, samples, bounds))
                found.setdefault(f"{name}, plain percentiles (not used)", []).append(percentiles(samples))
        for name, intervals in found.items():
            measure, _ = measures[name.partition(",")[0]]
            yield (name, where, *_scored(intervals, float(measure(imagined[None], real[None])[0])))
    for policies in (5, 12, 30):
        x = rng.normal(size=(20 * experiments, policies))
        y = 0.8 * x + 0.6 * rng.normal(size=x.shape)
        for spearman, truth in ((False, 0.8), (True, 6 / np.pi * np.arcsin(0.4))):
            intervals = [fisher_interval(r, policies, spearman=spearman) for r in correlations(x, y, spearman=spearman)]
            name = "Spearman" if spearman else "Pearson r"
            yield (f"{name}, over policies (Fisher's z)", f"{policies} policies, normal", *_scored(intervals, truth))


def _worlds(rates_WP: np.ndarray, trials: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Outcomes (P, trials) of each world: starts are easy or hard for all, and the worlds mostly agree on a trial."""
    start = rng.normal(size=trials)
    policy = 0.5 * start + np.sqrt(0.75) * rng.normal(size=(rates_WP.shape[1], trials))
    latents = [0.8 * policy + 0.6 * rng.normal(size=policy.shape) for _ in rates_WP]
    return [
        (latent < stats.norm.ppf(rates)[:, None]).astype(float) for latent, rates in zip(latents, rates_WP, strict=True)
    ]


def _scored(intervals: list[Any], truth: float) -> tuple[float, float]:
    bounds = np.array([pair for pair in intervals if pair is not None], dtype=float)
    inside = (bounds[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= bounds[:, 1])
    return float(inside.mean()), float((bounds[:, 1] - bounds[:, 0]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    rows = [row for part in (rates, differences, agreements) for row in part(options.experiments, rng)]
    error = 100 * np.sqrt(0.95 * 0.05 / options.experiments)
    lines = [
        f"Coverage of 95 % intervals, {options.experiments} simulated experiments (Wilson: exact; Fisher's z: 20 times "
        f"as many), seed {options.seed}; the standard error of a simulated coverage of 95 % is {error:.1f} points.",
        "",
        "| interval | where | coverage, % | mean width |",
        "|---|---|---|---|",
        *(f"| {name} | {where} | {100 * coverage:.1f} | {width:.3f} |" for name, where, coverage, width in rows),
    ]
    results = Path(__file__).parent / "results"
    keys = ("interval", "where", "coverage", "width")
    data = {"experiments": options.experiments, "seed": options.seed}
    data["rows"] = [dict(zip(keys, row, strict=True)) for row in rows]
    (results / "interval_coverage.json").write_text(json.dumps(data, indent=1) + "\n")
    (results / "interval_coverage.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
