"""The sim-to-real curve: RL in a simulator that is ever less like the robot, against RL in the world model.

    python benchmarks/paper_sim_to_real.py --pilot [--pilot-seeds 3] [--jobs 2] [--output runs/paper-sim-to-real]
    python benchmarks/paper_sim_to_real.py [--seeds 5] [--episodes 1000] [--jobs 2] [--output ...] [--factors 0 ...]

World-Gymnast (arXiv 2602.02454) trains one policy in SIMPLER and one in a world model, and on the robot the latter wins
by far. A simulator that is the robot would win; somewhere between the two lies the gap from which the world model is
the better place. The tabletop's simulator stands for the robot. The gap of benchmarks/paper.py, the factor 1, is scaled
(`scaled`): a factor of 0 is the robot itself; camera shift and hue grow in proportion; zoom, brightness and friction
are factors on 1, so they are raised to that power and stay legal:

  factor                      0      0.5       1     1.5       2
  camera shift, mm, x and -y  0        5      10      15      20
  camera zoom                 1    1.049     1.1   1.154    1.21
  hue, degrees                0      7.5      15    22.5      30
  brightness                  1    0.922    0.85   0.784   0.722
  friction                    1    0.548     0.3   0.164    0.09

Every arm is the preset `tabletop` (GRPO, 12 iterations of 384 rollouts, as many gradient steps) from the shipped
supervised policy, on starts that no other benchmark trains on. Each is then measured greedily in the simulator without
a gap on EPISODES tasks a seed of the split "reporting", the same ones for all arms of a seed.

Claims (Student's t over the seeds, Holm's correction for two): success falls with the gap (slope by least squares
within a seed, over the range of factors); the world model beats the simulator with the largest gap. The crossing is an
estimate: the mean of simulator minus world model, made to fall (isotonic regression: a larger gap is taken not to
help), is 0 there; interval from 4,000 bootstrap samples of the seeds. `--pilot` trains the ends of the curve and the
world model on seeds of its own, measures them on the split "choosing", and prints how many seeds a power of 0.9 takes;
its numbers go into the results. With the deviation between seeds of benchmarks/results/paper.md, 3 points, five seeds
find a difference of 10 points with a power of 0.8, six with 0.9; 5 points would take eleven.

Cost: 30 trainings of about 3 core minutes, 5 times 7 x 1000 rollouts in the simulator of about 1: 100 core minutes at
the defaults, 30 for the pilot. `gymnast bench` trains (OUTPUT/bench), `gymnast evaluate` measures; killed, the same
command goes on where it was. Writes RESULTS/paper_sim_to_real.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import yaml
from commands import bench, gymnast_at_once
from paper import GAP, MANY
from paper_statistics import (
    FIRST_REPORTED,
    change,
    claims_table,
    overridden,
    paired,
    plan,
    plan_table,
    points,
    same_settings,
    settle,
    with_error,
    write_results,
)
from scipy import optimize

FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0)
WORLD = "world model"
SHIPPED = "shipped"
FALLS, BEATS = "success falls as the gap grows", "the world model beats the simulator with the largest gap"
MOST = 10_000
"""Tasks that belong to a seed."""
FIRST_TRAINED = 1000
"""Starts of seed s begin at (FIRST_TRAINED + s) * MANY of the split "training": none of benchmarks/paper.py."""
PILOT_SEEDS = 50
"""The pilot's seeds come after this one."""
SMALLEST = 0.1
"""Smallest effect of interest: less than half of the paper's 22 points (67.5 % on the robot, 45 % after SIMPLER)."""
RESAMPLES = 4000
CHECKPOINT = Path(__file__).parents[1] / "plugins/gymnast_tabletop/checkpoints/policy"


def scaled(factor: float) -> dict[str, Any]:
    """paper.py's GAP, scaled: 0 is no gap, 1 is GAP. Raises `ValueError` for a factor below 0."""
    if factor < 0:
        raise ValueError(f"A gap is scaled by 0 or more, not {factor:g}.")
    gap: Mapping[str, Any] = GAP
    return {
        "camera_shift": [factor * metres for metres in gap["camera_shift"]],
        "camera_zoom": gap["camera_zoom"] ** factor,
        "hue": factor * gap["hue"],
        "brightness": gap["brightness"] ** factor,
        "friction": gap["friction"] ** factor,
    }


def gap_arm(factor: float) -> str:
    return f"gap {factor:g}"


def overrides(arm: str, seed: int) -> list[str]:
    """Of the preset `tabletop`, for an arm and a seed."""
    args: dict[str, Any] = {
        "split": "training",
        "first": (FIRST_TRAINED + seed) * MANY,
        "count": MANY,
        "image_size": 32,
    }
    if arm == WORLD:
        return [f"tasks={json.dumps({'name': 'tabletop', 'args': args})}"]
    args["gap"] = scaled(float(arm.removeprefix("gap ")))
    tasks = f"tasks={json.dumps({'name': 'tabletop', 'args': args})}"
    return [tasks, "world_model=gymnasium", "reward_model=environment"]


def matrix(arms: Sequence[str], seeds: Sequence[int], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast bench` is told."""
    adjust = [
        {"when": {"arm": arm, "seed": seed}, "overrides": [*overrides(arm, seed), *options.train]}
        for seed in seeds
        for arm in arms
    ]
    return {
        "kind": "bench",
        "base": "tabletop",
        "axes": {"arm": {arm: [] for arm in arms}},
        "adjust": adjust,
        "overrides": ["evaluation.tasks=null", "evaluation.videos=0"],
        "seeds": list(seeds),
        "jobs": options.jobs,
        "threads": 1,
        "output": str(folder),
    }


def train(arms: Sequence[str], seeds: Sequence[int], options: argparse.Namespace) -> dict[tuple[str, int], dict]:
    """Row of `gymnast bench` by arm and seed. Raises `SystemExit` if a cell has no result."""
    folder = options.output / ("pilot" if options.pilot else "bench")
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(matrix(arms, seeds, folder, options), sort_keys=False))
    rows = bench(file, folder, "retry=true", log=folder.with_suffix(".log"))
    problems = [f"{row['cell']}: {row['status']}. {row['reason']}" for row in rows if row["status"] != "done"]
    if problems or len(rows) < len(arms) * len(seeds):
        raise SystemExit("Cells without a result (the same command tries them again):\n" + "\n".join(problems))
    for row in rows:
        row["policy"] = str(folder / "cells" / row["cell"] / "run/policy")
    return {(row["labels"]["arm"], row["seed"]): row for row in rows}


def evaluation(policies: Mapping[str, str], seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast evaluate` is told: arms -> checkpoints, greedily in the simulator without a gap."""
    tasks = {
        "split": "choosing" if options.pilot else "reporting", "first": FIRST_REPORTED["sim-to-real"] + seed * MOST,
        "count": options.episodes, "image_size": 32,
    }  # fmt: skip
    return {
        "kind": "evaluate",
        "policies": {
            arm.replace(" ", "-"): {"name": "openvla-oft", "args": {"checkpoint": path}}
            for arm, path in policies.items()
        },
        "worlds": {"simulator": {"name": "gymnasium"}},
        "rewards": {"simulator": {"name": "environment"}},
        "tasks": {"name": "tabletop", "args": tasks},
        "horizon": 16,
        "temperature": 0.0,
        "batch_size": 100,
        "videos": 0,
        "seed": seed,
    }


def measure(
    trained: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int], options: argparse.Namespace
) -> dict[str, list[float]]:
    """arm -> success by seed, of the shipped policy, too. Raises `SystemExit` for rollouts without an outcome."""
    arms = [SHIPPED, *dict.fromkeys(arm for arm, _ in trained)]
    commands, folders = [], []
    for seed in seeds:
        paths = {arm: options.shipped if arm == SHIPPED else str(trained[arm, seed]["policy"]) for arm in arms}
        folder = options.output / f"evaluation-{seed}"
        folders.append(folder)
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(evaluation(paths, seed, options), sort_keys=False))
        start = [str(file), *options.evaluate, f"output={folder}"]
        begun = (folder / "config.yaml").exists()
        if not (folder / "summary.json").exists():
            commands.append(
                (["evaluate", *(["--resume", str(folder)] if begun else start)], folder.with_suffix(".log"))
            )
    gymnast_at_once(commands, options.jobs)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    if any(summary["unscored"] for summary in summaries):
        raise SystemExit(f"Some rollouts have no outcome; see {options.output}/evaluation-*.")
    return {
        arm: [summary["results"][arm.replace(" ", "-")]["simulator"]["rate"] for summary in summaries] for arm in arms
    }


def differences(rates: Mapping[str, Sequence[float]], factors: Sequence[float]) -> dict[str, list[float]]:
    """Claim -> its difference by seed, positive if the claim is right."""
    x = np.asarray(factors, dtype=float)
    curves_SF = np.array([rates[gap_arm(factor)] for factor in factors]).T
    slopes_S = (curves_SF - curves_SF.mean(axis=1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    largest = curves_SF[:, -1]
    return {
        FALLS: [float(-slope * (x[-1] - x[0])) for slope in slopes_S],
        BEATS: [float(world - end) for world, end in zip(rates[WORLD], largest, strict=True)],
    }


def crossing(ahead: Sequence[float], factors: Sequence[float]) -> float:
    """Factor at which the simulator's lead over the world model (by factor, ascending) becomes 0.

    The lead is made to fall and is linear between factors; -inf if it is not there at the first, inf if it is there at
    the last.
    """
    falling = optimize.isotonic_regression(np.asarray(ahead, dtype=float), increasing=False).x
    if falling[0] <= 0:
        return -math.inf
    if falling[-1] > 0:
        return math.inf
    after = int(np.argmax(falling <= 0))
    high, low = falling[after - 1], falling[after]
    return float(factors[after - 1] + (factors[after] - factors[after - 1]) * high / (high - low))


def crossings(rates: Mapping[str, Sequence[float]], factors: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """Where the curves cross: `at` and `interval` in words, and what is said of it."""
    ahead_SF = np.array([np.subtract(rates[gap_arm(factor)], rates[WORLD]) for factor in factors]).T
    at = crossing(ahead_SF.mean(axis=0), factors)
    n = len(ahead_SF)
    interval = None
    if n > 1:
        drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
        found = [crossing(ahead_SF[index].mean(axis=0), factors) for index in drawn]
        # Infinite values cannot be interpolated.
        bounds = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
        interval = [place(float(bound), factors) for bound in bounds]
    if math.isinf(at):
        where = "at any gap" if at < 0 else "at every gap"
        word = "no better" if at < 0 else "better"
        said = f"does not cross in what was tried: RL in the simulator is {word} than in the world model {where}"
    else:
        after = next(i for i, factor in enumerate(factors) if factor >= at)
        between = f"{factors[max(after - 1, 0)]:g} and {factors[max(after, 1)]:g}"
        said = f"crosses between the gaps {between}, at {at:.2f}"
    if interval is not None:
        said += f" (95 %: {interval[0]} to {interval[1]})"
    return {"at": place(at, factors), "interval": interval, "said": said}


def place(at: float, factors: Sequence[float]) -> str:
    """A crossing in words, what is not finite included."""
    if math.isinf(at):
        return f"none, below from {factors[0]:g} on" if at < 0 else f"beyond {factors[-1]:g}"
    return f"{at:.2f}"


def page(data: Mapping[str, Any]) -> str:
    """results/paper_sim_to_real.md from the .json."""
    rates, factors, seeds = data["rates"], data["settings"]["factors"], data["seeds"]
    n = data["settings"]["episodes"]
    lines = [
        "# The sim-to-real curve",
        "",
        f"`python benchmarks/paper_sim_to_real.py --seeds {len(seeds)} --episodes {n} --factors "
        f"{' '.join(f'{factor:g}' for factor in factors)}`: RL (preset `tabletop`) in a simulator whose gap to the "
        "robot grows, against RL in the world model. Success without a gap, %, greedy, mean ± standard error over "
        f"{len(seeds)} seeds of {n} held-out tasks; intervals are Student's t over seeds, each alone."
        f"{overridden(data['settings'], 'train')}",
        "",
        "| trained in | gap: shift mm, zoom, hue °, brightness, friction | success | 95 % | world model minus it |",
        "|---" * 5 + "|",
    ]
    for arm, row in rates.items():
        found = paired(row)
        gap = _gap(float(arm.removeprefix("gap "))) if arm.startswith("gap ") else ""
        less = "" if arm == WORLD else change([a - b for a, b in zip(rates[WORLD], row, strict=True)])
        name = "not trained (shipped)" if arm == SHIPPED else arm
        success = with_error(found["mean"], found["standard_error"])
        lines.append(f"| {name} | {gap} | {success} | {points(found['interval'], '')} | {less} |")
    cost = data["cost"]
    lines += ["", f"The curve {data['crossing']['said']}.", "", *claims_table(data["claims"])]
    lines += ["", *plan_table(data["pilot"], "seeds")]
    lines += ["", f"Training: {cost['cell_minutes']:.1f} minutes of {cost['cells']} cells."]
    return "\n".join(lines) + "\n"


def _gap(factor: float) -> str:
    gap = scaled(factor)
    shift = 1000 * gap["camera_shift"][0]
    return f"{shift:g}, {gap['camera_zoom']:.3g}, {gap['hue']:g}, {gap['brightness']:.3g}, {gap['friction']:.3g}"


def pilot(options: argparse.Namespace) -> dict[str, Any]:
    """Deviations between seeds of the ends of the curve, printed and kept in OUTPUT/pilot.json."""
    seeds = [PILOT_SEEDS + number for number in range(1, 1 + options.pilot_seeds)]
    ends = [options.factors[0], options.factors[-1]]
    trained = train([*map(gap_arm, ends), WORLD], seeds, options)
    found = plan(differences(measure(trained, seeds, options), ends), options.seeds, smallest=SMALLEST)
    (options.output / "pilot.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(plan_table(found, "seeds")))
    return found


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Train, measure, summarise."""
    seeds = list(range(1, 1 + options.seeds))
    trained = train([*map(gap_arm, options.factors), WORLD], seeds, options)
    rates = measure(trained, seeds, options)
    file, rows = options.output / "pilot.json", list(trained.values())
    return {
        "settings": settings_of(options),
        "seeds": seeds,
        "rates": rates,
        "claims": settle(differences(rates, options.factors), smallest=SMALLEST),
        "crossing": crossings(rates, options.factors),
        "pilot": json.loads(file.read_text()) if file.exists() else None,
        "cost": {"cells": len(rows), "cell_minutes": sum(row["seconds"] for row in rows) / 60},
    }


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of an output folder have in common."""
    return {
        "episodes": options.episodes, "factors": options.factors, "gap": GAP, "train": options.train,
        "evaluate": options.evaluate,
    }  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help=f"at most {PILOT_SEEDS}")
    parser.add_argument("--episodes", type=int, default=1000, help=f"tasks of each seed, at most {MOST}")
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS), help="two or more, ascending")
    parser.add_argument("--pilot", action="store_true", help='plan the run on the split "choosing"')
    parser.add_argument("--pilot-seeds", type=int, default=3, help="2 or more")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training")
    parser.add_argument("--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation")
    parser.add_argument("--shipped", default=str(CHECKPOINT), help="checkpoint that trainings start from")
    parser.add_argument("--output", type=Path, default=Path("runs/paper-sim-to-real"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    factors = options.factors
    if len(factors) < 2 or sorted(set(factors)) != factors or factors[0] < 0:
        parser.error("--factors are two or more, 0 or above, ascending, each once.")
    if not (1 <= options.seeds <= PILOT_SEEDS and 1 <= options.episodes <= MOST and options.pilot_seeds >= 2):
        parser.error(f"--seeds are 1 to {PILOT_SEEDS}, --episodes 1 to {MOST}, --pilot-seeds 2 or more.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.output = options.output.resolve()
    same_settings(options.output / "settings.json", settings_of(options))
    if options.pilot:
        pilot(options)
        return
    data = report(options)
    text = page(data)
    write_results("paper_sim_to_real", options.results, data, text)
    print(text)


if __name__ == "__main__":
    main()
