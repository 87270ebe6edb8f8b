"""The hook that keeps, in the run folder, exactly what the judges of a run are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.plugins.events import RunStarted

FILE = "judges.json"


def gymnast_run_started(event: RunStarted) -> None:
    """Write RUN/judges.json: of every VLM judge the whole config, defaults included, and the text of its prompt."""
    from dataclasses import asdict

    from gymnast_core.config.typed import typed
    from gymnast_core.plugins.registry import registries
    from gymnast_core.runs.atomic import write_json
    from gymnast_vlm_reward.config import JudgeConfig
    from gymnast_vlm_reward.prompts import load_prompt

    found, known = {}, registries().reward_models
    for place, name, args in _judges(event.config):
        if name not in known.names():
            continue  # run from Python with a judge of its own
        schema: Any = known.load(name).Config
        if issubclass(schema, JudgeConfig):
            judge = typed(schema, args, f"{place}.args")
            found[place] = {"name": name, "config": asdict(judge), "prompt": asdict(load_prompt(judge.prompt))}
    if found:
        write_json(event.folder / FILE, found)


def _judges(config: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Place in the config, name and arguments of every reward model, the members of ensembles included."""
    parts = {"reward_model": getattr(config, "reward_model", None)}
    parts |= {f"rewards.{label}": part for label, part in (getattr(config, "rewards", None) or {}).items()}
    if (evaluation := getattr(config, "evaluation", None)) is not None and evaluation.tasks is not None:
        parts["evaluation.reward_model"] = evaluation.reward_model
    for place, part in parts.items():
        if part is None:
            continue
        yield place, part.name, part.args
        members = part.args.get("judges", ()) if part.name == "ensemble" else ()
        for number, member in enumerate(members):
            yield f"{place}.args.judges[{number}]", member["name"], member.get("args") or {}
