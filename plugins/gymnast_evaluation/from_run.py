"""`gymnast evaluate RUN`: what an evaluation takes from the folder of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gymnast_core.cli import config_from
from gymnast_core.config import ComponentConfig, RunConfig, load_config, split_arguments
from gymnast_core.config.scalars import read_yaml
from gymnast_core.config.typed import literal
from gymnast_core.errors import ConfigError
from gymnast_core.hub import args_of_saved
from gymnast_core.plugins.early import check_early
from gymnast_core.reading import read_json
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.results import read_kind
from gymnast_evaluation.config import EvaluateConfig

TRAINED, START, IMAGINED = "trained", "start", "imagined"
"""Labels: the policy that the run left, the one it began with, and the world that it trained in."""
_INSTEAD = {
    "evaluate": (
        "It is an evaluation: gymnast evaluate --resume {quoted} goes on with it, gymnast view {quoted} shows it."
    ),
    "probe": "It is a probe: gymnast view {quoted} shows it.",
    "bench": "Name one of its runs: {run}/cells/NAME/run.",
}


def evaluate_config(
    arguments: tuple[str, ...], resume: Path | None = None, *, imagined: bool = False
) -> tuple[EvaluateConfig, str]:
    """The config that arguments of `gymnast evaluate` make; and what was taken from a run, where they name its folder.

    Raises `ConfigError` as `config_from` and `values_of_run` do, and for `imagined` without a run.
    """
    sources, overrides = split_arguments(arguments)
    if resume is None and len(sources) == 1 and Path(sources[0]).is_dir():
        run = Path(sources[0])
        values = values_of_run(run, imagined=imagined)
        return load_config(EvaluateConfig, values, overrides, checks=[check_early]), told(run, values)
    if imagined:
        raise ConfigError("--imagined is for the folder of a run: gymnast evaluate runs/RUN --imagined.")
    return config_from(EvaluateConfig, arguments, resume), ""


def values_of_run(run: Path, *, imagined: bool = False) -> dict[str, Any]:
    """The values of an `EvaluateConfig` that a run stands for; a key it cannot tell is absent.

    Of a training: the trained policy and the one it began with, on its held-out tasks, in the world and by the judge
    of its evaluations; without held-out tasks, on its tasks in its world model, by its judge. `imagined` adds the
    latter world to the former. Raises `ConfigError` for a folder that holds no policy.
    """
    kind = read_kind(run)
    if kind is None:
        raise ConfigError(f"{run} is not a run folder: it has no config.yaml. Give one that a run wrote.")
    readers = {"train": _training, "adapt": _adaptation, "dyna": _rounds, "fit": _fitting}
    if kind not in readers:
        advice = _INSTEAD.get(kind, "Give the folder of gymnast train, adapt, dyna or fit.").format(
            run=run, quoted=shlex.quote(str(run))
        )
        raise ConfigError(f"{run} is a run of `gymnast {kind}`, which trains no policy. {advice}")
    values: dict[str, Any] = literal(readers[kind](run, imagined))
    return values


def told(run: Path, values: Mapping[str, Any]) -> str:
    """One sentence on what was taken from a run, before overrides."""
    policies = ", ".join(f"{label} ({part['name']})" for label, part in values["policies"].items())
    judges = values.get("rewards", {})
    worlds = ", ".join(
        f"{label} ({part['name']}, judged by {judges[label]['name']})"
        for label, part in values.get("worlds", {}).items()
        if label in judges
    )
    tasks = values.get("tasks", {}).get("name")
    parts = [f"policies {policies}", f"worlds {worlds}" if worlds else "", f"tasks {tasks}" if tasks else ""]
    return f"Taken from {run}: " + "; ".join(filter(None, parts)) + "."


def _training(run: Path, imagined: bool) -> dict[str, Any]:
    config = load_config(RunConfig, str(run / "config.yaml"))
    evaluation = config.evaluation
    tasks = evaluation.tasks or config.tasks
    worlds = {evaluation.world.name: (evaluation.world, evaluation.reward_model)} if evaluation.tasks else {}
    if imagined or not worlds:
        worlds[IMAGINED] = (config.world_model, config.reward_model)
    return {
        "policies": _policies(config.policy, _saved(run, run / "policy", "train")),
        **_places(worlds), "tasks": asdict(tasks),
        "horizon": config.evaluation_horizon if evaluation.tasks else config.loop.horizon,
        "temperature": evaluation.temperature, "seed": config.seed,
    }  # fmt: skip


def _adaptation(run: Path, imagined: bool) -> dict[str, Any]:
    """As its own measurement on the target was; that was in imagination, too, wherever there was another world."""
    measured = run / "target"
    if not (measured / "config.yaml").is_file():
        raise ConfigError(f"{run} has not measured its policy yet. Go on with {resume_command('adapt', run)}.")
    config = load_config(EvaluateConfig, str(measured / "config.yaml"))
    policy = _component(_read(run)["policy"])
    return {
        **asdict(config), "output": None, "policy": None,
        "policies": _policies(policy, _saved(run, run / "training" / "policy", "adapt")),
    }  # fmt: skip


def _rounds(run: Path, imagined: bool) -> dict[str, Any]:
    config, summary = _read(run), run / "summary.json"
    last = read_json(summary).get("policy") if summary.is_file() else None
    saved = _saved(run, Path(last) if isinstance(last, str) else run / "policy", "dyna")
    values = {"seed": config["seed"], **config["evaluate"], "policies": _policies(_component(config["policy"]), saved)}
    values.pop("policy", None)
    if imagined:
        values["worlds"] = {**values.get("worlds", {}), IMAGINED: config["world_model"]}
        values["rewards"] = {**values.get("rewards", {}), IMAGINED: config["reward_model"]}
    return values


def _read(run: Path) -> dict[str, Any]:
    """The config that a command wrote, as plain values: those of commands that build on this one."""
    values: dict[str, Any] = read_yaml((run / "config.yaml").read_text(encoding="utf-8"))
    return values


def _component(part: Mapping[str, Any]) -> ComponentConfig:
    return ComponentConfig(part["name"], dict(part.get("args") or {}))


def _fitting(run: Path, imagined: bool) -> dict[str, Any]:
    values = _read(run)
    part = values.get("policy")
    if not isinstance(part, dict):
        what = "world model" if values.get("world_model") else "reward model"
        see = "gymnast imagine" if values.get("world_model") else "gymnast judge"
        raise ConfigError(
            f"{run} fitted a {what}, and policies are evaluated. Measure it with `{see}`, or evaluate a policy with "
            f"it: {what.replace(' ', '_')}.args.checkpoint={run / 'checkpoint'}."
        )
    policy = _component(part)
    return {"policies": _policies(policy, _saved(run, run / "checkpoint", "fit"), bool(policy.args.get("checkpoint")))}


def _policies(policy: ComponentConfig, checkpoint: Path, with_start: bool = True) -> dict[str, Any]:
    trained = {"name": policy.name, "args": args_of_saved(policy.args, checkpoint)}
    return {**({START: asdict(policy)} if with_start else {}), TRAINED: trained}


def _places(worlds: Mapping[str, tuple[ComponentConfig, ComponentConfig]]) -> dict[str, Any]:
    return {
        "worlds": {label: asdict(world) for label, (world, _) in worlds.items()},
        "rewards": {label: asdict(judge) for label, (_, judge) in worlds.items()},
    }


def _saved(run: Path, folder: Path, command: str) -> Path:
    if not folder.is_dir():
        raise ConfigError(
            f"{run} has no trained policy yet: there is no {folder}. It is written at the end; go on with "
            f"{resume_command(command, run)}."
        )
    return folder.resolve()
