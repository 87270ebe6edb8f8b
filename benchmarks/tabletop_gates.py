"""The three gates before reinforcement learning in imagination, measured on the tabletop's shipped parts.

    python benchmarks/tabletop_gates.py [key=value ...]

(a) the supervised policy succeeds in 15-45 % of *sampled* episodes and moves the named block, not any block;
(b) the reward model's precision on the policy's own imagined rollouts is at least .75, judged by replaying their
    actions in the simulator, on tasks that nothing was trained on;
(c) the optimizer improves the policy with the simulator as world and its verdict as reward.

Prints the numbers and writes benchmarks/results/tabletop_gates.json. Seeds are of the split "choosing".
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tabletop_parts import breakdown, build, preset, tasks_of, with_output

from gymnast_core.config import ComponentConfig
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.statistics import success_interval
from gymnast_core.success import is_success
from gymnast_core.training.run import train
from gymnast_evaluation.evaluate import evaluate

EPISODES = 512


def gate_policy(config) -> dict:
    policy = build("policies", config.policy)
    world, judge = (
        build("world_models", config.evaluation.world),
        build("reward_models", config.evaluation.reward_model),
    )
    found = {}
    for label, temperature in (("sampled", config.loop.temperature), ("greedy", 0.0)):
        result, rollouts, _ = evaluate(
            policy, world, judge, tasks_of("choosing", EPISODES), label=label, names=("gymnasium", "environment"),
            horizon=config.loop.horizon, temperature=temperature,
        )  # fmt: skip
        found[label] = {"success": result.rate, "interval": result.interval, "n": result.n, **breakdown(rollouts)}
    found["passed"] = bool(0.15 <= found["sampled"]["success"] <= 0.45 and found["sampled"]["named_moved_most"] >= 0.75)
    return found


def gate_reward(config) -> dict:
    policy = build("policies", config.policy)
    world, reward = build("world_models", config.world_model), build("reward_models", config.reward_model)
    oracle = build("reward_models", ComponentConfig("environment", {"always_replay": True}))
    rollouts = imagine(
        policy, world, tasks_of("choosing", 2 * EPISODES), horizon=config.loop.horizon,
        temperature=config.loop.temperature, generator=seeded_generator(0, "gate"),
    )  # fmt: skip
    judged = [is_success(r.value) for r in reward.score(rollouts)]
    true = [is_success(r.value) for r in oracle.score(rollouts)]
    both = [t for j, t in zip(judged, true, strict=True) if j]
    caught = [j for j, t in zip(judged, true, strict=True) if t]
    return {
        "n": len(rollouts),
        "imagined_success": sum(judged) / len(judged),
        "true_success_of_same_actions": sum(true) / len(true),
        "agreement": sum(j == t for j, t in zip(judged, true, strict=True)) / len(true),
        "precision": sum(both) / max(len(both), 1),
        "precision_interval": success_interval([float(b) for b in both]),
        "recall": sum(caught) / max(len(caught), 1),
        "passed": sum(both) / max(len(both), 1) >= 0.75,
    }


def gate_optimizer(overrides: list[str]) -> dict:
    choosing = "evaluation.tasks={name: tabletop, args: {split: choosing, count: 512, image_size: 32}}"
    config = preset("world_model=gymnasium", "reward_model=environment", choosing, *overrides)
    with tempfile.TemporaryDirectory() as folder:
        summary = train(with_output(config, f"{folder}/run"))
    return {
        "before": summary["before"],
        "after": summary["after"],
        "difference": summary["difference"],
        "iterations": summary["iterations"],
        "seconds": summary["seconds"],
        "passed": summary["difference"]["interval"][0] > 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the preset tabletop")
    overrides = parser.parse_args().overrides
    config = preset(*overrides)
    found: dict[str, dict] = {}
    for name, gate in (
        ("policy", lambda: gate_policy(config)),
        ("reward", lambda: gate_reward(config)),
        ("optimizer", lambda: gate_optimizer(overrides)),
    ):
        found[name] = gate()
        print(name, json.dumps(found[name], indent=1), flush=True)
    target = Path(__file__).parent / "results" / "tabletop_gates.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Written to {target}. Passed: { ({name: part['passed'] for name, part in found.items()}) }")


if __name__ == "__main__":
    main()
