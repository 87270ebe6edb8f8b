"""WoVR's ablation (arXiv 2602.13977) on the tabletop: keyframe starts, masking, co-evolution, each alone and together.

    pip install -e contrib/gymnast-wovr
    python benchmarks/paper_wovr.py --pilot                              # first: power, on the split "choosing"
    python benchmarks/paper_wovr.py [--from-seed 1] [--seeds 5] [--episodes 400] [--jobs 2] [--output runs/paper-wovr]

Every arm trains the shipped supervised policy in the shipped world model, with as many imagined frames (iterations x
tasks x group x horizon of the preset `tabletop`). The learning rate does not fall, since arms take other numbers of
gradient steps (the page lists them): groups whose rollouts are all judged alike teach nothing. The judge compares ends
with the first frame of the episode, also where the policy begins in its midst:

  sft             no training
  plain           GRPO from first frames, judged at the end
  + keyframes     half of the starts lie 4 actions before the end of a failed episode of the supervised policy, with the
                  first frame and the last 4 as context (`keyframe-tasks`)
  + masking       clips of 4, 8, 12 and 16 actions are judged, the first success counts, and what follows it is not
                  learned from (`first-hit`, `masked-grpo`): reward and mask are one idea, and are tried as one
  + co-evolution  halfway, the policy acts in the simulator, and world model and judge are refitted on what happened
                  (`co-evolving`; as many steps as in a round of the preset `dyna-tabletop`)
  all three

The failed episodes are recorded in the simulator before (`gymnast collect`, one recording a seed). Frames of the
simulator are not part of the budget: the arms with keyframes see those of the recording, those with co-evolution those
of the rollouts halfway. `gymnast bench` trains, `gymnast evaluate` measures greedily in the simulator, on the same
tasks of the split "reporting". What was killed goes on where it was; what ended is not repeated. Writes
benchmarks/results/paper_wovr.{json,md}.

Cost, estimated, in core minutes a seed: plain 2.5, keyframes 3 and the recording 0.4, masking 3, co-evolution 2.5 and
the refit 3.7, all three 7.5, evaluation 0.5: 23, which is 115 for 5 seeds and 46 for the pilot.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from commands import gymnast, gymnast_at_once
from paper_parts import (
    ROOT,
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
    written,
)
from paper_statistics import FIRST_REPORTED

from gymnast_core.config import ComponentConfig, RunConfig, load_config
from gymnast_core.config.load import merged, parse_overrides
from gymnast_core.plugins.compose import registries
from gymnast_dyna.config import DynaConfig

FIRST_TASK = FIRST_REPORTED["wovr"]
"""Index of the first task in the splits "reporting" and "choosing": none that another benchmark looks at."""
FIRST_START, STARTS = 640_000_000, 4096
"""First frames that arms train from: index in the split "training" for seed 0, and how many each seed has."""
FIRST_EPISODE, EPISODES_APART = 820_000_000, 1_000_000
"""Environment seeds of the recorded episodes."""
GRPO = {
    "group_size": 8, "accuracy_bounds": [0.01, 0.99], "learning_rate": 1.5e-4, "warmup_updates": 10,
    "learning_rate_decay_updates": None, "minibatch_size": 96, "epochs": 3,
}  # fmt: skip
"""As in the preset `tabletop`, without its decay. Said outright, since the arms with `grpo` would inherit it."""
KEYFRAMES = {"share": 0.5, "context": 4, "lead": 4, "still_action": [0.0, 0.0], "count": 256}
EVERY = 4
"""Actions from clip to clip of `first-hit`."""
NEEDED = (
    ("datasets", "keyframe-tasks"), ("reward_models", "first-hit"), ("optimizers", "masked-grpo"),
    ("world_models", "co-evolving"),
)  # fmt: skip

CLAIMS = (
    Claim("plain", "sft", "reinforcement learning in imagination improves on supervision"),
    Claim("+ keyframes", "plain", "starts shortly before a failure help"),
    Claim("+ masking", "plain", "to judge clips, and not to learn from what follows a success, helps"),
    Claim("+ co-evolution", "plain", "a world model that is refitted on the way helps"),
    Claim("all three", "plain", "the three together help"),
)


def check_installed() -> None:
    """Raises `SystemExit` unless the parts of gymnast-wovr are there."""
    known = registries()
    missing = [name for kind, name in NEEDED if name not in getattr(known, kind).names()]
    if missing:
        raise SystemExit(
            f"gymnast-wovr is not installed: {', '.join(missing)} not found. Install it: "
            f"pip install -e {ROOT / 'contrib/gymnast-wovr'}"
        )


def arms(seed: int, recording: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """Overrides of the preset `tabletop` for every arm that is trained."""
    starts = {
        "name": "tabletop",
        "args": {"split": "training", "first": FIRST_START + STARTS * seed, "count": STARTS, "image_size": 32},
    }
    failures = {"name": "lerobot", "args": {"path": str(recording)}}
    mixed = {"first": starts, "episodes": failures, "seed": seed, **KEYFRAMES}
    base = load_config(DynaConfig, "dyna-tabletop")
    judge = asdict(base.reward_model)
    judge["args"] = {**judge["args"], "compared_with": "context"}
    clips = {"reward_model": judge, "every": EVERY}
    first, keyframes = _set("tasks", starts), _set("tasks", {"name": "keyframe-tasks", "args": mixed})
    plain = _set("optimizer", {"name": "grpo", "args": GRPO})
    once = _set("reward_model", judge)
    masked = [
        _set("optimizer", {"name": "masked-grpo", "args": GRPO}),
        _set("reward_model", {"name": "first-hit", "args": clips}),
    ]
    evolving = _set("world_model", {"name": "co-evolving", "args": co_evolution(base, options)})
    return {
        "plain": [first, plain, once],
        "+ keyframes": [keyframes, plain, once],
        "+ masking": [first, *masked],
        "+ co-evolution": [first, plain, once, evolving],
        "all three": [keyframes, *masked, evolving],
    }


def co_evolution(base: DynaConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `co-evolving`: halfway, with the refits of a round of the preset `dyna-tabletop`."""
    assert base.world is not None and base.judge is not None
    shorter = {"fit": parse_overrides(options.refit)}
    # The executed episodes end where nothing moves any more: the judge takes them whole, not in crops of one length.
    judge = {**asdict(base.judge), "recorded": {"name": "lerobot", "args": {}}}
    del judge["imagined"]  # what rounds have beyond a refit within a run
    return {
        "world_model": asdict(base.world_model),
        "at": [options.iterations // 2],
        "rollouts": options.rollouts,
        "world": merged(asdict(base.world), shorter),
        "judge": merged(judge, shorter),
    }


def _set(key: str, component: Mapping[str, Any]) -> str:
    return f"{key}={json.dumps(component)}"


def matrix(seeds: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """What `gymnast bench` is told."""
    adjust = []
    for seed in seeds:
        for name, own in arms(seed, recording(seed, options) / "episodes", options).items():
            adjust.append({"when": {"arm": name, "seed": seed}, "overrides": [*own, *options.train]})
    return {
        "kind": "bench",
        "base": "tabletop",
        "axes": {"arm": {name: [] for name in arms(0, Path("recording"), options)}},
        "adjust": adjust,
        "overrides": [f"loop.iterations={options.iterations}", "evaluation.tasks=null", "check_saved=false"],
        "seeds": list(seeds),
        "jobs": options.jobs,
        "threads": 1,
        "output": str(options.output / "bench"),
    }


def recording(seed: int, options: argparse.Namespace) -> Path:
    """Folder of what the supervised policy did, of one seed."""
    folder: Path = options.output / f"recording-{seed}"
    return folder


def record(seed: int, options: argparse.Namespace) -> list[str]:
    """Arguments of `gymnast collect`: the supervised policy, sampled as in training."""
    first = FIRST_EPISODE + EPISODES_APART * seed
    values = {
        "kind": "collect",
        "environments": [
            {
                "id": "gymnast/Tabletop-v0", "name": "tabletop", "args": {"image_size": 32, "horizon": 16},
                "first": first, "count": options.recorded,
            }
        ],
        "view": {"instruction_key": "instruction", "outcomes_key": "outcomes"},
        "actor": {"kind": "policy", "policy": asdict(shipped(options)), "temperature": 1.0},
        "horizon": 16, "seed": seed, "output": str(recording(seed, options)),
    }  # fmt: skip
    folder = recording(seed, options)
    file = written(folder.with_suffix(".yaml"), merged(values, parse_overrides(options.collect)))
    return begin_or_resume("collect", folder, [str(file)])


def shipped(options: argparse.Namespace) -> ComponentConfig:
    """The supervised policy."""
    return load_config(RunConfig, "tabletop", options.train).policy


def train(seeds: Sequence[int], options: argparse.Namespace) -> dict[tuple[str, int], Path]:
    """(arm, seed) -> the policy. Raises `SystemExit` if a training has no result."""
    wanted = [seed for seed in seeds if not (recording(seed, options) / "summary.json").exists()]
    gymnast_at_once(
        [(record(seed, options), recording(seed, options).with_suffix(".log")) for seed in wanted], options.jobs
    )
    folder = options.output / f"bench-{split_of(options)}"
    values = {**matrix(seeds, options), "output": str(folder)}
    file = written(folder.with_suffix(".yaml"), values)
    # More seeds than before take the place of what is resumed.
    again = ["--resume", str(folder), "retry=true"] if (folder / "config.yaml").exists() else []
    gymnast("bench", str(file), *again, log=folder.with_suffix(".log"))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    if problems := [f"{row['cell']}: {row['status']}. {row['reason']}" for row in rows if row["status"] != "done"]:
        raise SystemExit("Trainings without a result (the same command tries them again):\n" + "\n".join(problems))
    return {(row["labels"]["arm"], row["seed"]): folder / "cells" / row["cell"] / "run/policy" for row in rows}


def measured(found: Mapping[tuple[str, int], Path], seeds: Sequence[int], options: argparse.Namespace) -> Trials:
    """Every arm, and the policy that they began with, in the simulator."""
    names = ["sft", *dict.fromkeys(arm for arm, _ in found)]
    trials = {}
    for seed in seeds:
        tasks = {
            "split": split_of(options), "first": FIRST_TASK + seed * options.episodes, "count": options.episodes,
            "image_size": 32,
        }  # fmt: skip
        policies = {"sft": Path(str(shipped(options).args["checkpoint"]))}
        policies |= {arm: path for (arm, of), path in found.items() if of == seed}
        target = options.output / f"evaluation-{seed}-{split_of(options)}-{options.episodes}"
        values = measure(policies, tasks, seed, target, options.evaluate)
        trials.update({(arm, seed): values[arm] for arm in names})
        print(f"seed {seed}: measured", flush=True)
    return {(arm, seed): trials[arm, seed] for arm in names for seed in seeds}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """What goes into the results: of the pilot, or of the run."""
    check_installed()
    settings = {
        "iterations": options.iterations, "recorded": options.recorded, "rollouts": options.rollouts,
        "keyframes": KEYFRAMES, "every": EVERY,
        "overrides": [*options.train, *options.refit, *options.collect],
    }  # fmt: skip
    options.output = begin(options.output, settings)
    seeds = seeds_of(options)
    trained = train(seeds, options)
    found = outcome(CLAIMS, measured(trained, seeds, options), settings, options)
    return found if options.pilot else {**found, "steps": steps(trained)}


def steps(trained: Mapping[tuple[str, int], Path]) -> dict[str, list[int]]:
    """Gradient steps of each arm, by seed; `trained` has each one's policy."""
    found: dict[str, list[int]] = {}
    for (arm, _), policy in trained.items():
        found.setdefault(arm, []).append(int(json.loads((policy.parent / "summary.json").read_text())["updates"]))
    return found


def about(options: argparse.Namespace, found: Mapping[str, Any]) -> str:
    taken = "; ".join(f"{arm} {sum(row) / len(row):.0f}" for arm, row in found.get("steps", {}).items())
    listed = f" Gradient steps, means over seeds: {taken}." if taken else ""
    return (
        f"`python benchmarks/paper_wovr.py`. Every arm but sft takes {options.iterations} iterations of 48 x 8 "
        f"imagined rollouts of 16 actions. Keyframes lie in failures among {options.recorded} recorded episodes of the "
        f"supervised policy; co-evolution refits world model and judge once, on {options.rollouts} rollouts in the "
        f"simulator.{listed}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/paper-wovr")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--recorded", type=int, default=400, help="episodes in which failures are looked for")
    parser.add_argument("--rollouts", type=int, default=400, help="rollouts in the simulator for co-evolution")
    parser.add_argument("--train", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every training")
    parser.add_argument("--refit", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of refits: fit.steps=2")
    parser.add_argument("--collect", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of every recording")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    title = "Keyframes, masking, co-evolution"
    found = with_earlier(run(options), "paper_wovr", CLAIMS, options)
    print(save("paper_wovr", options.results, title, about(options, found), found))


if __name__ == "__main__":
    main()
