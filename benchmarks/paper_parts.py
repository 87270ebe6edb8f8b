"""What `paper_dyna.py` and `paper_wovr.py` have in common: measuring policies, claims over seeds, a pilot, a page.

A benchmark hands over, for every seed, which trials each of its policies fulfilled: greedy, in the simulator, on the
same tasks. From those come rates, claims (Student's t over seeds, paired; corrected by Holm for all claims of the page)
and, from two pilot seeds on tasks of the split "choosing", how many seeds and tasks it takes to find an effect.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from commands import gymnast
from numpy.typing import NDArray
from paper_statistics import (
    ALPHA,
    POWER,
    SMALLEST,
    claims_table,
    needed,
    plan,
    plan_table,
    same_settings,
    settle,
    write_results,
)
from scipy import stats

from gymnast_core.config.load import merged, parse_overrides
from gymnast_evaluation.trials import read_trials

ROOT = Path(__file__).parents[1]
PILOT_SEEDS = (101, 102)
TASKS_A_SEED = (200, 400, 800, 1600)
"""What the pilot's table of seeds x tasks looks at."""
CONFIDENCE = 0.8
"""One-sided, of the pilot's upper bound on the standard deviation: two seeds say little about it."""
MOST_SEEDS = 1000
"""A row of the pilot's table with more seeds says so."""

Trials = Mapping[tuple[str, int], NDArray[np.float64]]
"""(arm, seed) -> success of every task, 0 or 1, in the tasks' order."""


@dataclass(frozen=True)
class Claim:
    """`better` succeeds more often than `worse`, on the same tasks."""

    better: str
    worse: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.source}: {self.better} > {self.worse}"


def measure(
    policies: Mapping[str, Path], tasks: Mapping[str, Any], seed: int, folder: Path, overrides: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Success of every policy on every task, greedy, in the simulator: label -> (n,), by `gymnast evaluate`.

    A trial without a value counts as an error here, since a simulator always knows. Raises `SystemExit`.
    """
    values = {
        "kind": "evaluate",
        "policies": {
            label(arm): {"name": "openvla-oft", "args": {"checkpoint": str(path)}} for arm, path in policies.items()
        },
        "worlds": {"simulator": {"name": "gymnasium"}}, "rewards": {"simulator": {"name": "environment"}},
        "tasks": {"name": "tabletop", "args": dict(tasks)}, "horizon": 16, "temperature": 0.0, "batch_size": 100,
        "videos": 0, "seed": seed, "output": str(folder),
    }  # fmt: skip
    file = written(folder.with_suffix(".yaml"), merged(values, parse_overrides(list(overrides))))
    if not (folder / "summary.json").exists():
        gymnast("evaluate", *begin_or_resume("", folder, [str(file)]), log=folder.with_suffix(".log"))
    found: dict[str, dict[int, float]] = {}
    for trial in read_trials(folder / "results.jsonl"):
        if trial.value is None:
            raise SystemExit(f"{folder}: trial {trial.index} of {trial.policy} has no result: {trial.error}")
        found.setdefault(trial.policy, {})[trial.index] = trial.value
    return {
        arm: np.array([value for _, value in sorted(found[label(arm)].items())], dtype=np.float64) for arm in policies
    }


def label(arm: str) -> str:
    """The arm's name as `gymnast evaluate` and folders take it: "+ masking" -> "plus-masking"."""
    return arm.replace("+", "plus").replace(",", "").replace(" ", "-")


def written(path: Path, values: Mapping[str, Any]) -> Path:
    """The values as YAML in that file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


def begin_or_resume(name: str, folder: Path, start: Sequence[str]) -> list[str]:
    """Arguments of a command (its name first, if there is one) that begins in a folder, or goes on where it stopped."""
    words = [name] if name else []
    begun = (folder / "config.yaml").exists()
    return [*words, *(["--resume", str(folder)] if begun else start)]


def rates(trials: Trials) -> dict[str, list[float]]:
    """arm -> success by seed, in ascending order of the seeds."""
    seeds, arms = sorted({seed for _, seed in trials}), list(dict.fromkeys(arm for arm, _ in trials))
    return {arm: [float(trials[arm, seed].mean()) for seed in seeds] for arm in arms}


def judged(claims: Sequence[Claim], found: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Every claim whose arms were measured, as `paper_statistics.settle` judges it."""
    differences = {
        claim.name: [a - b for a, b in zip(found[claim.better], found[claim.worse], strict=True)]
        for claim in claims
        if {claim.better, claim.worse} <= set(found)
    }
    return settle(differences) if differences else {}


def pilot(claims: Sequence[Claim], trials: Trials, planned: int, smallest: float = SMALLEST) -> dict[str, Any]:
    """How far paired differences spread between seeds, and the seeds x tasks that find `smallest` with power 0.9.

    `plan` is each claim by itself, for as many tasks as the pilot had and `planned` seeds. `needed` is about other
    numbers of tasks: a seed's difference varies with training and with its n tasks, variance = between + within / n.
    `within` is the variance of single tasks' paired differences; what is left of the variance over the pilot's seeds,
    both pooled over the claims, is `between`. It is given at the pooled variance and at its upper 80 % bound; alpha is
    0.01 divided by the number of claims. Raises `ValueError` for fewer than two seeds.
    """
    seeds = sorted({seed for _, seed in trials})
    if len(seeds) < 2:
        raise ValueError("A pilot takes two seeds or more.")
    known = [claim for claim in claims if {(claim.better, seeds[0]), (claim.worse, seeds[0])} <= set(trials)]
    tasks = len(next(iter(trials.values())))
    differences, within = {}, []
    for claim in known:
        single = [trials[claim.better, seed] - trials[claim.worse, seed] for seed in seeds]
        differences[claim.name] = [float(values.mean()) for values in single]
        within.append(float(np.mean([values.var(ddof=1) for values in single])))
    total, single_task = float(np.mean([np.var(values, ddof=1) for values in differences.values()])), np.mean(within)
    freedom = len(known) * (len(seeds) - 1)
    upper = total * freedom / float(stats.chi2.ppf(1 - CONFIDENCE, freedom))
    alpha = ALPHA / len(known)
    table = [
        {
            "tasks": n,
            "seeds": _seeds(deviation_at(total, float(single_task), tasks, n), smallest, alpha),
            "seeds_at_upper": _seeds(deviation_at(upper, float(single_task), tasks, n), smallest, alpha),
        }
        for n in TASKS_A_SEED
    ]
    return {
        "seeds": seeds, "tasks": tasks, "plan": plan(differences, planned, smallest=smallest),
        "pooled": math.sqrt(total), "pooled_upper": math.sqrt(upper), "within": float(single_task),
        "smallest": smallest, "alpha": alpha, "needed": table,
    }  # fmt: skip


def deviation_at(variance: float, within: float, tasks: int, n: int) -> float:
    """Standard deviation of a seed's difference on n tasks, if on `tasks` ones it has that variance.

    `within` is the variance of a single task's difference. Never below what the n tasks alone make of it.
    """
    between = max(variance - within / tasks, 0.0)
    return math.sqrt(between + within / n)


def _seeds(deviation: float, effect: float, alpha: float) -> int | None:
    """None: more than anybody would run."""
    try:
        found = needed(deviation, effect, power=POWER, alpha=alpha)
    except ValueError:
        return None
    return found if found <= MOST_SEEDS else None


def page(title: str, about: str, data: Mapping[str, Any]) -> str:
    """results/NAME.md from results/NAME.json: rates, claims, pilot, as far as they were measured."""
    lines = [f"# {title}", "", about, ""]
    if "rates" in data:
        lines += [*_rates_table(data), "", *claims_table(data["claims"]), "", _claims_note(len(data["claims"])), ""]
    lines += ["## Pilot", "", *plan_table(data["pilot"]["plan"] if data.get("pilot") else None, "seeds")]
    if data.get("pilot"):
        lines += ["", *_needed_table(data["pilot"])]
    return "\n".join(lines) + "\n"


def _rates_table(data: Mapping[str, Any]) -> list[str]:
    seeds, n = data["seeds"], data["settings"]["episodes"]
    lines = [
        f"Success in the simulator, %: mean ± standard error over {len(seeds)} seeds ({', '.join(map(str, seeds))}), "
        f"each on {n} tasks of the split reporting (n = {n * len(seeds)} an arm), greedy.",
        "",
        "| arm | success | by seed |",
        "|---|---|---|",
    ]
    for arm, values in data["rates"].items():
        lines.append(f"| {arm} | {spread(values)} | {', '.join(f'{100 * value:.1f}' for value in values)} |")
    return lines


def _claims_note(claims: int) -> str:
    return (
        f"Differences are paired by seed; p is two-sided (Student's t), corrected by Holm for {claims} claims; level "
        f'{ALPHA:g}. "does not": the 95 % interval lies below {100 * SMALLEST:g} points.'
    )


def _needed_table(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Seeds by tasks: the deviation of a seed's difference on {found['tasks']} tasks, pooled over the claims, is "
        f"{100 * found['pooled']:.1f} points (80 % upper bound {100 * found['pooled_upper']:.1f}). Seeds that find "
        f"{100 * found['smallest']:g} points with power {POWER:g} at {found['alpha']:.2g}:",
        "",
        "| tasks a seed | seeds | at the upper bound |",
        "|---|---|---|",
    ]
    for row in found["needed"]:
        at, upper = (str(row[key] or f"more than {MOST_SEEDS}") for key in ("seeds", "seeds_at_upper"))
        lines.append(f"| {row['tasks']} | {at} | {upper} |")
    return lines


def spread(values: Sequence[float], sign: str = "") -> str:
    """ "38.0 ± 0.9": mean and standard error, in percent; without the error for one value."""
    mean = f"{100 * float(np.mean(values)):{sign}.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * float(stats.sem(values)):.1f}"


def save(name: str, results: Path, title: str, about: str, new: Mapping[str, Any]) -> str:
    """Write results/NAME.{json,md}; what the other mode (pilot or run) found before is kept. Returns the page."""
    path = results / f"{name}.json"
    data = {**(json.loads(path.read_text()) if path.exists() else {}), **new}
    text = page(title, about, data)
    write_results(name, results, data, text)
    return text


def outcome(
    claims: Sequence[Claim], trials: Trials, settings: Mapping[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """What goes into the results: of the pilot, or of the run."""
    if options.pilot:
        return {"pilot": pilot(claims, trials, options.seeds, options.smallest)}
    found = rates(trials)
    return {
        "settings": {**settings, "episodes": options.episodes}, "seeds": seeds_of(options), "rates": found,
        "claims": judged(claims, found),
    }  # fmt: skip


def with_earlier(new: Mapping[str, Any], name: str, claims: Sequence[Claim], options: argparse.Namespace) -> dict:
    """A run's numbers behind those of the seeds before `--from-seed`, which results/NAME.json has of an earlier run.

    Raises `SystemExit` if it has other seeds, or was measured with other settings.
    """
    if options.pilot or options.from_seed == 1:
        return dict(new)
    path = options.results / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    wanted = list(range(1, options.from_seed))
    if old.get("seeds") != wanted or old["settings"] != json.loads(json.dumps(new["settings"])):
        raise SystemExit(
            f"--from-seed {options.from_seed} goes on from the seeds {wanted} in {path}, which holds "
            f"{old.get('seeds', 'none')} with the settings {old.get('settings')}, and not {new['settings']}."
        )
    by_seed = {
        key: {arm: [*old[key][arm], *values] for arm, values in new[key].items()}
        for key in ("rates", "steps")
        if key in new
    }
    return {**new, **by_seed, "seeds": [*wanted, *new["seeds"]], "claims": judged(claims, by_seed["rates"])}


def add_options(parser: argparse.ArgumentParser, output: str) -> None:
    """The options that both benchmarks have."""
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--from-seed", type=int, default=1, help="begin with this one; those before it are taken from the results"
    )
    parser.add_argument("--episodes", type=int, default=400, help="tasks of each seed that policies are measured on")
    parser.add_argument("--jobs", type=int, default=1, help="commands at once, each with one thread")
    parser.add_argument("--pilot", action="store_true", help=f"seeds {PILOT_SEEDS} on the split choosing, and power")
    parser.add_argument("--smallest", type=float, default=SMALLEST, help="effect that the pilot plans for, a rate")
    parser.add_argument("--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation")
    parser.add_argument("--output", type=Path, default=Path(output))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")


def begin(folder: Path, settings: Mapping[str, Any]) -> Path:
    """The output folder, absolute. Raises `SystemExit` if what is there was trained with other settings."""
    folder = folder.resolve()
    same_settings(folder / "settings.json", json.loads(json.dumps(settings)))
    return folder


def seeds_of(options: argparse.Namespace) -> list[int]:
    return list(PILOT_SEEDS) if options.pilot else list(range(options.from_seed, 1 + options.seeds))


def split_of(options: argparse.Namespace) -> str:
    return "choosing" if options.pilot else "reporting"
