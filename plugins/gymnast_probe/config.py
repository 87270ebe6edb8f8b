"""What `gymnast probe` is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Count, Fraction, NotNegative, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError

ORIGINAL = "original"
DEFAULT_EDITS = (
    "paraphrase", "other-colour", "other-goal", "nonsense",
    "distractor", "recolour", "swap", "occlude", "brightness", "crop",
)  # fmt: skip


@dataclass(frozen=True)
class ProbeConfig:
    """`gymnast probe`: policies on the same tasks, as they are and edited."""

    kind: ClassVar[str] = "probe"
    world_model: ComponentConfig
    """Where policies are rolled out. Edits of the picture need a learned world: a simulator shows its own."""
    reward_model: ComponentConfig
    tasks: ComponentConfig
    policies: dict[str, ComponentConfig] = field(default_factory=dict)
    """Label -> policy."""
    policy: ComponentConfig | None = None
    """A single policy, labelled by its plugin's name."""
    edits: dict[str, Any] = field(default_factory=dict)
    """Label -> {edit: NAME, settings...}; without `edit`, the label is the name. None: all that need no provider."""
    horizon: Count = 40
    """Actions an episode; a multiple of every policy's chunk length."""
    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    episodes: Count | None = None
    """Tasks used, from the first; None uses all."""
    batch_size: Count = 64
    """Rollouts at once; what a killed probe repeats when it is resumed."""
    rescore: ZeroOrMore = 1
    """How often rollouts that could not be judged are put to the reward model again."""
    max_error_rate: Fraction = 0.5
    """Stop when more than this share of a policy's trials under an edit could not be edited or judged; edits that do
    not apply to a task are none of them. 1 keeps such trials, unscored."""
    videos: ZeroOrMore = 2
    """Trials filmed of every policy under every edit, the same ones."""
    device: str = "auto"
    """torch device of the policies; auto: cuda where there is one."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin: hooks.NAME.KEY."""
    seed: Seed = 0
    """Of edits and rollouts."""
    output: str | None = None
    """Folder of the results; None makes runs/probe-<date>-<time>."""

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy.name in self.policies:
            raise ConfigError(f"policy and policies.{self.policy.name} have one label. Rename the latter.")
        if not self.all_policies():
            raise ConfigError("There is no policy to probe: set policies.LABEL=NAME or policy=NAME.")
        for label in (*self.all_policies(), *self.edits):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label):
                raise ConfigError(f"The label {label!r} names files; use letters, digits, '_', '-' and '.'.")
        if ORIGINAL in self.edits:
            raise ConfigError(f"edits.{ORIGINAL}: that is the name of the tasks without an edit. Rename it.")

    def all_policies(self) -> dict[str, ComponentConfig]:
        """Label -> policy, the single one included."""
        single = {} if self.policy is None else {self.policy.name: self.policy}
        return {**single, **self.policies}

    def all_edits(self) -> dict[str, dict[str, Any]]:
        """Label -> settings with the key `edit`. Raises `ConfigError`."""
        found = {}
        for label, settings in (self.edits or {name: {} for name in DEFAULT_EDITS}).items():
            settings = {"edit": settings} if isinstance(settings, str) else {} if settings is None else settings
            if not isinstance(settings, Mapping):
                raise ConfigError(f"edits.{label} is {settings!r}; write {{edit: NAME, settings...}}.")
            found[label] = {"edit": label, **{str(key): value for key, value in settings.items()}}
        return found
