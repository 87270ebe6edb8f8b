"""A labelled set that the run's own reward model is measured on again and again: does it still see what it saw?"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gymnast_core.config import ComponentConfig
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Parts
from gymnast_core.money import total_usd
from gymnast_core.plugins.places import is_component
from gymnast_core.plugins.registry import registries
from gymnast_core.runs.spending import Payment, note
from gymnast_core.training.judge import judge
from gymnast_core.types import Rollout
from gymnast_judging.alarms import Finding
from gymnast_judging.clips import clip_rollout
from gymnast_judging.options import Config
from gymnast_judging.rows import RowFile
from gymnast_judging.scoring import JudgeFailing, built


@dataclass(frozen=True)
class Measurement:
    """A row of RUN/judging/canary.jsonl."""

    iteration: int
    """From 1; 0 is before training."""
    right: list[bool | None]
    """Whether each clip was judged rightly; None where it was not judged."""
    cost_usd: float | None
    clips: str = ""
    """Which clips they were: a resumed run may be measured on others."""


class Canary:
    """The clips and how the judge did on them so far."""

    def __init__(
        self,
        options: Config,
        judge: ComponentConfig,
        folder: Path,
        *,
        done: int,
        iterations: int,
        parts: Parts | None = None,
    ) -> None:
        """Reads the clips. Raises `DataError` if none is labelled, and what a dataset raises."""
        assert options.canary is not None
        self._part, self._folder, self._parts = judge, folder, parts
        self._threshold = options.threshold
        # The false alarms of all measurements of a run together stay below the significance (Bonferroni).
        self._alpha = options.canary_significance / max(1, iterations // options.canary_every)
        dataset = (
            registries().datasets.build(options.canary.name, options.canary.args, key="hooks.judging.canary").episodes()
        )
        known = (episode for episode in map(dataset.__getitem__, range(len(dataset))) if episode.success is not None)
        labelled = list(itertools.islice(known, options.canary_clips))
        if not labelled:
            raise DataError(f"No episode of the canary {options.canary.name!r} says whether it is a success.")
        self._truth = [bool(episode.success) for episode in labelled]
        self._rollouts: list[Rollout] = [clip_rollout(episode, i) for i, episode in enumerate(labelled)]
        names = repr([(episode.id, episode.success) for episode in labelled])
        self._clips = hashlib.sha256(names.encode()).hexdigest()[:12]
        self.file = RowFile(folder / "judging" / "canary.jsonl", Measurement)
        kept = [row for row in self.file.rows if row.iteration <= done]
        if len(kept) < len(self.file.rows):
            self.file.replace(kept)

    def measure(self, iteration: int) -> list[Finding]:
        """Judge the clips anew, by an instance of the judge that is built for it and closed again.

        Raises `JudgeFailing` if more than half of the clips could not be judged, and what building the judge raises.
        """
        part = ComponentConfig(self._part.name, forgetful(self._part, f"canary/{self._folder}/{iteration}"))
        with built(part, "reward_model", self._parts) as reward_model:
            reward_model.preflight(len(self._rollouts), self._rollouts[0].frame_count)
            rewards = judge(reward_model, self._rollouts, again=1)
        cost = total_usd(reward.cost_usd for reward in rewards)
        note(self._folder, Payment("canary", iteration, cost))
        errors = [reward.error for reward in rewards if reward.error is not None]
        if len(errors) > len(rewards) / 2:
            raise JudgeFailing(
                f"{self._part.name!r} could not judge {len(errors)} of {len(rewards)} canary clips. First error: "
                f"{errors[0]}"
            )
        right = [
            None if reward.value is None else (reward.value > self._threshold) == truth
            for reward, truth in zip(rewards, self._truth, strict=True)
        ]
        self.file.append([Measurement(iteration, right, cost, self._clips)])
        return self.findings()

    @property
    def is_new(self) -> bool:
        """Whether the judge was never measured on these clips."""
        return not self._rows

    @property
    def _rows(self) -> list[Measurement]:
        return [row for row in self.file.rows if row.clips == self._clips]

    def findings(self) -> list[Finding]:
        """What the last measurement says, by itself and beside the first one on these clips."""
        if self.is_new:
            return []
        first, last = self._rows[0], self._rows[-1]
        found = [blind(last.right, self._truth)]
        if last is not first:
            found.append(drift(first.right, last.right, self._alpha))
        return [finding for finding in found if finding is not None]


def blind(right: Sequence[bool | None], truth: Sequence[bool], significance: float = 0.05) -> Finding | None:
    """A finding unless the judge is more often right than one that always gives the more frequent answer.

    One-sided binomial test. With clips of one outcome only, guessing cannot be told from judging, and none is made.
    """
    known = [(one, true) for one, true in zip(right, truth, strict=True) if one is not None]
    successes = sum(true for _, true in known)
    if successes in (0, len(known)):
        return None
    hits, guessing = sum(one for one, _ in known), max(successes, len(known) - successes) / len(known)
    from scipy import stats

    p_value = float(stats.binomtest(hits, len(known), guessing, alternative="greater").pvalue)
    if p_value < significance:
        return None
    return Finding(
        "canary-blind",
        f"On the canary the judge is right about {hits} of {len(known)} clips; always giving the same answer is right "
        f"about {100 * guessing:.0f} % (p = {p_value:.2g}). Its rewards cannot be told from guesses: measure it with "
        "gymnast judge, and choose another judge.",
        {"right": hits, "clips": len(known), "guessing": guessing, "p_value": p_value},
    )


def drift(before: Sequence[bool | None], now: Sequence[bool | None], significance: float) -> Finding | None:
    """A finding if the judge is wrong now about clips that it was right about, more often than the other way round.

    Exact one-sided McNemar test (Psychometrika 12, 1947): without drift, a clip that changes its side does so in either
    direction with probability 1/2. Clips that were not judged both times are left out.
    """
    pairs = [(a, b) for a, b in zip(before, now, strict=True) if a is not None and b is not None]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    if not lost + won:
        return None
    from scipy import stats

    p_value = float(stats.binomtest(lost, lost + won, 0.5, alternative="greater").pvalue)
    if p_value >= significance:
        return None
    was, share = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
    return Finding(
        "canary-drift",
        f"Of the same {len(pairs)} canary clips the judge was right about {100 * was:.0f} % the first time and is "
        f"about {100 * share:.0f} % now: {lost} clips lost, {won} won (p = {p_value:.2g}). It is not the judge that "
        "the run began with: a model behind an unchanged name may have changed.",
        {"before": was, "now": share, "lost": lost, "won": won, "clips": len(pairs), "p_value": p_value},
    )


def forgetful(judge: ComponentConfig, label: str) -> dict[str, Any]:
    """The judge's arguments, changed so that one with a memory answers anew: what it remembers cannot drift.

    A `namespace` is what the caches of judges are told apart by; judges inside of this one, members of an ensemble or
    whom a reward is built around, have their own.
    """
    known = {item.name for item in fields(registries().reward_models.load(judge.name).Config)}  # type: ignore[attr-defined]
    args = dict(judge.args)
    if "namespace" in known:
        args["namespace"] = f"{args.get('namespace') or ''}{label}"
    return {key: _forgetful_inside(value, label) for key, value in args.items()}


def _forgetful_inside(value: Any, label: str) -> Any:
    """An argument, with the judges in it changed."""
    if isinstance(value, Mapping):
        if is_component(value) and value["name"] in registries().reward_models.names():
            part = ComponentConfig(value["name"], dict(value.get("args") or {}))
            return {**value, "args": forgetful(part, label)}
        return {key: _forgetful_inside(item, label) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_forgetful_inside(item, label) for item in value]
    return value
