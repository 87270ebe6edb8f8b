"""What the hooks of this plugin are told: which rollouts a training keeps, and when its rewards raise an alarm.

Options come as overrides, a YAML file, or both in the environment variable GYMNAST_JUDGING, e.g.

    GYMNAST_JUDGING="canary=tabletop-clips canary_every=2" gymnast train tabletop
    GYMNAST_JUDGING="audit=environment audit.args.always_replay=true" gymnast train tabletop

A run writes the ones it uses to RUN/judging/options.yaml; a resumed run reads them there, variable or not.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gymnast_core.config import ComponentConfig, load_config, to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.runs.atomic import write_text

VARIABLE = "GYMNAST_JUDGING"


@dataclass(frozen=True)
class JudgingOptions:
    """Options of the hooks."""

    kind: ClassVar[str] = "judging"
    keep_iterations: int = 1
    """Newest iterations of which judged rollouts are kept in RUN/rollouts, for `gymnast rescore --all`; 0 keeps none.
    Rollouts that could not be judged are always kept."""
    keep_bytes: int = 256 * 2**20
    """Bytes that kept judged rollouts take up at most."""
    window: int = 256
    """Judged rollouts, the latest ones, that an alarm looks at."""
    max_disagreement: float = 0.3
    """Share of pairs of votes on one rollout that contradict each other, mean over the window, above which there is an
    alarm; votes by coin toss have 0.5."""
    canary: ComponentConfig | None = None
    """Dataset of labelled episodes that the run's reward model is measured on again and again; none without."""
    canary_every: int = 5
    """Iterations between those measurements; the first is made before training."""
    canary_clips: int = 64
    """Labelled episodes used, from the first."""
    canary_significance: float = 0.01
    """Probability of a false canary alarm in a whole run, all measurements together."""

    audit: ComponentConfig | None = None
    """Reward model that knows better (a simulator that replays, a costlier judge): asked about rollouts of the training
    that were judged successes, to see whether the policy learns to fool the judge. None without."""
    audit_every: int = 1
    """Iterations between audits."""
    audit_rollouts: int = 32
    """Judged successes put to it each time, spread evenly over the iteration's last draw."""
    audit_significance: float = 0.01
    """Probability of a false audit alarm in a whole run, as for the canary."""

    def __post_init__(self) -> None:
        for name, least in (
            ("keep_iterations", 0), ("keep_bytes", 0), ("window", 2), ("canary_every", 1), ("canary_clips", 1),
            ("audit_every", 1), ("audit_rollouts", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("max_disagreement", "canary_significance", "audit_significance"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")


def load_options(folder: Path) -> JudgingOptions:
    """The options of a run: those it began with, or those of the environment, which are written to its folder."""
    path = folder / "judging" / "options.yaml"
    if path.exists():
        return load_config(JudgingOptions, str(path))
    options = options_from_environment()
    write_text(path, to_yaml(options))
    return options


def options_from_environment() -> JudgingOptions:
    """What GYMNAST_JUDGING says, over the defaults. Raises `ConfigError` that names the variable."""
    try:
        words = shlex.split(os.environ.get(VARIABLE, ""))
        sources = [word for word in words if "=" not in word]
        if len(sources) > 1:
            raise ConfigError(f"give one file, not {' and '.join(sources)}; overrides look like key=value.")
        overrides = [word for word in words if "=" in word]
        return load_config(JudgingOptions, sources[0] if sources else None, overrides)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"The environment variable {VARIABLE} cannot be used: {error}") from error
