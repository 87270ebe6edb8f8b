"""Does imagination rank policies as the simulator does? Twelve policies of different quality, both worlds, intervals.

    python benchmarks/fidelity.py [--episodes 256] [--seed 1] [--output runs/fidelity]

Everything is made from the committed checkpoints, in about 10 minutes of one core (killed, it goes on where it was):

  shipped         the supervised policy
  gain-G          its actions times G: 0.5, 0.75, 1.25, 1.5, 2
  noise-S         its weights plus Gaussian noise of S standard deviations of each tensor: 0.1, 0.2
  grpo-N          after N iterations of GRPO in imagination, rewarded by the success classifier: 2, 4, 8
  coin-flips-4    after 4 iterations of GRPO in imagination, rewarded by chance

`gymnast evaluate evaluate-tabletop` then rolls all of them out on the same tasks of the split "reporting", greedily, in
imagination (WorldGym, judged by the success classifier) and in the simulator (its own verdict). Writes
benchmarks/results/fidelity.{json,md,svg}; runs/fidelity/evaluation-*/evaluation.html has every trial.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from policy_variants import gymnast, policy_with_gain, policy_with_noise, snapshots_of_training
from tabletop_parts import preset

GAINS = (0.5, 0.75, 1.25, 1.5, 2.0)
NOISES = (0.1, 0.2)
GRPO_ITERATIONS = (2, 4, 8)
COIN_FLIP_ITERATIONS = (4,)
FIRST_TASK = 200_000
"""Index in the split "reporting" of the first task: none that another benchmark reports on."""


def make_policies(folder: Path, seed: int) -> dict[str, Path]:
    """Label -> checkpoint folder of every policy but the shipped one; what exists already is kept."""
    shipped = Path(preset().policy.args["checkpoint"])
    targets = {f"gain-{gain}": folder / f"gain-{gain}" for gain in GAINS}
    for gain in GAINS:
        if not targets[f"gain-{gain}"].exists():
            policy_with_gain(shipped, gain, targets[f"gain-{gain}"])
    for scale in NOISES:
        targets[f"noise-{scale}"] = folder / f"noise-{scale}"
        if not targets[f"noise-{scale}"].exists():
            policy_with_noise(shipped, scale, targets[f"noise-{scale}"], seed=seed)
    runs = {
        "grpo": (GRPO_ITERATIONS, []),
        "coin-flips": (COIN_FLIP_ITERATIONS, ["reward_model={name: random, args: {probability: 0.4}}"]),
    }
    for name, (iterations, overrides) in runs.items():
        paths = [folder / f"{name}-{count}" for count in iterations]
        common = [f"seed={seed}", f"tasks.args.first={seed * 4096}", "evaluation.tasks=null"]
        snapshots_of_training(folder / f"run-{name}", [*overrides, *common], iterations, paths)
        targets |= {path.name: path for path in paths}
    return targets


def evaluate_policies(policies: dict[str, Path], episodes: int, seed: int, folder: Path) -> dict[str, Any]:
    """summary.json of `gymnast evaluate` in both worlds."""
    parts = {label: {"name": "openvla-oft", "args": {"checkpoint": str(path)}} for label, path in policies.items()}
    tasks = {"split": "reporting", "first": FIRST_TASK, "count": episodes, "image_size": 32}
    overrides = [
        f"policies={json.dumps(parts)}", f"tasks={{name: tabletop, args: {json.dumps(tasks)}}}", f"seed={seed}",
        "batch_size=64",
    ]  # fmt: skip
    known = (folder / "config.yaml").exists()
    start = ["--resume", str(folder)] if known else ["evaluate-tabletop", *overrides, f"output={folder}"]
    gymnast("evaluate", *start, log=folder.with_suffix(".log"))
    return json.loads((folder / "summary.json").read_text())


def report(summary: dict[str, Any], seed: int) -> str:
    """The Markdown page."""
    found, rankings = summary["agreement"]["imagination"], summary["rankings"]
    rows = sorted(summary["results"].items(), key=lambda item: -item[1]["simulator"]["rate"])
    lines = [
        f"Policies on the same {summary['starts']} reporting tasks, greedy, success in % [95 %], seed {seed}.",
        "",
        "| policy | simulator | imagination | difference | probability of its rank: simulator, imagination |",
        "|---|---|---|---|---|",
    ]
    for label, row in rows:
        ranks = [rankings[world]["policies"].index(label) for world in ("simulator", "imagination")]
        shares = [
            f"{rankings[world]['rank_probability'][rank][rank]:.2f} (#{rank + 1})"
            for world, rank in zip(("simulator", "imagination"), ranks, strict=True)
        ]
        difference = 100 * (row["imagination"]["rate"] - row["simulator"]["rate"])
        lines.append(
            f"| {label} | {_rate(row['simulator'])} | {_rate(row['imagination'])} | {difference:+.1f} "
            f"| {', '.join(shares)} |"
        )
    lines += ["", "| imagination against simulator | value | over trials | over policies |", "|---|---|---|---|"]
    for name, key in (("Pearson r", "pearson"), ("Spearman", "spearman")):
        lines.append(_correlation(name + f", {len(found['policies'])} policies", found[key]))
    for name, key in (("Pearson r", "pearson_by_task"), ("Spearman", "spearman_by_task")):
        lines.append(_correlation(name + f", {found[key]['n']} policy × instruction cells", found[key]))
    for name, key, sign in (("MMRV", "mean_maximum_rank_violation", ""), ("mean difference", "mean_difference", "+")):
        interval = " to ".join(f"{100 * bound:{sign}.1f}" for bound in found[key]["over_trials"] or ())
        lines.append(f"| {name}, points | {100 * found[key]['value']:{sign}.1f} | {interval} | |")
    taus = {world: rankings[world] for world in ("simulator", "imagination")}
    lines += [
        "",
        f"Same verdict on {100 * found['same_outcome']:.1f} % of {found['trials']} trials, Cohen's kappa "
        f"{found['kappa']:.2f}. {summary['unscored']} unscored. Ranking in resamples of the tasks, Kendall's tau: "
        + ", ".join(
            f"{world} {ranking['kendall_tau']:.2f} [{ranking['kendall_tau_interval'][0]:.2f}, "
            f"{ranking['kendall_tau_interval'][1]:.2f}]"
            for world, ranking in taus.items()
        )
        + ".",
        "",
        '"Over trials": for other starts, these policies (bootstrap). "Over policies": for other policies (Fisher z).',
    ]
    return "\n".join(lines) + "\n"


def _rate(cell: dict[str, Any]) -> str:
    return f"{100 * cell['rate']:.1f} [{100 * cell['interval'][0]:.1f}, {100 * cell['interval'][1]:.1f}]"


def _correlation(name: str, found: dict[str, Any]) -> str:
    intervals = [found["over_trials"], found["over_policies"]]
    shown = ["" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}" for bounds in intervals]
    return f"| {name} | {found['value']:.3f} | {shown[0]} | {shown[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/fidelity"))
    options = parser.parse_args()
    began = time.monotonic()
    policies = make_policies(options.output / f"policies-{options.seed}", options.seed)
    print(f"{len(policies) + 1} policies after {time.monotonic() - began:.0f} s", file=sys.stderr)
    summary = evaluate_policies(
        policies, options.episodes, options.seed, options.output / f"evaluation-{options.seed}-{options.episodes}"
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = f"{used.ru_utime + used.ru_stime:.0f} s of CPU time"
    print(f"evaluated after {time.monotonic() - began:.0f} s, {cpu}", file=sys.stderr)
    write_results(summary, options.seed)


def write_results(summary: dict[str, Any], seed: int) -> None:
    from gymnast_evaluation.scatter import policy_scatter

    text = report(summary, seed)
    for cells in summary["results"].values():
        for cell in cells.values():
            del cell["tasks"]  # rates by task are in the agreement; their intervals would be most of the file
    results = Path(__file__).parent / "results"
    (results / "fidelity.md").write_text(text)
    (results / "fidelity.json").write_text(json.dumps(summary, indent=1) + "\n")
    (results / "fidelity.svg").write_text(policy_scatter(summary, "imagination").svg(standalone=True))
    print(text)


if __name__ == "__main__":
    main()
