"""A world model that hallucinates on purpose, and rewards that notice: what becomes of the policy in the simulator.

    python benchmarks/hallucination.py [--seeds 3] [--iterations 8] [--tasks 32] [--episodes 400] [--jobs 2]
                                       [--output runs/hallucination]

The preset `tabletop-wishful`: in 60 % of its imaginations the block that the instruction names slides where it was
asked to go while the arm is slow. All arms run GRPO from the shipped supervised policy, equally many iterations, tasks
and rollouts:

  healthy     the world model as it is (preset `tabletop`)
  fooled      the wishful one, judged once
  twice       the same; a success must come back in two further imaginations (reward `twice`)
  uncertain   the same; rollouts on which three imaginations disagree are masked (reward `uncertain`)

Success is that of greedy actions in the simulator on held-out tasks (split "reporting", other ones for each seed),
before and after. "Recovered" is how much of what `fooled` loses against `healthy` an arm has. Rewards that imagine
again cost more frames: up to 3 times. Runs that ended are not repeated, killed ones go on. Writes
benchmarks/results/hallucination.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from commands import gymnast_at_once
from scipy import stats

from gymnast_core.runs.metrics import read_metrics

RESULTS = Path(__file__).parent / "results"
CHECKPOINT = Path(__file__).parents[1] / "plugins/gymnast_tabletop/checkpoints/success_classifier"
JUDGE = f"{{name: success-classifier, args: {{checkpoint: {CHECKPOINT}}}}}"
ARMS: dict[str, list[str]] = {
    "healthy": ["tabletop"],
    "fooled": ["tabletop-wishful"],
    "twice": ["tabletop-wishful", f"reward_model={{name: twice, args: {{judge: {JUDGE}, rounds: 2}}}}"],
    "uncertain": [
        "tabletop-wishful",
        f"reward_model={{name: uncertain, args: {{judge: {JUDGE}, frames: end, threshold: 0.003}}}}",
        "loop.rescore=0", "loop.max_error_rate=1.0",
    ],
}  # fmt: skip
FIRST_REPORTED = 800_000
"""Index of the first reporting task: none that another benchmark looks at."""


def command(arm: str, seed: int, folder: Path, options: argparse.Namespace) -> list[str]:
    """What begins a run in its folder, or goes on with it."""
    if (folder / "config.yaml").exists():
        return ["train", "--resume", str(folder)]
    preset, *changes = ARMS[arm]
    return [
        "train", preset, *changes, f"seed={seed}", f"loop.iterations={options.iterations}",
        f"loop.tasks_per_iteration={options.tasks}", f"tasks.args.first={seed * 4096}", "evaluation.videos=0",
        f"evaluation.tasks.args.first={FIRST_REPORTED + seed * options.episodes}",
        f"evaluation.tasks.args.count={options.episodes}", "check_saved=false", f"output={folder}",
    ]  # fmt: skip


def measured(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "summary.json").read_text())
    rows = read_metrics(folder / "metrics.csv")
    return {
        "before": summary["before"]["rate"],
        "after": summary["after"]["rate"],
        "imagined": float(rows[-1]["imagined_success"]),
        "unscored": float(np.mean([float(row["unscored"]) for row in rows])),
    }


def summary(found: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    rates = {arm: {key: [one[key] for one in seeds] for key in seeds[0]} for arm, seeds in found.items()}
    lost = np.array(rates["healthy"]["after"]) - np.array(rates["fooled"]["after"])
    recovered = {}
    for arm in ("twice", "uncertain"):
        back = np.array(rates[arm]["after"]) - np.array(rates["fooled"]["after"])
        test = stats.ttest_rel(rates[arm]["after"], rates["fooled"]["after"]) if len(back) > 1 else None
        recovered[arm] = {
            "share": float(back.mean() / lost.mean()) if lost.mean() > 0 else None,
            "p": None if test is None else float(test.pvalue),
        }
    return {"arms": rates, "lost": float(lost.mean()), "recovered": recovered}


def page(data: Mapping[str, Any], options: argparse.Namespace) -> str:
    seeds = options.seeds
    lines = [
        "# A world model that hallucinates on purpose",
        "",
        f"`python benchmarks/hallucination.py --seeds {seeds} --iterations {options.iterations} "
        f"--tasks {options.tasks} --episodes {options.episodes}`: success in the simulator, %, mean ± standard error "
        f"over {seeds} seeds of {options.episodes} held-out tasks, greedy actions.",
        "",
        "| arm | before | after | by seed | judged in imagination at the end | recovered of the loss | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, one in data["arms"].items():
        back = data["recovered"].get(arm)
        share = "" if back is None or back["share"] is None else f"{100 * back['share']:.0f} %"
        p = "" if back is None or back["p"] is None else f"{back['p']:.2g}"
        lines.append(
            f"| {arm} | {_spread(one['before'])} | {_spread(one['after'])} | "
            + ", ".join(f"{100 * rate:.1f}" for rate in one["after"])
            + f" | {_spread(one['imagined'])} | {share} | {p} |"
        )
    lines += ["", "p: paired t test over seeds against `fooled`, not corrected."]
    return "\n".join(lines) + "\n"


def _spread(rates: list[float]) -> str:
    error = 100 * np.std(rates, ddof=1) / np.sqrt(len(rates)) if len(rates) > 1 else float("nan")
    return f"{100 * np.mean(rates):.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/hallucination"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    wanted = [(arm, seed) for seed in range(1, options.seeds + 1) for arm in ARMS]
    folders = [options.output / f"{arm}-{seed}" for arm, seed in wanted]
    commands = [
        (command(arm, seed, folder, options), folder.with_suffix(".log"))
        for (arm, seed), folder in zip(wanted, folders, strict=True)
        if not (folder / "summary.json").exists()
    ]
    gymnast_at_once(commands, options.jobs)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for (arm, _), folder in zip(wanted, folders, strict=True):
        found[arm].append(measured(folder))
    data = summary(found)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hallucination.json").write_text(json.dumps(data, indent=1) + "\n")
    (RESULTS / "hallucination.md").write_text(page(data, options))
    print(page(data, options))


if __name__ == "__main__":
    main()
