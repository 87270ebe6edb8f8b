"""`gymnast dyna`: every stage of every round is a run of its own, which goes on where it stopped."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gymnast_collect.command import collect_command
from gymnast_core.config import load_config
from gymnast_core.errors import ConfigError
from gymnast_core.money import total_usd
from gymnast_core.plugins.compose import registries
from gymnast_core.plugins.events import RunDone
from gymnast_core.plugins.hooks import check_sections, tell
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.spending import spent_usd
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.training.run import train
from gymnast_dyna.config import DynaConfig, JudgeRefitConfig
from gymnast_dyna.page import build_dyna_page
from gymnast_dyna.refit import begun, lacks
from gymnast_dyna.stages import Parts, collect_config, evaluate_config, imagined_of, refit_of, train_config
from gymnast_episodes.conversion import convert_visibly
from gymnast_evaluation.command import evaluate_command

FREE = ("output", "rounds", "stop", "recordings", "hooks")
"""What a resumed command may change: there may be more rounds."""
EVALUATION = "evaluation"
START = "start"
"""What the policy is called that the first round begins with."""


class Waiting(Exception):
    """A round waits for what a person records."""


def dyna_command(config: DynaConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Work through the rounds, or go on with them; returns what the command prints.

    Everything that can be refused is refused before the first stage. Raises what the stages' commands raise.
    """
    check_sections(config.hooks)
    _check(config)
    if resume is not None:
        stored = load_config(DynaConfig, str(resume / "config.yaml"))
        fixed = [item.name for item in fields(DynaConfig) if item.name not in FREE]
        refuse_changes(stored, config, fixed, free_arguments(stored))
        _check_recordings(stored, config)
    with terminating(), run_folder(config, "dyna", resume) as (config, folder):
        folder = folder.resolve()  # stages are found by it, however it is spelt the next time
        write_text(folder / "versions.json", json.dumps(versions(), indent=1))
        rounds = _Rounds(config, folder)
        state = rounds.work()
        summary = {"state": state, "rounds": rounds.rows, "policy": rounds.parts.policy.args.get("checkpoint")}
        summary["cost_usd"] = _cost(folder)
        write_json(folder / "summary.json", summary)
        build_dyna_page(folder)
        tell("gymnast_run_done", RunDone(config, folder, summary=summary))
    return {"output": str(folder), **summary}


def _check(config: DynaConfig) -> None:
    """Build every stage's config once, with names in place of what is to come: raises `ConfigError`."""
    parts, known = Parts(config.policy, config.world_model, config.reward_model), registries()
    refitted = [("world_model", config.world), ("reward_model", config.judge)]
    learning = [("policy", known.policies)]
    learning += [(key, getattr(known, f"{key}s")) for key, refit in refitted if refit is not None]
    for key, registry in learning:
        part = getattr(parts, key)
        if "checkpoint" not in {item.name for item in fields(registry.load(part.name).Config)}:
            raise ConfigError(
                f"{key}={part.name} has no argument `checkpoint`, so a round could not go on with what the one before "
                "learned. Choose one that is loaded from checkpoints."
            )
    somewhere = Path("round")
    if config.collect is not None:
        collect_config(config, parts, 1, somewhere)
    for key, refit in refitted:
        if refit is not None:
            if missing := lacks(getattr(known, f"{key}s").load(getattr(parts, key).name)):
                raise ConfigError(
                    f"{key}={getattr(parts, key).name} cannot be refitted: it lacks {', '.join(missing)}. Choose one "
                    "that `gymnast fit` can train."
                )
            refit_of(config, key, parts, [somewhere], 1, somewhere).config()
    if config.judge is not None and config.judge.imagined is not None:
        imagined_of(config, parts, 1, somewhere)
    train_config(config, parts, 1, somewhere)
    evaluate_config(config, {START: config.policy}, somewhere)


def _check_recordings(before: DynaConfig, after: DynaConfig) -> None:
    """Recordings may be added, not exchanged: rounds were built on them."""
    if after.recordings[: len(before.recordings)] != before.recordings:
        raise ConfigError(
            f"recordings was {before.recordings} and would become {after.recordings}. Rounds were built on the former: "
            "add to them."
        )


class _Rounds:
    """The rounds of one folder."""

    def __init__(self, config: DynaConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.parts = Parts(config.policy, config.world_model, config.reward_model)
        self.policies = {START: config.policy}
        self.recordings: list[Path] = []
        self.imagined: list[Path] = []
        self.rows: list[dict[str, Any]] = []

    def work(self) -> str:
        """Why it ended: "done", "stopped" or "waiting"."""
        self._measure(START, {})
        if self.config.begin == "train":
            self._end_round(0, {})
        for number in range(1, self.config.rounds + 1):
            if self._is_fruitless():
                self._say(f"No round {number}: the last {self.config.stop.patience} gained too little")
                return "stopped"
            try:
                self._round(number)
            except Waiting as reason:
                self._say(str(reason))
                return "waiting"
        return "done"

    def _round(self, number: int) -> None:
        numbers: dict[str, Any] = {"recorded": self._record(number)}
        for key, refit in (("world_model", self.config.world), ("reward_model", self.config.judge)):
            if refit is None:
                continue
            if isinstance(refit, JudgeRefitConfig) and refit.imagined is not None:
                numbers["imagined"] = self._imagine(number)
            numbers[key] = self._refit(number, key)
        self._end_round(number, numbers)

    def _end_round(self, number: int, numbers: Mapping[str, Any]) -> None:
        """Practise, and measure what came of it."""
        trained, label = self._train(number), f"round-{number}"
        self.policies[label] = self.parts.policy
        self._measure(label, {**numbers, "training": trained})

    def _record(self, number: int) -> Mapping[str, Any]:
        """What was recorded in this round. Raises `Waiting`."""
        if self.config.collect is None:
            given = self.config.recordings
            if len(given) < number:
                raise Waiting(
                    f"Round {number} waits for a recording of the policy {self.parts.policy.args.get('checkpoint')}. "
                    f"Then: {resume_command('dyna', self.folder)} "
                    + shlex.quote(f"recordings=[{', '.join([*given, 'FOLDER'])}]")
                )
            self.recordings.append(Path(given[number - 1]))
            return {"episodes": given[number - 1]}
        self._say(f"Round {number}: record the policy")
        folder = self._place(number, "collect")
        config = collect_config(self.config, self.parts, number, folder)
        if not (folder / "summary.json").exists():
            collect_command(config, resume=begun(folder))
        summary = read_object(folder / "summary.json").values
        self.recordings.append(Path(summary["episodes"]))
        return {key: summary[key] for key in ("episodes", "kept", "attempts", "success_of_attempts")}

    def _imagine(self, number: int) -> Mapping[str, Any]:
        """What the policy does in the world model of this round, and what its actions do in truth."""
        self._say(f"Round {number}: imagine, and execute what was imagined")
        folder = self._place(number, "imagined")
        converted = convert_visibly(imagined_of(self.config, self.parts, number, folder))
        self.imagined.append(folder)
        return {"episodes": str(folder), "kept": converted["episodes"]}

    def _refit(self, number: int, key: str) -> Mapping[str, Any]:
        self._say(f"Round {number}: refit the {key.replace('_', ' ')}")
        folder = self._place(number, key)
        imagined = self.imagined if key == "reward_model" else ()
        refit = refit_of(self.config, key, self.parts, self.recordings, number, folder, imagined)
        refit.work()
        self.parts = self.parts.with_checkpoint(key, folder / "checkpoint")
        return refit.quality()

    def _train(self, number: int) -> Mapping[str, Any]:
        self._say(f"Round {number}: practise")
        folder = self._place(number, "train")
        config = train_config(self.config, self.parts, number, folder)
        if not (folder / "summary.json").exists():
            train(config, resume=begun(folder))
        self.parts = self.parts.with_checkpoint("policy", folder / "policy")
        summary = read_object(folder / "summary.json", allow_nan=True).values
        return {key: value for key, value in summary.items() if isinstance(value, int | float | str | None)}

    def _measure(self, label: str, numbers: Mapping[str, Any]) -> None:
        """All policies so far on the same tasks; the row of the newest, `label`."""
        kept = self.folder / label / "measured.json"
        if not kept.exists():
            self._say(f"Measure {label}")
            folder = self.folder / EVALUATION
            config = evaluate_config(self.config, self.policies, folder)
            evaluate_command(config, resume=begun(folder))
            write_json(kept, _row(label, read_object(folder / "summary.json", allow_nan=True).values))
        self.rows.append({**read_object(kept).values, **numbers})

    def _is_fruitless(self) -> bool:
        """Whether the last rounds that were scored each gained less than asked for over the best before them.

        What was measured before round 1 (the first policy, that of round 0) is compared with, and never fruitless.
        """
        least, patience = self.config.stop.least_gain, self.config.stop.patience
        if least is None:
            return False
        before_rounds = 2 if self.config.begin == "train" else 1
        rates = [row["measured"][row["reference"]]["rate"] for row in self.rows]
        scored = [rate for rate in rates[:before_rounds] if rate is not None]
        fruitless: list[bool] = []
        for rate in rates[before_rounds:]:
            if rate is not None:
                fruitless.append(bool(scored) and rate - max(scored) < least)
                scored.append(rate)
        return len(fruitless) >= patience and all(fruitless[-patience:])

    def _place(self, number: int, stage: str) -> Path:
        return self.folder / f"round-{number}" / stage

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _cost(folder: Path) -> float | None:
    """What judges were paid in the practice of all rounds and in measuring; None if that is not known."""
    measured = read_object(folder / EVALUATION / "summary.json", allow_nan=True).number("cost_usd", default=None)
    return total_usd((measured, *map(spent_usd, folder.glob("round-*/train"))))


def _row(label: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation says of one policy, by world."""
    cells = summary["results"][label]
    return {
        "label": label,
        "reference": summary["reference"] or next(iter(cells)),
        "judges": summary["judges"],
        "measured": {
            world: {key: cell[key] for key in ("rate", "interval", "n", "unscored")} for world, cell in cells.items()
        },
    }
