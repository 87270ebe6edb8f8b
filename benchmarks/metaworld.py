"""RL in imagination against its controls in five tasks of Meta-World at 64 px, all of it measured in Meta-World.

    python benchmarks/metaworld.py [--python METAWORLD_PYTHON] [--seeds 5] [--episodes 250] [--jobs 2]
                                   [--parts gate arms gains judge agreement] [--arms ...] [--output runs/metaworld]
    python benchmarks/metaworld.py --table        # benchmarks/results/metaworld.{json,md} from what is there so far

The world model, policy and judge are those of the preset `metaworld`, made by its README's commands. Parts:

  gate       `gymnast gate`: the policy's success by task, imagined frames beside copying, the judge's precision on
             replayed imagined rollouts
  arms       trained on the preset's families of tasks; from the same supervised policy and, for each seed, on the
             same held-out episodes of all families:
               imagination    GRPO inside the world model, rewarded by the success classifier
               iter-sft       imitation of the successes among as many imagined rollouts
               simulator      GRPO in Meta-World itself, as many rollouts
               random-reward  GRPO inside the world model, rewarded by coin flips
  gains      no learning: the supervised policy's actions times G; the G that is best on other seeds of the families
             that the arms are trained on
  judge      the gate's numbers for the policy that each imagination run ended with, and for two that Meta-World
             itself has trained
  agreement  success in imagination against success in Meta-World, over all policies that there are by then

Tasks are trained on, chosen by and reported on from seeds that do not overlap (`FIRST`). Everything is a `gymnast` run
in a folder of its own, skipped if it has ended and resumed if it was interrupted, so the benchmark can be stopped and
started again at any time; results/metaworld.json keeps every episode's outcome, so that further seeds of the same
preset can be run on another machine. `--python` names the interpreter that has metaworld, where ours has another
MuJoCo.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from metaworld_table import family_of, write_results
from policy_variants import policy_with_gain, policy_with_noise

from gymnast_evaluation.trials import Trial, read_trials

FIRST = {"training": 300_000, "choosing": 2**30 + 100_000, "reporting": 2**30 + 2**29 + 1_000_000}
"""First seed of each kind of task. Recordings have seeds below 300,000; the gate and all decisions use "choosing"."""
ARMS: dict[str, dict[str, Any]] = {
    "imagination": {},
    "iter-sft": {
        "optimizer": {
            "name": "iter-sft",
            "args": {
                "group_size": 8, "learning_rate": 1.5e-4, "warmup_updates": 5, "learning_rate_decay_updates": 80,
                "minibatch_size": 96, "epochs": 2,
            },
        },
        "demonstrations": {"name": "lerobot", "args": {"path": "data/metaworld/demonstrations/episodes"}},
    },
    "simulator": {"world_model": "evaluation", "reward_model": {"name": "environment"}},
    "random-reward": {"reward_model": {"name": "random", "args": {"probability": 0.4}}},
}  # fmt: skip
FIRST_ARM = "imagination"
RESULTS = Path(__file__).parent / "results"
PRESET = Path(__file__).parents[1] / "contrib/gymnast-metaworld/gymnast_metaworld/presets/metaworld.yaml"
GAINS = (1.25, 1.5, 2.0)
NOISES = (0.1, 0.2)
"""Weight noise of two more policies of the agreement, standard deviations of each tensor."""
PARTS = ("gate", "arms", "gains", "judge", "agreement")


@dataclass(frozen=True)
class Bench:
    """What the parts share."""

    options: argparse.Namespace

    @property
    def output(self) -> Path:
        return self.options.output

    def preset(self) -> dict[str, Any]:
        """The preset `metaworld` as plain values, with the interpreter of its environments."""
        path = PRESET
        config = yaml.safe_load(path.read_text().replace("${preset_dir}", str(path.parent)))
        if self.options.python is not None:
            hosting = {"python": self.options.python}
            for args in (config["tasks"]["args"], config["evaluation"]["world"]["args"],
                         config["evaluation"]["tasks"]["args"]):  # fmt: skip
                args["hosting"] = {**args.get("hosting", {}), **hosting}
        return config

    def identity(self) -> str:
        """Hexadecimal SHA-256 of what decides a number here: the preset, its checkpoints, the arms and the seeds."""
        checkpoints = PRESET.parents[1] / "checkpoints"
        files = sorted(checkpoints.glob("*/*.safetensors"))
        weights = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        decisive = [yaml.safe_load(PRESET.read_text()), weights, ARMS, FIRST, self.options.episodes]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def trained(self) -> list[str]:
        """The families of tasks that the arms are trained on."""
        return [family["name"] for family in self.preset()["tasks"]["args"]["environments"]]

    def tasks(self, config: dict[str, Any], split: str, episodes: int, seed: int = 0) -> dict[str, Any]:
        """`episodes` tasks of a split, a fifth of each family, other ones for each seed."""
        part = deepcopy(config["evaluation"]["tasks"])
        families = part["args"]["environments"]
        each = -(-episodes // len(families))
        for family in families:
            family |= {"first": FIRST[split] + seed * each, "count": each}
        return part

    def run(self, command: str, name: str, config: dict[str, Any]) -> Path:
        """One `gymnast` run; its folder. Finished ones are skipped, interrupted ones go on."""
        folder = self.output / name
        if (folder / "summary.json").exists():
            return folder
        self.output.mkdir(parents=True, exist_ok=True)
        file = self.output / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**config, "output": str(folder)}, sort_keys=False))
        known = (folder / "config.yaml").exists()
        arguments = ["--resume", str(folder)] if known else [str(file)]
        with (self.output / f"{name}.log").open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", "gymnast_core.cli", command, *arguments],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
            )  # fmt: skip
        # The exit status of a gate says its verdict.
        if done.returncode and not (folder / "summary.json").exists():
            raise SystemExit(f"{command} {name} ended with {done.returncode}; see {log.name}.")
        print(f"{name}: done", flush=True)
        return folder

    def together(self, work: Sequence[Callable[[], Path]]) -> list[Path]:
        with ThreadPoolExecutor(self.options.jobs) as pool:
            return [future.result() for future in [pool.submit(one) for one in work]]


def gate(bench: Bench, name: str = "gate", checkpoint: str | None = None) -> Path:
    config = bench.preset()
    config["tasks"] = bench.tasks(config, "choosing", 400)
    config["kind"] = "gate"
    if checkpoint is not None:
        config["policy"]["args"]["checkpoint"] = checkpoint
    return bench.run("gate", name, config)


def arm(bench: Bench, name: str, seed: int) -> Path:
    """One training, from one seed, measured on that seed's reporting tasks; the supervised policy that all arms begin
    with once, by the first of them."""
    config = bench.preset() | deepcopy(ARMS[name])
    config["evaluation"]["before"] = name == FIRST_ARM
    if config["world_model"] == "evaluation":
        config["world_model"] = deepcopy(config["evaluation"]["world"])
    for family in config["tasks"]["args"]["environments"]:
        family["first"] = FIRST["training"] + 1000 * seed
    config["evaluation"]["tasks"] = bench.tasks(config, "reporting", bench.options.episodes, seed)
    config["seed"] = seed
    return bench.run("train", f"{name}-{seed}", config)


def gains(bench: Bench) -> None:
    """Every gain on choosing tasks; the best one on each seed's reporting tasks."""
    supervised = Path(bench.preset()["policy"]["args"]["checkpoint"])
    policies = {
        f"gain-{gain}": str(policy_with_gain(supervised, gain, bench.output / "policies" / f"gain-{gain}"))
        for gain in GAINS
    }
    chosen = evaluation(bench, "gains-choosing", policies, "choosing", 0, imagine=False)
    best = best_policy(read_trials(chosen / "results.jsonl"), bench.trained())
    for seed in range(1, 1 + bench.options.seeds):
        evaluation(bench, f"gain-{seed}", {best: policies[best]}, "reporting", seed, imagine=False)


def best_policy(trials: Sequence[Trial], families: Sequence[str]) -> str:
    """The policy with the most successes on tasks of these families; the first of equals."""
    successes: Counter[str] = Counter()
    for trial in trials:
        successes[trial.policy] += trial.value == 1 and family_of(trial.task) in families
    return max(successes, key=lambda policy: successes[policy])


def evaluation(bench: Bench, name: str, policies: dict[str, str], split: str, seed: int, *, imagine: bool) -> Path:
    config = bench.preset()
    worlds = {"simulator": config["evaluation"]["world"], "imagination": config["world_model"]}
    rewards = {"simulator": config["evaluation"]["reward_model"], "imagination": config["reward_model"]}
    shown = ["simulator", "imagination"] if imagine else ["simulator"]
    policy = config["policy"]
    return bench.run(
        "evaluate",
        name,
        {
            "kind": "evaluate",
            "policies": {
                label: {"name": policy["name"], "args": {**policy["args"], "checkpoint": checkpoint}}
                for label, checkpoint in policies.items()
            },
            "worlds": {world: worlds[world] for world in shown},
            "rewards": {world: rewards[world] for world in shown},
            "tasks": bench.tasks(config, split, bench.options.episodes, seed),
            "horizon": config["loop"]["horizon"],
            "temperature": config["evaluation"]["temperature"],
            "seed": seed,
        },
    )


def agreement(bench: Bench) -> None:
    """Policies on choosing tasks, in both worlds: supervised, gains, noised, and those trained with two seeds."""
    supervised = Path(bench.preset()["policy"]["args"]["checkpoint"])
    policies = {"supervised": str(supervised)}
    for gain in GAINS:
        policies[f"gain-{gain}"] = str(policy_with_gain(supervised, gain, bench.output / "policies" / f"gain-{gain}"))
    for noise in NOISES:
        target = bench.output / "policies" / f"noise-{noise}"
        policies[f"noise-{noise}"] = str(policy_with_noise(supervised, noise, target, seed=0))
    for name in ARMS:
        for seed in (1, 2):
            trained = bench.output / f"{name}-{seed}" / "policy"
            if (trained.parent / "summary.json").exists():
                policies[f"{name}-{seed}"] = str(trained)
    evaluation(bench, "agreement", policies, "choosing", 1, imagine=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter that has metaworld; without it: this one")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--output", type=Path, default=Path("runs/metaworld-benchmark"))
    parser.add_argument("--table", action="store_true", help="only write the results that are there")
    options = parser.parse_args()
    bench = Bench(options)
    if not options.table:
        for part in options.parts:
            run_part(bench, part)
    print(write_results(options.output, RESULTS, bench.trained(), bench.identity()))


def run_part(bench: Bench, part: str) -> None:
    seeds = range(1, 1 + bench.options.seeds)
    if part == "gate":
        gate(bench)
    elif part == "arms":
        bench.together([partial(arm, bench, name, seed) for seed in seeds for name in bench.options.arms])
    elif part == "gains":
        gains(bench)
    elif part == "judge":
        trained = {f"gate-{seed}": bench.output / f"imagination-{seed}" / "policy" for seed in seeds}
        trained |= {
            f"gate-simulator-{seed}": bench.output / f"simulator-{seed}" / "policy" for seed in seeds if seed <= 2
        }
        bench.together([partial(gate, bench, name, str(policy)) for name, policy in trained.items()])
    else:
        agreement(bench)


if __name__ == "__main__":
    main()
