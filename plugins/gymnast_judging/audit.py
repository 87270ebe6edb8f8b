"""Judged successes of a training put to a judge that knows better: does the policy learn to fool its reward model?

A canary cannot see that: its clips never change, while the policy looks for what the judge, or the world model, gets
wrong. Where the tasks have a simulator, executing the imagined actions in it is the truth
(`audit=environment audit.args.always_replay=true`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from gymnast_core.plugins.compose import registries
from gymnast_core.types import Reward, Rollout
from gymnast_judging.alarms import Finding
from gymnast_judging.options import JudgingOptions
from gymnast_judging.rows import RowFile
from gymnast_judging.scoring import JudgeFailing


@dataclass(frozen=True)
class Denials:
    """A row of RUN/judging/audit.jsonl."""

    iteration: int
    n: int
    """Judged successes that the auditor judged, too."""
    denied: int
    """How many of them are no successes to the auditor."""
    cost_usd: float


class Audit:
    """What the auditor said so far."""

    def __init__(self, options: JudgingOptions, folder: Path, *, done: int, iterations: int) -> None:
        """Raises `PluginError` if there is no such reward model."""
        assert options.audit is not None
        self._part, self._count = options.audit, options.audit_rollouts
        # The false alarms of all audits of a run together stay below the significance (Bonferroni).
        self._alpha = options.audit_significance / max(1, iterations // options.audit_every)
        registries().reward_models.load(self._part.name)
        self.file = RowFile(folder / "judging" / "audit.jsonl", Denials)
        kept = [row for row in self.file.rows if row.iteration <= done]
        if len(kept) < len(self.file.rows):
            self.file.replace(kept)

    def measure(self, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> list[Finding]:
        """Put judged successes to the auditor. Raises `JudgeFailing` if it can judge none of them."""
        successes = [r for r, reward in zip(rollouts, rewards, strict=True) if (reward.value or 0.0) > 0.5]
        shown = min(self._count, len(successes))
        if not shown:
            return self.findings()
        chosen = [successes[i * len(successes) // shown] for i in range(shown)]
        auditor = registries().reward_models.build(self._part.name, self._part.args, key="audit")
        try:
            auditor.preflight(shown, len(chosen[0].frames_THWC))
            found = auditor.score(chosen)
        finally:
            auditor.close()
        values = [reward.value for reward in found if reward.value is not None]
        if not values:
            raise JudgeFailing(f"{self._part.name!r} could judge none of {shown} rollouts: {found[0].error}")
        denied = sum(value <= 0.5 for value in values)
        self.file.append([Denials(iteration, len(values), denied, sum(reward.cost_usd for reward in found))])
        return self.findings()

    def findings(self) -> list[Finding]:
        """What the last audit says, by itself and beside the first one."""
        if not self.file.rows:
            return []
        found = fooled(self.file.rows[0], self.file.rows[-1], self._alpha)
        return [] if found is None else [found]


def fooled(first: Denials, last: Denials, significance: float) -> Finding | None:
    """A finding if more judged successes are denied than at first, or more than half of them.

    One-sided tests, half of the significance each: Fisher's exact test between the two audits, which share no rollouts,
    and a binomial test against one half.
    """
    table = [[last.denied, last.n - last.denied], [first.denied, first.n - first.denied]]
    more = 1.0 if last is first else float(stats.fisher_exact(table, alternative="greater")[1])
    most = float(stats.binomtest(last.denied, last.n, 0.5, alternative="greater").pvalue)
    if min(more, most) >= significance / 2:
        return None
    return Finding(
        "audit",
        f"The auditor denies {last.denied} of {last.n} judged successes, {first.denied} of {first.n} in iteration "
        f"{first.iteration} (p = {min(more, most):.2g}): the policy is rewarded for what is no success. Look at "
        "the videos, refit the judge or the world model on such rollouts, or stop at an earlier checkpoint.",
        {"denied": last.denied, "n": last.n, "first_denied": first.denied, "first_n": first.n,
         "p_value": min(more, most)},
    )  # fmt: skip
