"""The judge's gate during a training: audits of the run's own rollouts, and what follows from them.

Of several processes, each replays those of the chosen rollouts that it has made itself; what is found travels, so that
all come to the same conclusions.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gymnast_core.config.schema import RunConfig
from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.money import as_metric, total_usd
from gymnast_core.plugins.compose import check_needs, load_tasks
from gymnast_core.plugins.events import RunEvent, Steering, SteeringWanted
from gymnast_core.plugins.registry import registries
from gymnast_core.processes import Alone
from gymnast_core.runs.atomic import remove, storing
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.runs.spending import Payment, note
from gymnast_core.training.tasks import family_of
from gymnast_core.types import Reward, Rollout
from gymnast_gate.audits import Audit, AuditFile, Conclusion, Seen, best_of, conclude
from gymnast_gate.options import Config
from gymnast_gate.truth import Truth, check_truth, expect_success, succeeded, truth_of

log = logging.getLogger(__name__)


def check(config: RunConfig, options: Config) -> None:
    """Raises `ConfigError` for audits that cannot work, `PluginError` for parts that do not exist."""
    if not options.every:
        return
    known, asked = registries(), config.evaluation
    judge = known.reward_models.load(config.reward_model.name)
    expect_success(judge.kind, "hooks.gate", config.reward_model.name)
    task = load_tasks(config.tasks)[0]
    check_truth(options, task)
    if options.auditor is not None:
        known.reward_models.configure(options.auditor.name, options.auditor.args, key="hooks.gate.auditor")
        return
    known.reward_models.configure(asked.reward_model.name, asked.reward_model.args, key="evaluation.reward_model")
    check_needs(config.policy, asked.world, task, config.tasks.name, keys=("policy", "evaluation.world"))


@dataclass(frozen=True)
class _Told:
    """What one process says of one rollout."""

    place: int
    """In its task draw."""
    label: int
    group: str
    judged: bool | None
    true: bool | None
    cost_usd: float | None
    error: str | None


class Watch:
    """Over one run, in one of its processes."""

    def __init__(self, event: RunEvent, options: Config) -> None:
        """`event.step` iterations are behind the run. Raises `DataError` if the record of its audits is damaged."""
        self._options, self._folder = options, event.folder / "gate"
        self._file = AuditFile(self._folder / "audits.jsonl", event.step)
        self._kept: tuple[int, Sequence[Rollout], Sequence[Reward]] | None = None
        if event.parts.processes.leads:
            for path in (self._folder / "best").glob("step-*"):
                if int(path.name.removeprefix("step-")) > event.step:
                    remove(path)

    def keep(self, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
        """Keep the first draw of an iteration (from 1) that is to be audited."""
        every = self._options.every
        if every and (iteration - 1) % every == 0 and self._kept is None:
            self._kept = iteration, rollouts, rewards

    def forget(self) -> None:
        """Let go of rollouts."""
        self._kept = None

    def steer(self, event: SteeringWanted) -> Steering | None:
        """Audit what was kept, and say what follows; the same in all processes."""
        options = self._options
        wanted = Steering({options.by: options.leave_out}) if options.leave_out else None
        if self._kept is None:
            return wanted
        (iteration, rollouts, rewards), self._kept = self._kept, None
        audit = self._audit(event, iteration, rollouts, rewards)
        if not audit.seen:
            # Nothing is known, which neither condemns the judge nor passes for a good one.
            unknown = float(audit.unknown)
            return Steering({options.by: options.leave_out}, metrics={"gate_rollouts": 0.0, "gate_unknown": unknown})
        leads = event.parts.processes.leads
        self._file.append(audit, write=leads)
        assert event.parts.policy is not None
        if leads and best_of(self._file.rows) is audit:
            state = {"policy": dict(event.parts.policy.state_dict())}
            save_snapshot(self._folder / "best", iteration, state, processes=Alone())
        found = conclude(self._file.rows, options, event.left_out.get(options.by, ()))
        if leads:
            self._say(found)
        stop = found.stop
        if stop is not None:
            stop = f"{stop} {self._recover(event)}"
        leave_out = {options.by: [*options.leave_out, *found.leave_out]}
        left_out = {*event.left_out.get(options.by, ()), *leave_out[options.by]}
        return Steering(leave_out, stop, _numbers(audit, len(left_out)))

    def save_best(self, event: RunEvent) -> None:
        """At the end of a run: RUN/gate/best-policy, if the policy of the best audit is not the run's own."""
        policy = event.parts.policy
        if policy is None or not self._file.rows or (self._folder / "last-policy").is_dir():
            return
        best = best_of(self._file.rows)
        state = self._best_state(best)
        if state is None:
            return
        last = {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()}
        try:
            policy.load_state_dict(state)
            _save(policy, self._folder / "best-policy")
        finally:
            policy.load_state_dict(last)

    def _audit(
        self, event: SteeringWanted, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
    ) -> Audit:
        """One audit by all processes."""
        began, processes = time.monotonic(), event.parts.processes
        made = Counter(label for theirs in processes.gather([r.group for r in rollouts]) for label in theirs)
        count = self._options.rollouts if self._file.rows else self._options.first_rollouts
        chosen = _chosen(sorted(made), count)
        if processes.leads:
            # Minutes may pass, at the first audit above all.
            replayed = sum(min(made[label], most) for label, most in chosen.items())
            print(self._announcement(event.config, iteration, replayed), file=sys.stderr, flush=True)
        told = self._told(event, [(rollout, reward) for rollout, reward in zip(rollouts, rewards, strict=True)], chosen)
        every = [one for theirs in processes.gather(told) for one in theirs]
        seconds = max(processes.gather(time.monotonic() - began))
        every.sort(key=lambda one: (one.place, one.label))
        seen = [
            Seen(one.label, one.group, one.judged, one.true)
            for one in every if one.judged is not None and one.true is not None
        ]  # fmt: skip
        errors = [one.error for one in every if one.error is not None]
        if errors and processes.leads:
            log.warning(
                "Audit in iteration %d: nobody knows what is true of %d of %d rollouts. First error: %s",
                iteration, len(every) - len(seen), len(every), errors[0],
            )  # fmt: skip
        name = self._options.auditor.name if self._options.auditor else event.config.evaluation.world.name
        cost = total_usd(one.cost_usd for one in every)
        if processes.leads:
            note(event.folder, Payment("audit", iteration, cost))
        return Audit(iteration, seen, len(every) - len(seen), seconds, cost, name)

    def _announcement(self, config: RunConfig, iteration: int, count: int) -> str:
        """What an audit is about to do."""
        auditor = self._options.auditor
        how = f"executed in {config.evaluation.world.name}" if auditor is None else f"shown to {auditor.name}"
        return f"Auditing the judge in iteration {iteration}: {count} imagined rollouts, {how}"

    def _told(
        self, event: SteeringWanted, made: Sequence[tuple[Rollout, Reward]], chosen: dict[int, int]
    ) -> list[_Told]:
        """What is true of this process's rollouts among the chosen ones."""
        places: dict[int, int] = {}
        mine: list[tuple[int, Rollout, Reward]] = []
        for rollout, reward in made:
            place = places[rollout.group] = places.get(rollout.group, -1) + 1
            if place < chosen.get(rollout.group, 0):
                mine.append((place, rollout, reward))
        # Draws in turn: those of one are of the same environment, and not all of a simulator's can be alive.
        mine.sort(key=lambda one: one[0])
        truths = self._truths(event, [rollout for _, rollout, _ in mine])
        return [
            _Told(
                place, rollout.group, family_of(rollout.task, self._options.by), succeeded(reward), truth.success,
                truth.cost_usd, truth.error,
            )
            for (place, rollout, reward), truth in zip(mine, truths, strict=True)
        ]  # fmt: skip

    def _truths(self, event: SteeringWanted, rollouts: Sequence[Rollout]) -> list[Truth]:
        """A broken environment is no reason to end a training here, nor does it pass for a good judge: it is told."""
        parts: Parts = event.parts
        assert parts.policy is not None
        if not rollouts:
            return []
        try:
            truth = truth_of(event.config, self._options, replace(parts, processes=Alone()))
            try:
                truth.preflight(len(rollouts), rollouts[0].frame_count)
                return truth.of(rollouts, parts.policy)
            finally:
                # Between audits, environments would only take up memory.
                truth.close()
        except GymnastError as error:
            return [Truth(None, error=str(error)) for _ in rollouts]

    def _say(self, found: Conclusion) -> None:
        for name in found.leave_out:
            log.warning(
                "No more tasks of %r are drawn: the judge's precision there is below hooks.gate.precision=%g.",
                name, self._options.precision,
            )  # fmt: skip

    def _recover(self, event: SteeringWanted) -> str:
        """Make the weights those that were asked for; what to say of them."""
        processes, policy = event.parts.processes, event.parts.policy
        assert policy is not None
        best = best_of(self._file.rows)
        measured = f"the policy of iteration {best.iteration}, whose rollouts truly succeeded in {best.true:.0%}"
        processes.wait()  # until the leader has written
        state = self._best_state(best)
        if state is None:
            return f"The weights of its best audit ({measured}) are gone; these are the last ones."
        if self._options.recover == "stop":
            return f"RUN/policy holds the last weights, RUN/gate/best-policy those of the best audit: {measured}."
        if processes.leads:
            _save(policy, self._folder / "last-policy")
        policy.load_state_dict(state)
        return f"RUN/policy is the one of the best audit: {measured}. The last weights are in RUN/gate/last-policy."

    def _best_state(self, best: Audit) -> dict[str, Any] | None:
        """The weights of an audit's policy; None if they are not kept."""
        snapshot = load_snapshot(self._folder / "best")
        if snapshot is None or snapshot.path.name != f"step-{best.iteration:09d}":
            return None
        return dict(snapshot.state["policy"])


def _chosen(labels: Sequence[int], count: int) -> dict[int, int]:
    """At most how many rollouts of which task draws are replayed: as many of each, or one of some, spread evenly."""
    if count >= len(labels):
        return dict.fromkeys(labels, count // max(len(labels), 1))
    return {labels[i * len(labels) // count]: 1 for i in range(count)}


def _numbers(audit: Audit, left_out: int) -> dict[str, float]:
    """What is logged of an audit."""
    numbers = {
        "gate_rollouts": float(len(audit.seen)), "gate_unknown": float(audit.unknown),
        "gate_seconds": audit.seconds, "gate_cost_usd": as_metric(audit.cost_usd), "gate_judged_success": audit.judged,
        "gate_true_success": audit.true, "gate_left_out": float(left_out),
    }  # fmt: skip
    return numbers if audit.precision is None else numbers | {"gate_precision": audit.precision}


def _save(policy: Policy, folder: Any) -> None:
    with storing(folder):
        policy.save(folder)
