"""What the hooks of this plugin are told: which rollouts a training keeps, and when its rewards raise an alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gymnast_core.config.ranges import AnyNumber, Count, Range, ZeroOrMore
from gymnast_core.config.schema import ComponentConfig
from gymnast_core.success import SUCCESS_ABOVE

Share = Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class Config:
    """The section hooks.judging of a config, e.g.

    gymnast train tabletop hooks.judging.canary.name=tabletop-clips hooks.judging.canary_every=2
    gymnast train tabletop hooks.judging.audit.name=environment hooks.judging.audit.args.always_replay=true
    """

    keep_iterations: ZeroOrMore = 1
    """Newest iterations of which judged rollouts are kept in RUN/rollouts, for `gymnast rescore --all`; 0 keeps none.
    Rollouts that could not be judged are kept from the whole run, up to `keep_unscored_bytes`."""
    keep_bytes: ZeroOrMore = 256 * 2**20
    """Bytes that kept judged rollouts take up at most, over all processes."""
    keep_unscored_bytes: ZeroOrMore = 4 * 2**30
    """Bytes that rollouts which could not be judged take up at most; beyond, the oldest are removed, and that is
    told."""
    window: Annotated[int, Range(least=2, most=10**6)] = 256
    """Judged rollouts, the latest ones, that an alarm looks at."""
    max_disagreement: Share = 0.3
    """Share of pairs of votes on one rollout that contradict each other, mean over the window, above which there is an
    alarm; votes by coin toss have 0.5."""
    threshold: AnyNumber = SUCCESS_ABOVE
    """Reward above which the run's judge has called a rollout a success, for canary and audit; on the judge's own scale
    if that gives scores."""
    canary: ComponentConfig | None = None
    """Dataset of labelled episodes that the run's reward model is measured on again and again; none without."""
    canary_every: Count = 5
    """Iterations between those measurements; the first is made before training."""
    canary_clips: Count = 64
    """Labelled episodes used, from the first."""
    canary_significance: Share = 0.01
    """Probability of a false canary alarm in a whole run, all measurements together."""

    audit: ComponentConfig | None = None
    """Reward model that knows better (a simulator that replays, a costlier judge): asked about rollouts of the training
    that were judged successes, to see whether the policy learns to fool the judge. None without."""
    audit_every: Count = 1
    """Iterations between audits."""
    audit_rollouts: Count = 32
    """Judged successes put to it each time, spread evenly over the iteration's last draw; of several processes, over
    that of the leader."""
    audit_significance: Share = 0.01
    """Probability of a false audit alarm in a whole run, as for the canary."""
