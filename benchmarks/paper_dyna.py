"""Dyna under a real gap (arXiv 2602.02454): does a world model that is refitted on the robot's episodes teach more?

    python benchmarks/paper_dyna.py --pilot                              # first: power, on the split "choosing"
    python benchmarks/paper_dyna.py [--seeds 5] [--episodes 400] [--jobs 2] [--output runs/paper-dyna]

The "robot" is the tabletop's simulator with `GAP`: its camera, colours and friction differ from all that any shipped
model has seen. For every seed, from the shipped supervised policy, and for twice N iterations of GRPO in imagination
from first frames of the robot:

  sft                no training
  old world model    both halves in the shipped world model and judge
  one round          N recorded episodes of the policy on the robot -> world model and judge are refitted on these and
                     on play of the standard table -> both halves there
  two rounds         the same first half; then recorded, refitted on everything and practised once more

So arms differ in their world, and have as many iterations and rollouts; the optimizer begins anew after the first half
in all of them. They do not have as many gradient steps: where nearly all of a group's rollouts are judged alike, as in
a world that nobody succeeds in, there is little to learn from. That is a part of what a world teaches, and the page
lists the steps. `gymnast dyna` does the rounds (OUTPUT/seed-S/dyna, a folder a stage), `gymnast train` the other halves
from the configs of those rounds, `gymnast evaluate` measures everything on the robot, greedily, on the same tasks of
the split "reporting". What was killed goes on where it was; what ended is not repeated. Also listed: every arm after
its first half. Writes benchmarks/results/paper_dyna.{json,md}.

Cost, estimated: 5 trainings of 8 iterations (2 core minutes each), 2 refits of the world model (3 each) and of the
judge (under 1), 2 recordings and the evaluation (1.5 together) are 19 core minutes a seed: 95 for 5 seeds, 38 for the
pilot.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from commands import gymnast_at_once
from paper_parts import (
    Claim,
    Trials,
    add_options,
    begin,
    begin_or_resume,
    measure,
    outcome,
    save,
    seeds_of,
    split_of,
    with_earlier,
)
from paper_statistics import FIRST_REPORTED

from gymnast_core.config import load_config
from gymnast_core.config.load import to_yaml
from gymnast_dyna.config import DynaConfig
from gymnast_dyna.stages import Parts, train_config

GAP = {"camera_shift": [0.03, -0.02], "camera_zoom": 1.2, "hue": 35.0, "brightness": 0.75, "friction": 0.3}
"""Chosen before any training, by the supervised policy alone: of 100 tasks of the split "choosing" it fulfils 16 with
it (in the shipped world model, by its judge: 7), 33 with a smaller one. Without any it fulfils 39 %."""
FIRST_TASK = FIRST_REPORTED["dyna"]
"""Index of the first task in the splits "reporting" and "choosing": none that another benchmark looks at."""
FIRST_START, STARTS = 620_000_000, 4096
"""First frames that arms practise from: index in the split "training" for seed 0, and how many each seed has."""
FIRST_EPISODE, EPISODES_APART = 500_000_000, 3_000_000
"""Environment seeds of what is recorded; rounds of `gymnast dyna` are a million apart."""
OLD = "old"
"""Folder of play on the standard table."""

CLAIMS = (
    Claim("one round", "old world model", "refitted once on the robot's episodes, the world model teaches more"),
    Claim("two rounds", "one round", "a second round, on the better policy's episodes, teaches more still"),
)


def rounds(seed: int, options: argparse.Namespace) -> DynaConfig:
    """What `gymnast dyna` is told for one seed. Raises `ConfigError`."""
    standard = {"id": "gymnast/Tabletop-v0", "name": "robot", "args": {"image_size": 32, "horizon": 16, "gap": GAP}}
    first = FIRST_EPISODE + EPISODES_APART * seed
    recorded = [{**standard, "first": first, "count": options.recorded}]
    starts = {"split": "training", "first": FIRST_START + STARTS * seed, "count": STARTS}
    checked = {"split": "choosing", "first": FIRST_TASK + 90_000, "count": options.checked}

    def tasks(part: dict[str, Any]) -> str:
        return json.dumps({"name": "tabletop", "args": {**part, "image_size": 32, "gap": GAP}})

    def earlier(window: int) -> str:
        path = options.output / OLD / "episodes"
        return json.dumps({"name": "lerobot", "args": {"path": str(path), "window": window}})

    return load_config(
        DynaConfig,
        "dyna-tabletop",
        [
            f"collect.environments={json.dumps(recorded)}",
            f"train.tasks={tasks(starts)}",
            f"train.loop.iterations={options.iterations}",
            f"evaluate.tasks={tasks(checked)}",
            "evaluate.videos=0",
            f"world.earlier={earlier(9)}",
            f"judge.earlier={earlier(17)}",
            f"seed={10 * seed}",
            *options.dyna,
            "rounds=2",
            f"output={place(seed, options) / 'dyna'}",
        ],
    )


def place(seed: int, options: argparse.Namespace) -> Path:
    """Everything of one seed."""
    folder: Path = options.output / f"seed-{seed}"
    return folder


def old_play(options: argparse.Namespace) -> list[str]:
    """Arguments that record play on the standard table, as the shipped models learned from: against forgetting."""
    environments = [
        {
            "id": "gymnast/Tabletop-v0", "name": "tabletop", "args": {"image_size": 32, "horizon": 16},
            "first": FIRST_EPISODE - EPISODES_APART, "count": options.old,
        }
    ]  # fmt: skip
    folder = options.output / OLD
    # As long as a rollout: of a longer episode, the judge's crops would mostly end before anything is decided.
    start = ["collect-tabletop", f"environments={json.dumps(environments)}", "horizon=16", f"output={folder}"]
    return begin_or_resume("collect", folder, start)


def halves(config: DynaConfig, folder: Path) -> list[dict[str, Any]]:
    """Trainings outside of `gymnast dyna`, in two steps: step -> folder -> its config, as rounds make theirs."""
    shipped = Parts(config.policy, config.world_model, config.reward_model)
    first = folder / "dyna" / "round-1"
    refitted = shipped
    for key, path in {
        "policy": first / "train/policy", "world_model": first / "world_model/checkpoint",
        "reward_model": first / "reward_model/checkpoint",
    }.items():  # fmt: skip
        refitted = refitted.with_checkpoint(key, path)
    halfway = shipped.with_checkpoint("policy", folder / "old-1/policy")
    return [
        {"old-1": train_config(config, shipped, 1, folder / "old-1")},
        {
            "old-2": train_config(config, halfway, 2, folder / "old-2"),
            "one-2": train_config(config, refitted, 2, folder / "one-2"),
        },
    ]


def policies(config: DynaConfig, folder: Path) -> dict[str, Path]:
    """arm -> its policy."""
    return {
        "sft": Path(str(config.policy.args["checkpoint"])),
        "old world model, first half": folder / "old-1/policy",
        "old world model": folder / "old-2/policy",
        "one round, first half": folder / "dyna/round-1/train/policy",
        "one round": folder / "one-2/policy",
        "two rounds": folder / "dyna/round-2/train/policy",
    }


def work(seeds: Sequence[int], options: argparse.Namespace) -> None:
    """Record, go through the rounds, and train the other halves: stage by stage, seeds beside each other."""
    configs = {seed: rounds(seed, options) for seed in seeds}
    if not (options.output / OLD / "summary.json").exists():
        gymnast_at_once([(old_play(options), options.output / "old.log")], 1)
    stages: list[list[tuple[str, str, Path]]] = [[], [], []]
    for seed, config in configs.items():
        folder = place(seed, options)
        stages[0].append(("dyna", to_yaml(config), folder / "dyna"))
        for number, trainings in enumerate(halves(config, folder), start=1):
            stages[number] += [("train", to_yaml(training), folder / name) for name, training in trainings.items()]
    for stage in stages:
        commands = []
        for name, text, folder in stage:
            if (folder / "summary.json").exists():
                continue
            folder.parent.mkdir(parents=True, exist_ok=True)
            file = folder.with_suffix(".yaml")
            file.write_text(text)
            commands.append((begin_or_resume(name, folder, [str(file)]), folder.with_suffix(".log")))
        gymnast_at_once(commands, options.jobs)


def measured(seeds: Sequence[int], options: argparse.Namespace) -> Trials:
    """Every arm on the robot."""
    found = {}
    for seed in seeds:
        folder = place(seed, options)
        tasks = {
            "split": split_of(options), "first": FIRST_TASK + seed * options.episodes, "count": options.episodes,
            "image_size": 32, "gap": GAP,
        }  # fmt: skip
        target = folder / f"evaluation-{split_of(options)}-{options.episodes}"
        for arm, values in measure(
            policies(rounds(seed, options), folder), tasks, seed, target, options.evaluate
        ).items():
            found[arm, seed] = values
        print(f"seed {seed}: measured", flush=True)
    # By arm, so that tables have their order.
    return {key: found[key] for key in sorted(found, key=lambda key: list(found).index((key[0], seeds[0])))}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """What goes into the results: of the pilot, or of the run."""
    settings = {
        "iterations": options.iterations, "recorded": options.recorded, "old": options.old, "gap": GAP,
        "overrides": options.dyna,
    }  # fmt: skip
    options.output = begin(options.output, settings)
    seeds = seeds_of(options)
    work(seeds, options)
    trials = measured(seeds, options)
    return {**outcome(CLAIMS, trials, settings, options), **({} if options.pilot else {"steps": steps(seeds, options)})}


def steps(seeds: Sequence[int], options: argparse.Namespace) -> dict[str, list[list[int]]]:
    """Gradient steps of both halves of each arm: arm -> for each seed (first half, second half)."""
    halves_of = {
        "old world model": ("old-1", "old-2"), "one round": ("dyna/round-1/train", "one-2"),
        "two rounds": ("dyna/round-1/train", "dyna/round-2/train"),
    }  # fmt: skip

    def taken(seed: int, folder: str) -> int:
        return int(json.loads((place(seed, options) / folder / "summary.json").read_text())["updates"])

    return {arm: [[taken(seed, half) for half in halves] for seed in seeds] for arm, halves in halves_of.items()}


def about(options: argparse.Namespace, found: Mapping[str, Any]) -> str:
    taken = "; ".join(
        f"{arm} {' + '.join(f'{sum(half) / len(half):.0f}' for half in zip(*rows, strict=True))}"
        for arm, rows in found.get("steps", {}).items()
    )
    listed = f" Gradient steps, first + second half, means over seeds: {taken}." if taken else ""
    return (
        f"`python benchmarks/paper_dyna.py`. The robot is the simulator with the gap {json.dumps(GAP)}. Every arm but "
        f"sft takes twice {options.iterations} iterations of GRPO; a round records {options.recorded} episodes."
        f"{listed}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/paper-dyna")
    parser.add_argument("--iterations", type=int, default=8, help="of each half")
    parser.add_argument("--recorded", type=int, default=400, help="episodes of the policy in each round")
    parser.add_argument("--old", type=int, default=200, help="episodes of play on the standard table")
    parser.add_argument("--checked", type=int, default=100, help="tasks on which `gymnast dyna` looks at its rounds")
    parser.add_argument("--dyna", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the preset")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    found = with_earlier(run(options), "paper_dyna", CLAIMS, options)
    print(save("paper_dyna", options.results, "Dyna under a gap", about(options, found), found))


if __name__ == "__main__":
    main()
