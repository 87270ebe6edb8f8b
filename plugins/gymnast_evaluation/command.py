"""Every policy in every world on the same tasks and seeds, and the paired differences between policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gymnast_core.hooks import Notify
from gymnast_core.registry import registries
from gymnast_core.snapshot import open_run_folder, write_json
from gymnast_evaluation.config import EvaluateConfig
from gymnast_evaluation.evaluate import evaluate, load_tasks
from gymnast_evaluation.statistics import Evaluation, paired_difference


def evaluate_command(config: EvaluateConfig) -> dict[str, Any]:
    """`gymnast evaluate`: every policy in every world on the same tasks and seeds; writes and returns the results."""
    known = registries()
    tasks = load_tasks(config.tasks, config.episodes)
    config, path = open_run_folder(config, "evaluate")
    hook = Notify()
    results: dict[str, dict[str, Evaluation]] = {}
    for label, part in config.policies.items():
        policy = known.policies.build(part.name, part.args)
        results[label] = {}
        for world_label, world_part in config.worlds.items():
            judge_part = config.rewards[world_label]
            world = known.world_models.build(world_part.name, world_part.args)
            judge = known.reward_models.build(judge_part.name, judge_part.args)
            name = f"{label}-in-{world_label}"
            try:
                result, rollouts, rewards = evaluate(
                    policy, world, judge, tasks, label=name, names=(world_part.name, judge_part.name),
                    horizon=config.horizon, temperature=config.temperature, seed=config.seed,
                    batch_size=config.batch_size,
                )  # fmt: skip
            finally:
                world.close()
                judge.close()
            results[label][world_label] = result
            write_json(path / "evaluations" / f"{name}.json", asdict(result))
            hook.gymnast_evaluation_done(
                config=config, label=name, world=world_part.name, rollouts=rollouts, rewards=rewards
            )
    summary = summarise(results)
    write_json(path / "summary.json", summary)
    hook.gymnast_run_done(config=config, summary=summary)
    return {"output": str(path), **summary}


def summarise(results: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Any]:
    """Rates and intervals per policy and world, and differences from the first policy, paired by task."""
    first = next(iter(results))
    table = {
        label: {
            w: {"rate": e.rate, "interval": list(e.interval), "n": e.n, "unscored": e.unscored} for w, e in row.items()
        }
        for label, row in results.items()
    }
    differences = {
        label: {world: asdict(paired_difference(results[first][world], row[world])) for world in row}
        for label, row in results.items()
        if label != first
    }
    return {"results": table, "differences_from": first, "differences": differences}
