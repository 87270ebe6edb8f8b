"""What was set, what the run left, and what to type next: for the page of a run."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.results import Run

SECTIONS = {
    "optimizer": "Algorithm", "loop": "Loop", "policy": "Policy", "world_model": "World", "reward_model": "Judge",
    "tasks": "Tasks", "evaluation": "Evaluation", "trainer": "Trainer", "fit": "Fit", "": "Run",
}  # fmt: skip
"""Keys of a config and the headings that they are shown under; "" is what stands at its top."""
DOWNLOADS = ("metrics.csv", "summary.json", "config.yaml", "groups.jsonl", "alarms.jsonl")
MOST_BYTES = 300_000
"""Of a file that can be downloaded from the page itself."""


@dataclass(frozen=True)
class Panel:
    """Values under one heading."""

    title: str
    name: str
    """The plugin, where there is one."""
    values: list[tuple[str, str]]


@dataclass(frozen=True)
class Left:
    """A file or folder of the run."""

    name: str
    what: str
    download: str | None
    """Data URI; None where it is no file or too large for the page."""
    is_folder: bool


def panels(config: str) -> list[Panel]:
    """A config as a reader wants it: by part, without what was left at nothing."""
    values = yaml.safe_load(config)
    if not isinstance(values, Mapping):
        return []
    top = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    found = []
    for key, title in SECTIONS.items():
        part = top if not key else values.get(key)
        if not isinstance(part, Mapping):
            continue
        rest = {name: value for name, value in part.items() if name != "name" or not key}
        given = dict(flat(rest.pop("args", None) or {})) | dict(flat(rest))
        shown = [(name, _text(value)) for name, value in given.items() if value is not None]
        if shown or part.get("name"):
            found.append(Panel(title, str(part.get("name", "")) if key else "", shown))
    return found


def left_behind(run: Run) -> list[Left]:
    """What there is to take away, with what it is."""
    what = {
        "metrics.csv": "a row an iteration", "groups.jsonl": "rewards and advantages of every rollout",
        "evaluations": "every judged episode of the evaluations", "policy": "the trained policy: a checkpoint folder",
        "optimizer": "what the algorithm trained beside it", "snapshots": "what a resume goes on from",
        "videos": "films and stills", "summary.json": "the answer in numbers", "config.yaml": "what was set",
        "rescored": "rollouts that were judged again", "rollouts": "rollouts that were kept", "tensorboard": "curves",
        "alarms.jsonl": "alarms about the rewards", "log.txt": "what was said",
    }  # fmt: skip
    found = []
    for name, said in what.items():
        path = run.path / name
        if path.exists():
            found.append(Left(name, said, _download(path), path.is_dir()))
    return found


def commands(run: Run) -> list[tuple[str, str]]:
    """What to type to see, continue and repeat the run."""
    kind = run.kind
    folder = shlex.quote(str(run.path))
    config = shlex.quote(str(run.path / "config.yaml"))
    repeat = f"gymnast {kind} {config} output={shlex.quote(str(run.path) + '-again')}"
    found = [("Continue it where it stopped", resume_command(kind, run.path))]
    found.append(("Repeat it with the same config and seed", repeat))
    if (run.path / "policy").is_dir() and kind == "train":
        saved = shlex.quote(f"policy.args.checkpoint={run.path / 'policy'}")
        found.append(("Go on from its policy", f"gymnast train {config} {saved} output=runs/next"))
    command = run.versions.get("command")
    if isinstance(command, list):
        found.append(("It was started by", shlex.join(map(str, command))))
    found.append(("Watch it, or compare it with other runs", f"gymnast view {shlex.quote(str(run.path.parent))}"))
    found.append(("Rebuild this page", f"python -m gymnast_report {folder}"))
    return found


def _download(path: Path) -> str | None:
    if path.name not in DOWNLOADS or path.stat().st_size > MOST_BYTES:
        return None
    return f"data:text/plain;base64,{base64.b64encode(path.read_bytes()).decode()}"


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and what stands there."""
    for name, value in values.items():
        key = f"{before}.{name}".lstrip(".")
        if isinstance(value, Mapping) and value:
            yield from flat(value, key)
        else:
            yield key, value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n...")
    return str(value)
