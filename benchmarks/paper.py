"""The shape of World-Gymnast's tables (arXiv 2602.02454) at the tabletop's scale, over several seeds.

    python benchmarks/paper.py [--seeds 5] [--episodes 400] [--jobs 2] [--output runs/paper] [--name paper]

The tabletop's simulator stands for the robot; nothing but the arm `simulator with a gap` trains in one. Every arm
starts from the shipped supervised policy, draws its tasks from the split "training", and takes as many rollouts and
gradient steps as the preset `tabletop` does:

  sft                    no training
  iter-sft               imitation of successful imagined rollouts, 1:1 with demonstrations (data/slow-demos)
  simulator with a gap   GRPO in a simulator whose camera, colours and friction are off (SIMPLER's role)
  world model            GRPO in imagination, judged by the success classifier, from TASKS starts
  + third block          the same, but a third of the starts have a distractor: a third block on the table
  + pasted distractors   the same, something pasted into half of the first frames
  + new instruction      the same, but a fifth of the starts name one of the two colour-direction pairs that no
                         demonstration names: blue-left in odd seeds, yellow-top in even ones
  + held-out pairs       the same, instructions drawn from all pairs, both of those included
  + more tasks           the same from 4,096 starts instead of TASKS

All of them are then measured, greedily and on the same tasks of the split "reporting", in the simulator and in
imagination: on the tasks as they are; with a third block on the table (the world model knows two); with a new
instruction, the pair of the two that "+ new instruction" was not trained on, so that neither demonstrations nor any
arm's RL named it, but for "+ held-out pairs"; and with both held-out pairs, which that arm trains on. `gymnast bench`
trains (OUTPUT/bench/report.html), `gymnast evaluate` measures (OUTPUT/evaluation-*); killed, the same command goes on
where it was. Writes benchmarks/results/NAME.{json,md}: means, standard errors over seeds, and for each claim of the
paper whether it shows here, corrected by Holm for their number.

Cost, estimated: a training takes 3 core minutes and measuring an arm on a set half a minute: 5 minutes an arm and seed,
225 for all. The two claims that the published results lack, on their own, in 65 core minutes:

    python benchmarks/paper.py --name paper_generalisation --output runs/paper-generalisation \\
        --arms "world model" "+ third block" "+ new instruction" --sets "third block" "new instruction"

With --pilot: two other seeds on the split "choosing" (OUTPUT/pilot); how many seeds it takes goes into the results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from commands import bench, gymnast
from paper_statistics import ALPHA, SMALLEST, plan, plan_table, points, same_settings, settle
from tabletop_parts import check_demonstrations

from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.config.load import to_yaml
from gymnast_evaluation.config import EvaluateConfig

GAP = {"camera_shift": [0.01, -0.01], "camera_zoom": 1.1, "hue": 15.0, "brightness": 0.85, "friction": 0.3}
"""Chosen before any training: a centimetre and 10 % of camera, a visible change of light, a third of the friction."""
TRAINING = {"split": "training", "image_size": 32}
MANY = 4096
"""Starts of the arm + more tasks; seeds of training tasks are this far apart."""
FIRST_REPORTED = 400_000
"""Index in the split "reporting" of the first task: none that another benchmark reports on."""
NEW = ("blue-left", "yellow-top")
"""The pairs that no demonstration names: a seed trains on one of them, and is asked for the other."""
SETS = ("as they are", "third block", "new instruction", "held-out pairs")
"""Task sets that policies are measured on."""
WORLDS = ("simulator", "imagination")
PILOT_SEEDS = (101, 102)
ITER_SFT = {
    "group_size": 8, "learning_rate": 1.5e-4, "warmup_updates": 10, "learning_rate_decay_updates": 134,
    "minibatch_size": 96, "epochs": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """Something that the paper's tables show: `better` succeeds more often than `worse` on a set, in the simulator."""

    better: str
    worse: str
    on: str
    source: str


CLAIMS = (
    Claim("iter-sft", "sft", "as they are", "filtered imitation improves on supervision"),
    Claim("world model", "sft", "as they are", "RL in the world model improves on supervision"),
    Claim("world model", "iter-sft", "as they are", "RL in the world model beats filtered imitation"),
    Claim("world model", "simulator with a gap", "as they are", "it beats RL in a simulator that is not the robot"),
    Claim("+ third block", "world model", "third block", "training with distractors helps where there are some"),
    Claim("+ pasted distractors", "world model", "third block", "training with pasted ones helps with real ones"),
    Claim("+ new instruction", "world model", "new instruction", "training on a new instruction helps on another"),
    Claim("+ held-out pairs", "world model", "held-out pairs", "training on new instructions helps on them"),
    Claim("+ more tasks", "world model", "as they are", "training on more tasks helps on others"),
)


def arms(seed: int, tasks: int) -> dict[str, list[str]]:
    """Overrides of the preset `tabletop` for every arm."""
    first = seed * MANY

    def starts(**changes: Any) -> dict[str, Any]:
        return {"name": "tabletop", "args": {**TRAINING, "first": first, "count": tasks, **changes}}

    def on(component: Mapping[str, Any]) -> str:
        return f"tasks={json.dumps(component)}"

    def partly(share: int, **changes: Any) -> str:
        """As many starts, of which one in `share` is another."""
        others = max(tasks // share, 1)
        return on({"name": "several-episodes", "args": {"of": [starts(count=tasks - others), starts(
            first=first + tasks - others, count=others, **changes)]}})  # fmt: skip

    distracted = {"dataset": starts(), "edits": {"distractor": {}}, "share": 0.5, "seed": seed}
    return {
        "sft": [on(starts()), "loop.iterations=0"],
        "iter-sft": [
            on(starts()), f"optimizer={json.dumps({'name': 'iter-sft', 'args': ITER_SFT})}",
            "demonstrations={name: tabletop-episodes, args: {path: data/slow-demos}}",
        ],
        "simulator with a gap": [on(starts(gap=GAP)), "world_model=gymnasium", "reward_model=environment"],
        "world model": [on(starts())],
        "+ third block": [partly(3, n_blocks=3)],
        "+ pasted distractors": [on({"name": "edited-tasks", "args": distracted})],
        "+ new instruction": [partly(5, pairs=new_pairs(seed)[0])],
        "+ held-out pairs": [on(starts(pairs="all"))],
        "+ more tasks": [on(starts(count=MANY))],
    }  # fmt: skip


def new_pairs(seed: int) -> tuple[str, str]:
    """The pair that the arm + new instruction trains on, and the one that nothing but + held-out pairs trains on."""
    return (NEW[0], NEW[1]) if seed % 2 else (NEW[1], NEW[0])


def changes_of(name: str, seed: int) -> dict[str, Any]:
    """How the tasks of a set differ from those as they are."""
    changes: dict[str, dict[str, Any]] = {
        "as they are": {},
        "third block": {"n_blocks": 3},
        "new instruction": {"pairs": new_pairs(seed)[1]},
        "held-out pairs": {"pairs": "held-out"},
    }
    return changes[name]


def matrix(names: Sequence[str], seeds: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast bench` is told. The evaluation tasks of different seeds do not overlap."""
    adjust = []
    for seed in seeds:
        reported = {
            "split": split_of(options),
            "first": FIRST_REPORTED + seed * options.episodes,
            "count": options.episodes,
        }
        part = {"name": "tabletop", "args": {**reported, "image_size": 32}}
        for name in names:
            own = [*arms(seed, options.tasks)[name], f"evaluation.tasks={json.dumps(part)}", *options.train]
            adjust.append({"when": {"arm": name, "seed": seed}, "overrides": own})
    return {
        "kind": "bench",
        "base": "tabletop",
        "axes": {"arm": {name: [] for name in names}},
        "adjust": adjust,
        "overrides": ["evaluation.videos=0"],
        "seeds": list(seeds),
        "jobs": options.jobs,
        "threads": 1,
        "output": str(options.output / "bench"),
    }


def train(names: Sequence[str], seeds: Sequence[int], options: argparse.Namespace) -> dict[tuple[str, int], dict]:
    """Row of `gymnast bench` by arm and seed. Raises `SystemExit` if a cell has no result."""
    file = options.output / "matrix.yaml"
    file.write_text(yaml.safe_dump(matrix(names, seeds, options), sort_keys=False))
    folder = options.output / "bench"
    rows = bench(file, folder, "retry=true", log=options.output / "bench.log")
    found = {(row["labels"]["arm"], row["seed"]): row for row in rows}
    problems = [f"{row['cell']}: {row['status']}. {row['reason']}" for row in rows if row["status"] != "done"]
    if problems or len(found) < len(names) * len(seeds):
        raise SystemExit("Cells without a result (the same command tries them again):\n" + "\n".join(problems))
    return found


def measure(policies: Mapping[str, Path], seed: int, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """summary.json of `gymnast evaluate` of all arms of a seed on one set of tasks, in both worlds."""
    folder = options.output / f"evaluation-{seed}-{name.replace(' ', '-')}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    parts = {label(arm): {"name": "openvla-oft", "args": {"checkpoint": str(path)}} for arm, path in policies.items()}
    tasks = {
        "split": split_of(options), "first": FIRST_REPORTED + seed * options.episodes, "count": options.episodes,
        "image_size": 32, **changes_of(name, seed),
    }  # fmt: skip
    changes = [
        f"tasks={json.dumps({'name': 'tabletop', 'args': tasks})}", f"seed={seed}", "videos=0", "batch_size=100",
        *options.evaluate, f"output={folder}",
    ]  # fmt: skip
    preset = load_config(EvaluateConfig, "evaluate-tabletop", changes)
    # Exactly these policies: those of the preset would be added to.
    config = replace(preset, policies={key: ComponentConfig(**part) for key, part in parts.items()})
    file = folder.with_suffix(".yaml")
    file.write_text(to_yaml(config))
    again = (folder / "config.yaml").exists()
    start = ["--resume", str(folder), f"policies={json.dumps(parts)}"] if again else [str(file)]
    gymnast("evaluate", *start, log=folder.with_suffix(".log"))
    return json.loads((folder / "summary.json").read_text())


def label(arm: str) -> str:
    """The arm's name as `gymnast evaluate` takes it: "+ more tasks" -> "plus-more-tasks"."""
    return arm.replace("+", "plus").replace(" ", "-")


def rates(summaries: Mapping[tuple[int, str], Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """arm -> set -> world -> success by seed."""
    seeds, sets = sorted({seed for seed, _ in summaries}), list(dict.fromkeys(name for _, name in summaries))

    def success(arm: str, name: str, world: str) -> list[float]:
        return [summaries[seed, name]["results"][label(arm)][world]["rate"] for seed in seeds]

    return {arm: {name: {world: success(arm, name, world) for world in WORLDS} for name in sets} for arm in names}


def claims_in(found: Mapping[str, Any]) -> dict[str, tuple[Claim, list[float]]]:
    """The claims whose arms and sets were measured, by name, and their differences in the simulator by seed."""
    known = {
        f"{claim.better} > {claim.worse} on {claim.on}": claim
        for claim in CLAIMS
        if {claim.better, claim.worse} <= set(found) and claim.on in found[claim.better]
    }
    differences = {}
    for name, claim in known.items():
        pair = [found[arm][claim.on]["simulator"] for arm in (claim.better, claim.worse)]
        differences[name] = (claim, [better - worse for better, worse in zip(*pair, strict=True)])
    return differences


def settled(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The claims that were measured, and their tests over seeds."""
    known = claims_in(found)
    rows = settle({name: values for name, (_, values) in known.items()}) if known else {}
    return [{**vars(claim), **rows[name]} for name, (claim, _) in known.items()]


def split_of(options: argparse.Namespace) -> str:
    return "choosing" if options.pilot else "reporting"


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def page(data: Mapping[str, Any]) -> str:
    """results/paper.md from results/paper.json: the run, the pilot, or both."""
    pilot = ["", *plan_table(data["pilot"], "seeds")] if data.get("pilot") else []
    return "\n".join([*(_run_lines(data) if "rates" in data else []), *pilot]).lstrip() + "\n"


def _run_lines(data: Mapping[str, Any]) -> list[str]:
    found, seeds, settings = data["rates"], data["seeds"], data["settings"]
    sets = list(next(iter(found.values())))
    n, tasks = settings["episodes"], settings["tasks"]
    starts = f", + more tasks from {MANY}" if "+ more tasks" in found else ""
    lines = [
        f"Success, %: mean ± standard error over {len(seeds)} seeds ({', '.join(map(str, seeds))}), each on {n} tasks "
        f"a column (n = {len(seeds) * n}), greedy. Arms train from {tasks} starts{starts}. "
        "The world model has seen two blocks, never three.",
        "",
        "| training | " + " | ".join(f"{name}: {world}" for name in sets for world in WORLDS) + " |",
        "|---" * (1 + len(sets) * len(WORLDS)) + "|",
    ]
    for arm, row in found.items():
        cells = [_pm(row[name][world]) for name in sets for world in WORLDS]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| claim of the paper, in the simulator | on | difference, points | 95 % | p, corrected | |",
        "|---|---|---|---|---|---|",
    ]
    for claim in data["claims"]:
        lines.append(
            f"| {claim['source']}: {claim['better']} > {claim['worse']} | {claim['on']} "
            f"| {_pm(claim['differences'], '+')} | {points(claim['interval'])} | {claim['corrected']:.2g} "
            f"| {claim['verdict']} |"
        )
    cost = data["cost"]
    lines += [
        "",
        f"Differences are paired by seed, intervals Student's t over {len(seeds)} seeds, p corrected by Holm for "
        f'{len(data["claims"])} claims; level {ALPHA:g}. "does not": the interval lies below {100 * SMALLEST:g} '
        f"points. {cost['unscored']} of {cost['trials']} trials unscored. Training: "
        f"{cost['cell_minutes']:.1f} minutes of {cost['cells']} cells, {cost['frames']:,} frames, "
        f"${cost['dollars']:.2f}.",
    ]
    return lines


def _pm(values: Sequence[float], sign: str = "") -> str:
    mean, error = mean_and_error(values)
    return f"{100 * mean:{sign}.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train, measure, summarise; of a pilot, what it says about the size of the run."""
    options.output = (options.output / "pilot" if options.pilot else options.output).resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    settings = {"episodes": options.episodes, "tasks": options.tasks, "gap": GAP}
    same_settings(options.output / "settings.json", {**settings, "train": options.train, "evaluate": options.evaluate})
    if "iter-sft" in options.arms:
        check_demonstrations()
    seeds = list(PILOT_SEEDS) if options.pilot else list(range(1, 1 + options.seeds))
    rows = train(options.arms, seeds, options)
    summaries = {}
    for seed in seeds:
        policies = {
            arm: options.output / "bench/cells" / rows[arm, seed]["cell"] / "run/policy" for arm in options.arms
        }
        for name in options.sets:
            summaries[seed, name] = measure(policies, seed, name, options)
            print(f"seed {seed}, {name}: measured", flush=True)
    found = rates(summaries, options.arms)
    if options.pilot:
        return {"pilot": plan({name: values for name, (_, values) in claims_in(found).items()}, options.seeds)}
    cells = list(rows.values())
    return {
        "settings": settings,
        "seeds": seeds,
        "rates": found,
        "claims": settled(found),
        "cost": {
            "cells": len(cells),
            "cell_minutes": sum(row["seconds"] for row in cells) / 60,
            "frames": sum(row["frames"] for row in cells),
            "dollars": sum(row["dollars"] for row in cells),
            "trials": sum(s["trials"] * len(options.arms) * len(WORLDS) for s in summaries.values()),
            "unscored": sum(s["unscored"] for s in summaries.values()),
        },
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(arms(0, 1))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=400, help="tasks of each set and seed")
    parser.add_argument("--tasks", type=int, default=64, help="starts that arms train from")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--arms", nargs="+", default=names, choices=names, metavar="ARM")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training")
    parser.add_argument("--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation")
    parser.add_argument("--output", type=Path, default=Path("runs/paper"))
    parser.add_argument("--pilot", action="store_true", help=f"seeds {PILOT_SEEDS} on the split choosing, and power")
    parser.add_argument("--name", default="paper", help="of the files with the results")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    whole = options.arms == names and options.sets == list(SETS)
    if not whole and options.name == parser.get_default("name") and options.results == parser.get_default("results"):
        parser.error("With some of the arms or sets, give the results a --name of their own.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    path = options.results / f"{options.name}.json"
    new = run(options)
    # The pilot's numbers stay beside those of the run.
    data = {**(json.loads(path.read_text()) if path.exists() else {}), **new}
    options.results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
    (options.results / f"{options.name}.md").write_text(page(data))
    print(page(data))


if __name__ == "__main__":
    main()
