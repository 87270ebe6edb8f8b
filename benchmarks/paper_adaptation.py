"""Test-time training, the last row of World-Gymnast's results (arXiv 2602.02454), on unseen scenes of the tabletop.

    python benchmarks/paper_adaptation.py --pilot [--pilot-scenes 8] [--jobs 2] [--output runs/paper-adaptation]
    python benchmarks/paper_adaptation.py [--seeds 5] [--scenes 20] [--others 60] [--jobs 2] [--output ...]

The paper trains a policy from the picture in front of the robot: closing the drawer rises from 62 to 100 %, and other
tasks degrade. Here `gymnast adapt` does it from the first picture and the instruction of a scene, in the world model,
judged by the shipped success classifier, from the shipped supervised policy: ITERATIONS iterations of
96 imagined rollouts,

  plain       nothing protected
  protected   a share of 0.5 of the starts comes from other training tasks, and a KL divergence to the policy as it was
              costs 0.05 (the values of docs/how-to/adapt.md); as many rollouts in all, so half as many of the target

Every scene is a unit: its own seed, its own other tasks, none of which another unit or benchmark looks at, all of the
split "reporting" and none left out; each of the seeds has SCENES scenes of its own (100 scenes at the defaults), since
for the same cost other scenes say more than the same ones again. Measured in the simulator, before and after:

  target      success of TRIALS rollouts sampled at temperature 1. The simulator is deterministic, so greedy actions
              give 0 or 1 a scene (a deviation of the difference of 60 to 70 points); sampled ones resolve a scene to
              12 points, which is less than scenes differ, so that more trials would not help. Sampled success may
              rise by less noise alone: the target's greedy success stands beside it, not tested.
  retention   greedy success on OTHERS tasks that neither trained nor protected

Claims (Student's t over the scenes, Holm's correction for four): the target rises, plain and protected; others fall
if nothing is protected; others end higher with protection. The last says that something is kept only if others fall
without: the protected arm practises other tasks, which may raise them. The page says in how many scenes an arm
learned nothing at all, since all rollouts of each group were judged alike. `--pilot` measures the deviations on the
split "choosing" and prints how many scenes a power of 0.9 takes; its numbers go into the results.

A unit's cost: 2 adaptations of about 25 core seconds, 3 x (1 + OTHERS) rollouts in the simulator of about 5: 100 core
minutes at the defaults, 8 for the pilot. Units that ended are not repeated, killed ones go on (OUTPUT/SPLIT).
Writes RESULTS/paper_adaptation.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from commands import gymnast_at_once
from paper_statistics import (
    FIRST_REPORTED,
    change,
    claims_table,
    overridden,
    paired,
    plan,
    plan_table,
    same_settings,
    settle,
    with_error,
    write_results,
)

ITERATIONS, TRIALS = 3, 32
BLOCK, MOST_SCENES = 200, 100
"""Tasks that belong to a unit (its target, then its other tasks), and units that belong to a seed."""
AT_ONCE = 10
"""Units that are adapted to before they are measured and tidied: 0.8 GB."""
PILOT_SEED = 0
ARMS = ("plain", "protected")
POLICIES = ("before", *ARMS)
KL, SHARE, PROTECTING = 0.05, 0.5, 512
"""Of the protected arm: weight of the divergence, share of other training tasks, and how many of those there are."""
RISES, RISES_PROTECTED = "the target rises", "the target rises, protected"
FALL, KEEPS = "other tasks fall if nothing is protected", "other tasks end higher with protection"
SMALLEST = {RISES: 0.15, RISES_PROTECTED: 0.15, FALL: 0.05, KEEPS: 0.05}
"""Smallest effects of interest; the paper's target rises by 38 points."""


@dataclass(frozen=True)
class Unit:
    """A scene to adapt to."""

    split: str
    seed: int
    scene: int

    @property
    def number(self) -> int:
        """Other for each unit of a split."""
        return self.seed * MOST_SCENES + self.scene

    @property
    def first(self) -> int:
        """Index of its target in the split; its other tasks follow."""
        return FIRST_REPORTED["adaptation"] + self.number * BLOCK

    def folder(self, options: argparse.Namespace) -> Path:
        return options.output / self.split / f"{self.seed}-{self.scene:02d}"


def units(options: argparse.Namespace) -> list[Unit]:
    if options.pilot:
        return [Unit("choosing", PILOT_SEED, scene) for scene in range(options.pilot_scenes)]
    return [Unit("reporting", seed, scene) for seed in range(1, 1 + options.seeds) for scene in range(options.scenes)]


def adaptation(unit: Unit, arm: str, options: argparse.Namespace) -> list[str]:
    """Arguments of `gymnast adapt` from the start."""
    found = [
        "adapt-tabletop", f"target.args.split={unit.split}", f"target.args.first={unit.first}", "retention=null",
        f"loop.iterations={ITERATIONS}", "loop.tasks_per_iteration=6", f"trials={TRIALS}", f"batch_size={TRIALS}",
        "videos=0", f"seed={unit.number}",
    ]  # fmt: skip
    if arm == "protected":
        others = {"split": "training", "first": unit.number * PROTECTING, "count": PROTECTING, "image_size": 32}
        found += [
            f"protect.kl_coefficient={KL}", f"protect.share={SHARE}",
            f"protect.tasks={json.dumps({'name': 'tabletop', 'args': {**others, **options.protecting}})}",
        ]  # fmt: skip
    return [*found, *options.adapt, f"output={unit.folder(options) / arm}"]


def evaluation(unit: Unit, policy: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast evaluate` is told: the target, then the other tasks, greedily in the simulator; of the policy
    before (a part) and after each adaptation."""
    trained = {arm: str(unit.folder(options) / arm / "training/policy") for arm in ARMS}
    after = {
        arm: {"name": policy["name"], "args": {**policy["args"], "checkpoint": path}} for arm, path in trained.items()
    }
    tasks = {"split": unit.split, "first": unit.first, "count": 1 + options.others, "image_size": 32}
    return {
        "kind": "evaluate",
        "policies": {"before": dict(policy), **after},
        "worlds": {"simulator": {"name": "gymnasium"}},
        "rewards": {"simulator": {"name": "environment"}},
        "tasks": {"name": "tabletop", "args": tasks},
        "horizon": 16,
        "temperature": 0.0,
        "batch_size": 100,
        "videos": 0,
        "seed": unit.number,
    }


def adapt_and_measure(wanted: Sequence[Unit], options: argparse.Namespace) -> None:
    """All adaptations and evaluations, some units after the others; what is done is left out."""
    for first in range(0, len(wanted), AT_ONCE):
        some = wanted[first : first + AT_ONCE]
        print(f"Scenes {first + 1} to {first + len(some)} of {len(wanted)}", flush=True)
        starts = {unit.folder(options) / arm: adaptation(unit, arm, options) for unit in some for arm in ARMS}
        run({folder: ["adapt", *start] for folder, start in starts.items()}, options)
        for folder in starts:
            for name in ("snapshots", "rollouts"):  # 33 of 41 MB, for resuming and for looking at
                shutil.rmtree(folder / "training" / name, ignore_errors=True)
        run({unit.folder(options) / "greedy": evaluate(unit, options) for unit in some}, options)


def evaluate(unit: Unit, options: argparse.Namespace) -> list[str]:
    """Arguments that measure an adapted unit, in a file where there is no override."""
    folder = unit.folder(options)
    policy = yaml.safe_load((folder / "plain/config.yaml").read_text())["policy"]
    file = folder / "evaluate.yaml"
    file.write_text(yaml.safe_dump(evaluation(unit, policy, options), sort_keys=False))
    return ["evaluate", str(file), *options.evaluate, f"output={folder / 'greedy'}"]


def run(starts: Mapping[Path, list[str]], options: argparse.Namespace) -> None:
    """Make folders by what starts them, or go on with them; those that are done are left alone."""
    commands = []
    for folder, start in starts.items():
        if (folder / "summary.json").exists():
            continue
        begun = (folder / "config.yaml").exists()
        commands.append(([start[0], "--resume", str(folder)] if begun else start, folder.with_suffix(".log")))
    gymnast_at_once(commands, options.jobs)


def measured(unit: Unit, options: argparse.Namespace) -> dict[str, Any]:
    """The unit's success by what is measured and policy. Raises `SystemExit` if a part is missing."""
    folder = unit.folder(options)
    wanted = [folder / name / "summary.json" for name in (*ARMS, "greedy")]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        raise SystemExit(f"Missing, the same command tries again: {', '.join(missing)}")
    target = {arm: json.loads((folder / arm / "summary.json").read_text())["target"] for arm in ARMS}
    trained = {arm: json.loads((folder / arm / "training/summary.json").read_text()) for arm in ARMS}

    def sampled(world: str) -> dict[str, float]:
        # Both arms measure the policy before on the same seeds; one of the two counts.
        rates = {arm: target[arm][world]["after"]["rate"] for arm in ARMS}
        return {"before": target["plain"][world]["before"]["rate"], **rates}

    rows = [json.loads(line) for line in (folder / "greedy/results.jsonl").read_text().splitlines()]
    greedy = {(row["policy"], row["index"]): float(row["value"]) for row in rows}
    others = range(1, 1 + options.others)
    return {
        "seed": unit.seed,
        "scene": unit.scene,
        "updates": {arm: trained[arm]["updates"] for arm in ARMS},
        "instruction": next(row["instruction"] for row in rows if row["index"] == 0),
        "target": sampled("environment"),
        "imagined": sampled("imagined"),
        "greedy": {policy: greedy[policy, 0] for policy in POLICIES},
        "others": {policy: sum(greedy[policy, i] for i in others) / len(others) for policy in POLICIES},
    }


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Claim -> its difference for each unit, positive if the claim is right."""

    def less(what: str, better: str, worse: str) -> list[float]:
        return [row[what][better] - row[what][worse] for row in rows]

    return {
        RISES: less("target", "plain", "before"),
        RISES_PROTECTED: less("target", "protected", "before"),
        FALL: less("others", "before", "plain"),
        KEEPS: less("others", "protected", "plain"),
    }


MEASURES = {
    "target": "the target, sampled, in the simulator",
    "imagined": "the target, sampled, in imagination, by the judge it was trained for",
    "greedy": "the target, greedy, in the simulator",
    "others": "other tasks, greedy, in the simulator",
}


def page(data: Mapping[str, Any]) -> str:
    """results/paper_adaptation.md from the .json."""
    rows, settings = data["units"], data["settings"]
    lines = [
        "# Test-time training on unseen scenes",
        "",
        f"`python benchmarks/paper_adaptation.py --seeds {data['seeds']} --scenes {data['scenes']} --others "
        f"{settings['others']}`: `gymnast adapt` on {len(rows)} unseen scenes ({data['scenes']} of their own for each "
        f"of {data['seeds']} seeds), {settings['iterations']} iterations of 96 imagined rollouts; "
        f"{settings['trials']} sampled rollouts of a target and {settings['others']} other tasks before and after. "
        f"Protected: KL {KL:g}, {100 * SHARE:.0f} % of the starts other tasks.{overridden(settings, 'adapt')}",
        "",
        "Success, %, mean ± standard error over scenes; changes in points with 95 % intervals over scenes, each alone.",
        "",
        "| | before | plain | protected | change, plain | change, protected | protected - plain |",
        "|---" * 7 + "|",
    ]
    for what, title in MEASURES.items():
        means = [_cell([row[what][policy] for row in rows]) for policy in POLICIES]
        pairs = (("plain", "before"), ("protected", "before"), ("protected", "plain"))
        changes = [change([row[what][a] - row[what][b] for row in rows]) for a, b in pairs]
        lines.append(f"| {title} | {' | '.join(means + changes)} |")
    lines += ["", *claims_table(data["claims"]), "", _by_seed(data), "", _steps(data["units"]), ""]
    lines += plan_table(data["pilot"], "scenes")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    found = paired(values)
    return with_error(found["mean"], found["standard_error"])


def _steps(rows: Sequence[Mapping[str, Any]]) -> str:
    """How much the arms learned, and where they could not."""
    said = []
    for arm in ARMS:
        steps = [row["updates"][arm] for row in rows]
        said.append(f"{arm} {sum(steps) / len(steps):.1f} ({sum(not n for n in steps)} scenes without any)")
    return (
        f"Gradient steps a scene: {', '.join(said)}; there are none where the rollouts of each group are judged alike. "
        f'"{KEEPS}" says that protection keeps something only where "{FALL}" holds: the protected arm practises other '
        "tasks, too."
    )


def _by_seed(data: Mapping[str, Any]) -> str:
    said = []
    for claim, row in data["claims"].items():
        by_seed: dict[int, list[float]] = {}
        for unit, difference in zip(data["units"], row["differences"], strict=True):
            by_seed.setdefault(unit["seed"], []).append(difference)
        said.append(f"{claim} {', '.join(f'{100 * sum(v) / len(v):+.1f}' for v in by_seed.values())}")
    return "By seed, points: " + "; ".join(said) + "."


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of an output folder have in common."""
    return {
        "iterations": ITERATIONS, "trials": TRIALS, "others": options.others, "kl": KL, "share": SHARE,
        "adapt": options.adapt, "evaluate": options.evaluate, "protecting": options.protecting,
    }  # fmt: skip


def pilot(options: argparse.Namespace) -> dict[str, Any]:
    """Deviations on the split "choosing", printed and kept in OUTPUT/pilot.json."""
    wanted = units(options)
    adapt_and_measure(wanted, options)
    claims = differences([measured(unit, options) for unit in wanted])
    found = plan(claims, options.seeds * options.scenes, smallest=SMALLEST)
    (options.output / "pilot.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(plan_table(found, "scenes")))
    return found


def report(options: argparse.Namespace) -> dict[str, Any]:
    """Adapt, measure, summarise."""
    wanted = units(options)
    adapt_and_measure(wanted, options)
    rows = [measured(unit, options) for unit in wanted]
    file = options.output / "pilot.json"
    return {
        "settings": settings_of(options),
        "seeds": options.seeds,
        "scenes": options.scenes,
        "units": rows,
        "claims": settle(differences(rows), smallest=SMALLEST),
        "pilot": json.loads(file.read_text()) if file.exists() else None,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=20, help=f"of each seed, at most {MOST_SCENES}")
    parser.add_argument("--others", type=int, default=60, help=f"other tasks of each scene, below {BLOCK}")
    parser.add_argument("--pilot", action="store_true", help='plan the run on the split "choosing"')
    parser.add_argument("--pilot-scenes", type=int, default=8, help="2 or more")
    parser.add_argument("--jobs", type=int, default=2, help="commands at once, one thread each")
    parser.add_argument("--adapt", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every adaptation")
    parser.add_argument("--evaluate", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every evaluation")
    parser.add_argument("--protecting", type=json.loads, default={}, help="further arguments of the protecting tasks")
    parser.add_argument("--output", type=Path, default=Path("runs/paper-adaptation"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    if not (1 <= options.scenes <= MOST_SCENES and 2 <= options.pilot_scenes <= MOST_SCENES):
        parser.error(f"--scenes are 1 to {MOST_SCENES}, --pilot-scenes 2 to {MOST_SCENES}.")
    if not 1 <= options.others < BLOCK:
        parser.error(f"--others are 1 to {BLOCK - 1}.")
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
    write_results("paper_adaptation", options.results, data, text)
    print(text)


if __name__ == "__main__":
    main()
