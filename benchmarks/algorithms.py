"""RL algorithms and rewards on the tabletop, on equal budgets of imagined frames, measured in the simulator.

    python benchmarks/algorithms.py [--seeds 5] [--episodes 400] [--jobs 2] [--output runs/algorithms]

The arms are those of the preset `bench-tabletop-algorithms`, where each one's settings stand; every one starts from the
shipped supervised policy. A budget is 12 iterations of 384 imagined rollouts of 16 actions; rewards that imagine
rollouts again (verified, twice, uncertain) draw fewer tasks for it, branched rollouts are half as long and twice as
many. For each arm and seed: success in the simulator before, on the way
and after, on tasks of the split "reporting" that no other benchmark reports on; how much of what the arm's judge calls
a success is one when the same actions are done in the simulator (precision on replay, of sampled rollouts of the
trained policy, split "choosing"); frames imagined; CPU time.

`gymnast bench` trains (OUTPUT/bench); replays are OUTPUT/replay/ARM-SEED.json; demonstrations for iter-sft and play for
branched rollouts are recorded into OUTPUT. Killed, the same command goes on where it was. Writes RESULTS/NAME.json and
NAME.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import yaml
from commands import bench
from scipy import stats
from tabletop_parts import build, preset, tasks_of

from gymnast_bench.config import BenchConfig
from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.interfaces import Parts
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.runs.metrics import read_metrics
from gymnast_core.success import is_success
from gymnast_core.training.judge import judge as ask

PRESET = "bench-tabletop-algorithms"
ARMS = (
    "grpo", "dapo", "dr-grpo", "rloo", "reinforce++", "ppo", "iter-sft", "branched", "verified", "twice", "uncertain",
    "progress", "partial credit",
)  # fmt: skip
MANY = 4096
"""Starts of a seed's training tasks."""
FIRST_REPORTED, FIRST_REPLAYED = 500_000, 300_000
"""Index of the first task in the splits "reporting" and "choosing": none that another benchmark looks at."""
RECORDED = {"iter-sft": ("slow-demos", "slow-demonstrations", "2"), "branched": ("play", "play", "0")}
"""Arms that need recorded episodes: folder, behaviour and seed."""
STATED = {"twice": "judge_came_back", "uncertain": "judge_unsure"}
"""Metric by which a reward says what it did."""
MEANING = {
    "twice": "At 1 every success came back: checking changed no reward, and cost the frames that it took.",
    "uncertain": "At 0 no rollout was masked: the world model shows nearly the same from any noise, and looking for "
    "differences changed no reward, and cost the frames that it took.",
}
AGAIN = {"verified": 1 + 1 / 8, "uncertain": 2.0}
"""Rollouts that a reward imagines for each of the policy's; of `twice`, the run's metrics say it."""
BASELINE = "grpo"


def matrix(options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast bench` is told: the preset's arms, each seed on tasks of its own."""
    axis = load_config(BenchConfig, PRESET).axes["algorithm"]
    # A preset's references are to its own folder; here they stand for what they mean.
    arms = {arm: [text.replace("path: data/", f"path: {options.output.resolve()}/") for text in axis[arm]] for arm in
            options.arms}  # fmt: skip
    adjust = []
    for seed in range(1, options.seeds + 1):
        reported = {"split": "reporting", "first": FIRST_REPORTED + seed * options.episodes, "count": options.episodes}
        part = {"name": "tabletop", "args": {**reported, "image_size": 32}}
        for arm in options.arms:
            # Branched rollouts start in the recorded episodes, at other places for each seed.
            starts = f"tasks.args.seed={seed}" if arm == "branched" else f"tasks.args.first={seed * MANY}"
            own = [f"evaluation.tasks={json.dumps(part)}", starts]
            adjust.append({"when": {"algorithm": arm, "seed": seed}, "overrides": own})
    for arm in options.arms:
        # After the arm's own settings, of which the share is taken.
        adjust.append({"when": {"algorithm": arm}, "overrides": [*smaller(arms[arm], options.share), *options.train]})
    return {
        "kind": "bench",
        "base": "tabletop",
        "axes": {"algorithm": arms},
        "adjust": adjust,
        "overrides": ["evaluation.videos=0", f"evaluation.every={options.every}"],
        "seeds": list(range(1, options.seeds + 1)),
        "jobs": options.jobs,
        "threads": 1,
        "output": str(options.output / "bench"),
    }


def smaller(overrides: Sequence[str], share: float) -> list[str]:
    """Overrides that leave an arm a share of its batches; as many gradient steps."""
    if share == 1:
        return []
    config = preset(*overrides)
    minibatch, wanted = int(config.optimizer.args["minibatch_size"]), config.loop.groups_per_update
    return [
        *([f"loop.groups_per_update={max(round(wanted * share), 1)}"] if wanted else []),
        f"loop.tasks_per_iteration={max(round(config.loop.tasks_per_iteration * share), 2)}",
        f"optimizer.args.minibatch_size={max(round(minibatch * share), 1)}",
    ]


def record(options: argparse.Namespace) -> None:
    """The demonstrations that the shipped policy was supervised with, and play as its world model was fitted to."""
    for arm, (name, behaviour, seed) in RECORDED.items():
        folder = options.output / name
        if arm not in options.arms or (folder / "meta.json").exists():
            continue
        wanted = ["--behaviour", behaviour, "--episodes", str(options.demonstrations), "--split", "training"]
        command = [sys.executable, "-m", "gymnast_tabletop.record", "--image-size", "32", "--actions", "20", *wanted]
        subprocess.run([*command, "--seed", seed, "--workers", str(options.jobs), "--out", str(folder)], check=True)


def train(options: argparse.Namespace) -> dict[tuple[str, int], dict[str, Any]]:
    """Row of `gymnast bench` by arm and seed. Raises `SystemExit` if a cell has no result."""
    file, folder = options.output / "matrix.yaml", options.output / "bench"
    file.write_text(yaml.safe_dump(matrix(options), sort_keys=False))
    rows = bench(file, folder, "retry=true", log=options.output / "bench.log")
    problems = [f"{row['cell']}: {row['status']}. {row['reason']}" for row in rows if row["status"] != "done"]
    if problems:
        raise SystemExit("Cells without a result (the same command tries them again):\n" + "\n".join(problems))
    return {(row["labels"]["algorithm"], row["seed"]): row for row in rows}


def replayed(arm: str, seed: int, row: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The arm's judge against the simulator, on sampled rollouts of the trained policy; what a file holds is kept."""
    path = options.output / "replay" / f"{arm.replace(' ', '-')}-{seed}.json"
    if path.exists() and (kept := json.loads(path.read_text()))["rollouts"] == options.replayed:
        return kept
    torch.set_num_threads(1)
    run = options.output / "bench" / "cells" / row["cell"] / "run"
    config = preset(f"policy.args.checkpoint={run / 'policy'}", *options.train)
    policy, world = build("policies", config.policy), build("world_models", config.world_model)
    tasks = tasks_of("choosing", options.replayed, first=FIRST_REPLAYED + seed * options.replayed)
    rollouts = imagine(
        policy, world, [tasks[index] for index in range(len(tasks))], horizon=config.loop.horizon, temperature=1.0,
        generator=torch.Generator().manual_seed(seed), batch_size=64,
    )  # fmt: skip
    trained = yaml.safe_load((run / "config.yaml").read_text())["reward_model"]
    # A score is no verdict: what was trained on one is judged as all others are.
    part = config.reward_model if arm == "verified" else ComponentConfig(trained["name"], trained["args"])
    verdicts = {}
    for name, judge in {"judge": part, "simulator": ComponentConfig("environment", {"always_replay": True})}.items():
        model = build("reward_models", judge)
        model.attach(Parts(world_model=world, reward_model=model))
        verdicts[name] = [None if reward.value is None else is_success(reward.value) for reward in ask(model, rollouts)]
        model.close()
    pairs = zip(verdicts["judge"], verdicts["simulator"], strict=True)
    both = [(judged, real) for judged, real in pairs if judged is not None and real is not None]
    called = [real for judged, real in both if judged]
    found = {
        "rollouts": len(rollouts), "scored": len(both), "called_success": len(called), "confirmed": sum(called),
        "real": sum(real for _, real in both),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_suffix(".part")
    part_path.write_text(json.dumps(found))
    part_path.replace(path)
    return found


def measured(arm: str, row: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What a cell comes to, as plain numbers."""
    run = options.output / "bench" / "cells" / row["cell"] / "run"
    again = AGAIN.get(arm, 0.0)
    if arm == "twice":
        rows = read_metrics(run / "metrics.csv")
        counts = [float(line["rollouts"]) for line in rows]
        looked = [float(line["judge_imagined_again"]) for line in rows]
        again = math.fsum(c * a for c, a in zip(counts, looked, strict=True)) / max(math.fsum(counts), 1.0)
    before, after = row["before"]["rate"], row["after"]["rate"]
    curve = [(0.0, before), *((float(point[0]), float(point[1])) for point in row["evaluations"])]
    curve = sorted({**dict(curve), float(row["iterations"]): after}.items())
    return {
        "before": before, "after": after, "gain": after - before, "curve": curve, "mean_on_the_way": area(curve),
        "frames": round(row["frames"] * (1 + again)), "cpu_seconds": cpu_seconds(run.parent),
        "steps": json.loads((run / "summary.json").read_text())["updates"], "stated": stated(arm, run),
    }  # fmt: skip


def cpu_seconds(cell: Path) -> float | None:
    """Processor's time of a training, which does not know what else the machine did, nor that it was stopped; None
    where it was begun twice, since what the first attempt took is not known."""
    result = json.loads((cell / "result.json").read_text())
    return float(result["cpu_seconds"]) if result["attempts"] == 1 else None


def stated(arm: str, run: Path) -> float | None:
    """What the arm's reward says of itself (`STATED`), mean over the iterations."""
    if arm not in STATED:
        return None
    values = [float(value) for line in read_metrics(run / "metrics.csv") if (value := line.get(STATED[arm]))]
    return math.fsum(values) / len(values) if values else None


def area(curve: Sequence[tuple[float, float]]) -> float:
    """Mean of a curve over its width (trapezoids): success on the way, the higher the earlier it rises."""
    width = curve[-1][0] - curve[0][0]
    if width <= 0:
        return curve[-1][1]
    steps = itertools.pairwise(curve)
    return math.fsum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in steps) / width


def against(values: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Difference to the baseline, paired by seed: mean, and Student's t interval where there are seeds enough."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    mean, error = mean_and_error(differences)
    if error is None:
        return {"mean": mean, "interval": None}
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return {"mean": mean, "interval": [mean - half, mean + half]}


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def run(options: argparse.Namespace) -> dict[str, Any]:
    options.output.mkdir(parents=True, exist_ok=True)
    record(options)
    rows = train(options)
    seeds = list(range(1, options.seeds + 1))
    cells = {
        arm: [
            {**measured(arm, rows[arm, seed], options), "replay": replayed(arm, seed, rows[arm, seed], options)}
            for seed in seeds
        ]
        for arm in options.arms
    }
    differences = {}
    if BASELINE in cells:
        base = [cell["after"] for cell in cells[BASELINE]]
        differences = {arm: against([cell["after"] for cell in found], base) for arm, found in cells.items()}
    settings = {
        "share": options.share,
        "episodes": options.episodes, "replayed": options.replayed, "train": list(options.train),
        "demonstrations": options.demonstrations,
    }  # fmt: skip
    return {"seeds": seeds, "settings": settings, "cells": cells, "against": differences}


def page(data: Mapping[str, Any]) -> str:
    """NAME.md from NAME.json."""
    seeds, settings, cells = data["seeds"], data["settings"], data["cells"]
    n = settings["episodes"]
    lines = [
        f"Success in the simulator, %, greedy, on {n} held-out tasks a seed; mean ± standard error over {len(seeds)} "
        f"seeds ({', '.join(map(str, seeds))}). Budgets are of imagined frames, those included that a reward imagines "
        "again. Precision on replay: of the sampled rollouts that the arm's judge calls a success, those that the "
        "simulator confirms (how many it calls one). Intervals are Student's t over seeds, each arm's alone. CPU "
        "minutes are a training's in one thread, evaluations included: as long as it takes on a core of its own.",
        "",
    ]
    if settings["train"] or settings["share"] < 1 or len(seeds) < 5:
        changed = [f"`{text}`" for text in settings["train"]]
        if settings["share"] < 1:
            changed.append(f"{settings['share']:g} of the batches")
        how = f" with {', '.join(changed)}" if changed else ""
        lines += [f"**A smoke run{how}: it shows that every arm works, and ranks none of them.**", ""]
    lines += [
        f"| arm | before | after | against {BASELINE}, points [95 %] | mean on the way | precision on replay | frames, "
        "thousands | gradient steps | CPU minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in cells.items():
        columns = [
            arm, _pm([cell["before"] for cell in found]), _pm([cell["after"] for cell in found]),
            _difference(data["against"].get(arm)) if arm != BASELINE else "",
            _pm([cell["mean_on_the_way"] for cell in found]), _precision([cell["replay"] for cell in found]),
            f"{math.fsum(cell['frames'] for cell in found) / len(found) / 1000:.1f}",
            f"{math.fsum(cell['steps'] for cell in found) / len(found):.0f}",
            _minutes([cell["cpu_seconds"] for cell in found]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(columns) + " |")
    for arm, metric in STATED.items():
        values = [cell["stated"] for cell in cells.get(arm, ()) if cell["stated"] is not None]
        if values:
            lines += ["", f"`{arm}`: `{metric}` is {math.fsum(values) / len(values):.3f} on average. {MEANING[arm]}"]
    return "\n".join(lines) + "\n"


def _pm(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    return f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = "" if found["interval"] is None else " [{:+.1f}, {:+.1f}]".format(*(100 * b for b in found["interval"]))
    return f"{100 * found['mean']:+.1f}{interval}"


def _minutes(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{math.fsum(known) / len(known) / 60:.1f}" if known else ""


def _precision(replays: Sequence[Mapping[str, int]]) -> str:
    called, confirmed = sum(r["called_success"] for r in replays), sum(r["confirmed"] for r in replays)
    return f"{100 * confirmed / called:.1f} ({called})" if called else "none called"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=400, help="tasks of each evaluation")
    parser.add_argument("--every", type=int, default=3, help="iterations between evaluations")
    parser.add_argument("--replayed", type=int, default=256, help="rollouts of each precision on replay")
    parser.add_argument("--demonstrations", type=int, default=6000, help="recorded for iter-sft")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM")
    parser.add_argument("--share", type=float, default=1.0, help="of each arm's batches (below 1: a smoke run)")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training")
    parser.add_argument("--output", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", default="algorithms", help="of the result files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    data = run(options)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / f"{options.name}.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.results / f"{options.name}.md").write_text(page(data))
    print(page(data))


if __name__ == "__main__":
    main()
