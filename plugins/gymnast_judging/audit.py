"""Judged successes of a training put to a judge that knows better: does the policy learn to fool its reward model?

A canary cannot see that: its clips never change, while the policy looks for what the judge, or the world model, gets
wrong. Where the tasks have a simulator, executing the imagined actions in it is the truth
(`hooks.judging.audit.name=environment hooks.judging.audit.args.always_replay=true`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.money import total_usd
from gymnast_core.runs.spending import Payment, note
from gymnast_core.success import is_success, success_of
from gymnast_core.training.judge import judge
from gymnast_core.types import Reward, Rollout
from gymnast_judging.alarms import Finding
from gymnast_judging.options import Config
from gymnast_judging.rows import RowFile
from gymnast_judging.scoring import JudgeFailing, built, judge_label
from gymnast_judging.stored import kind_of


@dataclass(frozen=True)
class Denials:
    """A row of RUN/judging/audit.jsonl."""

    iteration: int
    n: int
    """Judged successes that the auditor judged, too."""
    denied: int
    """How many of them are no successes to the auditor."""
    cost_usd: float | None
    auditor: str = ""
    """Who said so: a resumed run may ask another one."""
    denied_tasks: list[str] = field(default_factory=list)
    """The task of each one that is denied; rollouts of a task share their start."""
    confirmed_tasks: list[str] = field(default_factory=list)
    """The same of the others."""


class Audit:
    """What the auditor said so far."""

    def __init__(self, options: Config, folder: Path, *, done: int, iterations: int, parts: Parts) -> None:
        """Raises `PluginError` if there is no such reward model, `ConfigError` if it does not judge success."""
        assert options.audit is not None
        self._part, self._count, self._parts = options.audit, options.audit_rollouts, parts
        self._folder = folder
        self._threshold = options.threshold
        self._expect_success(kind_of(self._part))
        scores = parts.reward_model is not None and parts.reward_model.kind == "score"
        self._called = f"rollouts with a reward above {self._threshold:g}" if scores else "judged successes"
        # The false alarms of all audits of a run together stay below the significance (Bonferroni).
        self._alpha = options.audit_significance / max(1, iterations // options.audit_every)
        self.file = RowFile(folder / "judging" / "audit.jsonl", Denials)
        kept = [row for row in self.file.rows if row.iteration <= done]
        if len(kept) < len(self.file.rows):
            self.file.replace(kept)

    def measure(self, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> list[Finding]:
        """Put judged successes to the auditor. Raises `JudgeFailing` if it can judge none of them."""
        successes = [
            rollout
            for rollout, reward in zip(rollouts, rewards, strict=True)
            if (success := success_of(reward)) is not None and success > self._threshold
        ]
        shown = min(self._count, len(successes))
        if not shown:
            return self.findings()
        chosen = [successes[i * len(successes) // shown] for i in range(shown)]
        with built(self._part, "hooks.judging.audit", self._parts) as auditor:
            self._expect_success(auditor.kind)
            auditor.preflight(shown, chosen[0].frame_count)
            found = judge(auditor, chosen)
        cost = total_usd(reward.cost_usd for reward in found)
        note(self._folder, Payment("audit", iteration, cost))
        said = [
            (rollout.task.id, is_success(success))
            for rollout, reward in zip(chosen, found, strict=True)
            if (success := success_of(reward)) is not None
        ]
        if not said:
            raise JudgeFailing(f"{self._part.name!r} could judge none of {shown} rollouts: {found[0].error}")
        denied, confirmed = ([task for task, success in said if success == wanted] for wanted in (False, True))
        self.file.append([Denials(iteration, len(said), len(denied), cost, judge_label(self._part), denied, confirmed)])
        return self.findings()

    def _expect_success(self, kind: str) -> None:
        if kind != "success":
            raise ConfigError(
                f"hooks.judging.audit: {self._part.name!r} gives scores; an auditor must say what is a success."
            )

    def findings(self) -> list[Finding]:
        """What the last audit says, by itself and beside this auditor's first one."""
        rows = [row for row in self.file.rows if row.auditor == judge_label(self._part)]
        if not rows:
            return []
        found = fooled(rows[0], rows[-1], self._alpha, self._called)
        return [] if found is None else [found]


def fooled(first: Denials, last: Denials, significance: float, called: str = "judged successes") -> Finding | None:
    """A finding if more judged successes are denied than at first, or more than half of them.

    One-sided tests, half of the significance each: Fisher's exact test between the two audits, which share no rollouts,
    and a binomial test against one half.
    """
    table = [[last.denied, last.n - last.denied], [first.denied, first.n - first.denied]]
    from scipy import stats

    more = 1.0 if last is first else float(stats.fisher_exact(table, alternative="greater")[1])
    most = float(stats.binomtest(last.denied, last.n, 0.5, alternative="greater").pvalue)
    if min(more, most) >= significance / 2:
        return None
    return Finding(
        "audit",
        f"The auditor denies {last.denied} of {last.n} {called}, {first.denied} of {first.n} in iteration "
        f"{first.iteration} (p = {min(more, most):.2g}): the policy is rewarded for what is no success. Look at "
        "the videos, refit the judge or the world model on such rollouts, or stop at an earlier checkpoint.",
        {"denied": last.denied, "n": last.n, "first_denied": first.denied, "first_n": first.n,
         "p_value": min(more, most)},
    )  # fmt: skip
