"""The main experiment over several seeds: RL in imagination against its controls, all measured in the simulator.

    python benchmarks/tabletop.py [--seeds 5] [--bound-seeds 2] [--episodes 512] [--jobs 2] [--arms ...]
                                  [--output runs/benchmark]

For every seed, from the shipped supervised policy and on the same held-out episodes (split "reporting", 512 fresh ones
a seed, greedy actions):

  grpo           GRPO inside the world model, rewarded by the success classifier
  iter-sft       imitation of the successful rollouts of the same number of imagined rollouts, 1:1 with demonstrations
  random-reward  GRPO inside the world model, rewarded by coin flips
  oracle-reward  GRPO inside the world model, rewarded by the simulator's verdict on replayed actions (--bound-seeds)
  simulator      GRPO in the simulator itself, as many rollouts
  shorter-sft    GRPO inside the world model, from a policy that was supervised a third as long (--bound-seeds)
  gain-G         no learning: the supervised policy's actions times G

Every run is `gymnast train tabletop` with overrides, in its own process, and is skipped if it has ended already. Then
the success in imagination of all policies is compared with their success in the simulator. Writes
benchmarks/results/tabletop.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from policy_variants import policy_with_gain
from tabletop_parts import breakdown, build, check_demonstrations, preset, tasks_of

from gymnast_core.statistics import success_interval
from gymnast_evaluation.agreement import agreement
from gymnast_evaluation.evaluate import evaluate

ARMS = {
    "grpo": [],
    "iter-sft": [
        "optimizer={name: iter-sft, args: {group_size: 8, learning_rate: 1.5e-4, warmup_updates: 10, "
        "learning_rate_decay_updates: 110, minibatch_size: 96, epochs: 3}}",
        "demonstrations={name: tabletop-episodes, args: {path: data/slow-demos}}",
    ],
    "random-reward": ["reward_model={name: random, args: {probability: 0.4}}"],
    "oracle-reward": ["reward_model=environment"],
    "simulator": ["world_model=gymnasium", "reward_model=environment"],
    "shorter-sft": ["policy.args.checkpoint={output}/supervised-shorter/checkpoint"],
}
BOUNDS = ("oracle-reward", "shorter-sft")
"""Arms that say what a perfect reward or less supervision would change; they take fewer seeds."""
SHORTER = 900
"""Supervised steps of the arm shorter-sft; the shipped policy took 2,700."""
GAINS = (1.25, 1.5, 2.0)
FAILURES = ("too short", "untouched", "wrong direction", "other block disturbed")


def run_arm(output: Path, arm: str, seed: int, episodes: int) -> Path:
    """One training; its folder. The evaluation tasks of different seeds do not overlap."""
    folder = output / f"{arm}-{seed}"
    if (folder / "summary.json").exists():
        return folder
    command = [sys.executable, "-m", "gymnast_core.cli", "train"]
    if (folder / "config.yaml").exists():
        command += ["--resume", str(folder)]
    else:
        arguments = [part.replace("{output}", str(output)) for part in ARMS[arm]]
        tasks = {"split": "reporting", "first": seed * episodes, "count": episodes, "image_size": 32}
        command += [
            "tabletop", *arguments, f"seed={seed}", f"output={folder}", "evaluation.videos=0",
            f"evaluation.tasks={{name: tabletop, args: {json.dumps(tasks)}}}",
            f"tasks.args.first={seed * 4096}",
        ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = output / f"{arm}-{seed}.log"
    with log.open("a") as handle:
        subprocess.run(command, check=True, stdout=handle, stderr=handle, env=environment)
    print(
        f"{arm} seed {seed}: {json.loads((folder / 'summary.json').read_text())['difference']['mean']:+.3f}", flush=True
    )
    return folder


def supervise_shorter(output: Path) -> Path:
    """The checkpoint of the arm shorter-sft: the shipped policy's recipe with fewer steps."""
    folder = output / "supervised-shorter"
    if not (folder / "summary.json").exists():
        known = ["--resume", str(folder)] if (folder / "config.yaml").exists() else [f"output={folder}"]
        arguments = ["fit", "fit-tabletop-policy", f"fit.steps={SHORTER}", *known]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "gymnast_core.cli", *arguments], check=True, env=environment)
    return folder / "checkpoint"


def measure(checkpoint: Path, seed: int, episodes: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Success of a policy in the simulator and in imagination, on the same reporting tasks, greedy; and each verdict
    by world, NaN where there is none."""
    config = preset(f"policy.args.checkpoint={checkpoint}")
    policy = build("policies", config.policy)
    tasks = tasks_of("reporting", episodes, first=seed * episodes)
    worlds = {
        "simulator": (config.evaluation.world, config.evaluation.reward_model),
        "imagination": (config.world_model, config.reward_model),
    }
    found: dict[str, Any] = {}
    verdicts: dict[str, list[float]] = {}
    for label, (world, judge) in worlds.items():
        result, rollouts, _ = evaluate(
            policy, build("world_models", world), build("reward_models", judge), tasks, label=label,
            names=(world.name, judge.name), horizon=config.loop.horizon, seed=seed,
        )  # fmt: skip
        found[label] = result.rate
        verdicts[label] = [math.nan if episode.value is None else episode.value for episode in result.episodes]
        if label == "simulator":
            found["breakdown"] = breakdown(rollouts)
            unseen = tasks_of("reporting", episodes, first=seed * episodes, pairs="held-out")
            on_unseen, _, _ = evaluate(
                policy, build("world_models", world), build("reward_models", judge), unseen, label="held-out pairs",
                names=(world.name, judge.name), horizon=config.loop.horizon, seed=seed,
            )  # fmt: skip
            found["held_out_pairs"] = on_unseen.rate
    return found, verdicts


def table(rows: dict[str, dict], episodes: int) -> str:
    lines = [
        f"Success in the simulator, %, on {episodes} held-out episodes a seed, mean ± standard error over seeds.",
        "",
        "| training | before | after | gain | gain by seed |",
        "|---|---|---|---|---|",
    ]
    for arm, row in rows.items():
        gains = ", ".join(f"{100 * g:+.1f}" for g in row["gains"])
        lines.append(f"| {arm} | {_pm(row['before'])} | {_pm(row['after'])} | {_pm(row['gains'], '+')} | {gains} |")
    return "\n".join(lines)


def _pm(values: list[float], sign: str = "") -> str:
    mean = f"{100 * np.mean(values):{sign}.1f}"
    return f"{mean} ± {100 * np.std(values, ddof=1) / np.sqrt(len(values)):.1f}" if len(values) > 1 else mean


def summarise_arm(folders: list[Path]) -> dict[str, list]:
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    return {
        "before": [s["before"]["rate"] for s in summaries],
        "after": [s["after"]["rate"] for s in summaries],
        "gains": [s["difference"]["mean"] for s in summaries],
        "intervals": [s["difference"]["interval"] for s in summaries],
        "seconds": [s["seconds"] for s in summaries],
    }


def policy_table(policies: dict[str, dict], episodes: int) -> str:
    lines = [
        f"Policies on the same {episodes} reporting tasks, greedy, %; right: what happened in the simulator.",
        "",
        "| policy | simulator [95 %] | imagination | unseen colour-direction pairs | " + " | ".join(FAILURES) + " |",
        "|---" * (4 + len(FAILURES)) + "|",
    ]
    for name, found in policies.items():
        wins = round(found["simulator"] * episodes)
        low, high = success_interval([1.0] * wins + [0.0] * (episodes - wins))
        reasons = [f"{100 * found['breakdown'].get(key, 0.0):.1f}" for key in FAILURES]
        lines.append(
            f"| {name} | {100 * found['simulator']:.1f} [{100 * low:.1f}, {100 * high:.1f}] "
            f"| {100 * found['imagination']:.1f} | {100 * found['held_out_pairs']:.1f} | " + " | ".join(reasons) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--bound-seeds", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if "iter-sft" in options.arms:
        check_demonstrations()
    seeds = {arm: range(1, 1 + (options.bound_seeds if arm in BOUNDS else options.seeds)) for arm in options.arms}
    shorter = supervise_shorter(options.output) if "shorter-sft" in options.arms else None
    work = [(arm, seed) for seed in range(1, options.seeds + 1) for arm in options.arms if seed in seeds[arm]]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda w: run_arm(options.output, w[0], w[1], options.episodes), work))
    folders = dict(zip(work, done, strict=True))
    rows = {arm: summarise_arm([folders[arm, seed] for seed in seeds[arm]]) for arm in options.arms}
    shipped = Path(build("policies", preset().policy).config.checkpoint)
    checkpoints = {"supervised": shipped}
    if shorter is not None:
        checkpoints["supervised-shorter"] = shorter
    for name, checkpoint in list(checkpoints.items()):
        checkpoints |= {
            f"{name}, gain {gain}": policy_with_gain(checkpoint, gain, options.output / name / f"gain-{gain}")
            for gain in GAINS
        }
    checkpoints |= {f"{arm}-{seed}": folder / "policy" for (arm, seed), folder in folders.items() if seed <= 2}
    measured = {name: measure(path, 0, options.episodes) for name, path in checkpoints.items()}
    policies = {name: found for name, (found, _) in measured.items()}
    imagined, simulated = (
        np.array([verdicts[world] for _, verdicts in measured.values()]) for world in ("imagination", "simulator")
    )
    # The tasks are one group here: benchmarks/fidelity.py also compares cells by instruction.
    starts = np.arange(options.episodes)
    found = agreement(list(policies), imagined, simulated, starts, np.zeros_like(starts))
    assert found is not None
    r, difference = found.pearson, found.mean_difference
    interval = ", ".join(f"{bound:.3f}" for bound in r.over_policies or ())
    text = (
        f"{table(rows, options.episodes)}\n\n{policy_table(policies, options.episodes)}\n\n"
        f"Imagined against simulated success over {len(found.policies)} policies: Pearson r = "
        f"{r.value:.3f} [{interval}], Spearman {found.spearman.value:.3f}, mean difference (imagined - simulated) "
        f"{100 * difference.value:+.1f} points [{100 * difference.over_trials[0]:+.1f}, "
        f"{100 * difference.over_trials[1]:+.1f}], MMRV {100 * found.mean_maximum_rank_violation.value:.1f} points.\n"
    )
    results = Path(__file__).parent / "results"
    (results / "tabletop.md").write_text(text)
    data = {"arms": rows, "policies": policies, "agreement": asdict(found)}
    (results / "tabletop.json").write_text(json.dumps(data, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
