"""`gymnast gate`: measure batch by batch, resumable; then verdicts and their page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gymnast_core.closing import close_all
from gymnast_core.config import load_config
from gymnast_core.config.typed import typed
from gymnast_core.errors import DataError, GymnastError
from gymnast_core.interfaces import Parts
from gymnast_core.plugins.compose import build_parts, check_needs
from gymnast_core.plugins.registry import registries
from gymnast_core.plugins.resuming import free_arguments
from gymnast_core.processes import Alone
from gymnast_core.rollouts.imagine import check_horizon
from gymnast_core.runs.atomic import write_json, write_text
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.folder import refuse_changes, run_folder
from gymnast_core.runs.progress import Progress
from gymnast_core.runs.versions import versions
from gymnast_core.signals import terminating
from gymnast_core.training.tasks import TaskOrder
from gymnast_gate.config import GateConfig
from gymnast_gate.gates import Found, summary_of
from gymnast_gate.measuring import Measurement
from gymnast_gate.options import Config
from gymnast_gate.pixels import Sums
from gymnast_gate.rows import Batches, Row
from gymnast_gate.truth import Auditor, Environment, check_truth, expect_success, truth_of
from gymnast_gate.verdicts import FAIL, PASS

FIXED = (
    "world_model", "policy", "reward_model", "tasks", "evaluation.world", "evaluation.reward_model", "loop.horizon",
    "loop.temperature", "seed", "gate.rollouts", "gate.batch_size", "gate.changed_levels", "gate.episodes",
    "hooks.gate.by", "hooks.gate.auditor",
)  # fmt: skip
"""Keys that say what was measured; a resumed measurement keeps them."""
EXIT = {PASS: 0, FAIL: 1}
"""Exit statuses; what is neither is `OPEN`."""
OPEN = 3
TRIES = 8
"""Rollouts of a group for each judged success that is wanted of it, after which no more are added."""


class TruthFailing(GymnastError):
    """Too much could not be executed or judged; the measurement stops and can be resumed."""


def gate_command(config: GateConfig, *, resume: Path | None = None) -> dict[str, Any]:
    """Run or resume a measurement; writes the folder and returns what the command prints."""
    if resume is not None:
        stored = load_config(GateConfig, str(resume / "config.yaml"))
        refuse_changes(stored, config, FIXED, free_arguments(stored))
    options: Config = typed(Config, config.hooks.get("gate", {}), "hooks.gate")
    with terminating(), _parts(config, options) as parts, run_folder(config, "gate", resume) as (config, folder):
        write_text(folder / "versions.json", json.dumps(versions(), indent=1))
        found = _Run(config, options, parts, folder).found()
        summary = summary_of(found)
        write_json(folder / "summary.json", summary)
        from gymnast_gate.page import build_gate_page

        build_gate_page(folder)
    return {"output": str(folder), **brief(summary)}


def exit_status(summary: Mapping[str, Any]) -> int:
    """0: every gate passed; 1: one failed; 3: none failed, and one is unclear or was not measured."""
    return EXIT.get(summary["verdict"], OPEN)


def brief(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed."""
    keys = ("verdict", "verdicts", "leave_out", "rollouts", "tasks", "errors", "cost_usd")
    criteria = {
        gate["key"]: {
            one["name"]: {key: one[key] for key in ("value", "interval", "n", "bound", "verdict", "needed")}
            for one in gate["criteria"]
        }
        for gate in summary["gates"]
    }
    return {**{key: summary[key] for key in keys}, "criteria": criteria}


@contextmanager
def _parts(config: GateConfig, options: Config) -> Iterator[Parts]:
    """What the training would be made of, closed in the end. What cannot be measured is refused before anything heavy
    is loaded, as far as that is known then."""
    parts = build_parts(config, left=None, processes=Alone())
    try:
        assert parts.policy is not None and parts.reward_model is not None
        expect_success(parts.reward_model.kind, "reward_model", config.reward_model.name)
        check_truth(options, parts.tasks[0])
        check_horizon(parts.policy, config.loop.horizon)
        if parts.tasks[0].start is not None:
            keys = ("policy", "evaluation.world")
            check_needs(config.policy, config.evaluation.world, parts.tasks[0], config.tasks.name, keys=keys)
        parts.policy.to(_device(config.trainer)).eval()
        parts.attach()
        yield parts
    finally:
        close_all(parts.components().values())


def _device(trainer: Mapping[str, Any]) -> torch.device:
    """Where the training would put its policy."""
    wants_cpu = trainer.get("accelerator", "auto") == "cpu"
    return torch.device("cuda" if torch.cuda.is_available() and not wants_cpu else "cpu")


@dataclass
class _Run:
    """One measurement: what is done, and what is left to do."""

    config: GateConfig
    options: Config
    parts: Parts
    folder: Path

    def found(self) -> Found:
        """Measure what is missing. Raises `TruthFailing`, and what plugins raise."""
        closing: list[Any] = []
        try:
            truth = truth_of(self.config, self.options, self.parts)
            closing.append(truth)
            environment = truth if isinstance(truth, Environment) else None
            if environment is None and self.parts.tasks[0].start is not None:
                environment = Environment(self.config, self.parts)
                closing.append(environment)
            if Batches(self.folder).read(0) is None:
                self._preflight(truth)
            measurement = Measurement(self.config, self.options, self.parts, truth, environment, self.folder)
            rows = self._rows(measurement)
            recorded = self._recorded(measurement) if environment is None else []
        finally:
            close_all(closing)
        return Found(
            rows, self.config, self.options, truth.name, truth.replays, environment is not None, recorded
        )  # fmt: skip

    def _preflight(self, truth: Environment | Auditor) -> None:
        """Judges that cost say so, or refuse, before they are asked anything."""
        assert self.parts.reward_model is not None
        for judge in (self.parts.reward_model, truth):
            judge.preflight(self.config.gate.most_rollouts, 1 + self.config.loop.horizon)

    def _rows(self, measurement: Measurement) -> list[Row]:
        """First every gate's rollouts, then those that groups lack for the judge's."""
        asked, batches, order = self.config.gate, Batches(self.folder), TaskOrder(self.parts.tasks, self.config.seed)
        rows: list[Row] = []
        number = drawn = 0
        with Progress("Measuring", asked.most_rollouts, unit="rollout") as progress:
            while (size := self._next(rows)) > 0:
                known = batches.read(number)
                if known is None:
                    whole = len(rows) < asked.rollouts
                    enough = [] if whole else self._enough(rows)
                    order.leave_out({self.options.by: enough})
                    made = measurement.measure(order.draw(size), len(rows), whole=whole, drawn=drawn)
                    self._check(rows + made)
                    known = made, order.state_dict()
                    batches.write(number, *known)
                rows += known[0]
                order.load_state_dict(known[1])
                number, drawn = number + 1, drawn + sum("frames" in row.strips for row in known[0])
                progress.update(len(rows), self._numbers(rows))
        return rows

    def _next(self, rows: Sequence[Row]) -> int:
        """How many rollouts are measured next; 0 if there are enough."""
        asked = self.config.gate
        if len(rows) < asked.rollouts:
            return min(asked.batch_size, asked.rollouts - len(rows))
        groups = {row.group for row in rows}
        if len(self._enough(rows)) == len(groups):
            return 0
        return max(0, min(asked.batch_size, asked.most_rollouts - len(rows)))

    def _enough(self, rows: Sequence[Row]) -> list[str]:
        """The groups that have enough judged successes, or hardly any."""
        wanted = self.config.gate.judged
        made = Counter(row.group for row in rows)
        said = Counter(row.group for row in rows if row.judged and row.true is not None)
        return sorted(group for group in made if said[group] >= wanted or made[group] >= TRIES * wanted)

    def _check(self, rows: Sequence[Row]) -> None:
        errors = [row.errors[0] for row in rows if row.errors]
        if len(errors) > self.config.loop.max_error_rate * len(rows):
            raise TruthFailing(
                f"{len(errors)} of {len(rows)} rollouts could not be executed or judged (limit loop.max_error_rate="
                f"{self.config.loop.max_error_rate:g}). First error: {errors[0]} When it works again: "
                f"{resume_command('gate', self.folder)}"
            )

    def _numbers(self, rows: Sequence[Row]) -> dict[str, float]:
        real = [row.real for row in rows if row.real is not None]
        said = [row.true for row in rows if row.judged and row.true is not None]
        numbers = {"success": sum(real) / len(real)} if real else {}
        return numbers | ({"precision": sum(said) / len(said)} if said else {})

    def _recorded(self, measurement: Measurement) -> list[Sums]:
        """The errors on recorded episodes, where the config names some."""
        part = self.config.gate.episodes
        if part is None:
            return []
        episodes = registries().datasets.build(part.name, part.args, key="gate.episodes").episodes()
        length = self.parts.policy.chunk_length if self.parts.policy is not None else 1
        chosen = [episodes[i] for i in range(min(self.config.gate.rollouts, len(episodes)))]
        chosen = [episode for episode in chosen if len(episode.actions_TA) >= length]
        if not chosen:
            raise DataError(f"gate.episodes: {part.name!r} holds no episode of {length} actions or more.")
        shortest = min(len(episode.actions_TA) for episode in chosen)
        size, found = self.config.gate.batch_size, []
        for first in range(0, len(chosen), size):
            found += measurement.recorded(chosen[first : first + size], first, shortest)
        return found
