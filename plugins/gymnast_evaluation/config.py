"""What `gymnast evaluate` is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Choices, Count, Fraction, NotNegative, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError, unknown_name

GROUPINGS = ("instruction", "task")


@dataclass(frozen=True)
class EvaluateConfig:
    """`gymnast evaluate`: the value of policies in worlds, on the same tasks and seeds.

    One policy in one world: `policy`, `world_model` and `reward_model`, labelled by their plugins' names. Several:
    `policies`, `worlds` and `rewards`, by label. Both forms may be mixed.
    """

    kind: ClassVar[str] = "evaluate"
    tasks: ComponentConfig
    policies: dict[str, ComponentConfig] = field(default_factory=dict)
    """Label -> policy."""
    worlds: dict[str, ComponentConfig] = field(default_factory=dict)
    """Label -> world model, or `gymnasium` for the simulator behind the tasks."""
    rewards: dict[str, ComponentConfig] = field(default_factory=dict)
    """Label of a world -> the reward model that judges there; `reward_model` judges in the worlds without one."""
    policy: ComponentConfig | None = None
    """A single policy."""
    world_model: ComponentConfig | None = None
    """A single world."""
    reward_model: ComponentConfig | None = None
    """The reward model of every world that `rewards` does not name."""
    reference: str | None = None
    """Label of the world that counts as the truth when there are several; None takes the first one that knows its own
    outcomes (a simulator), or else the last."""
    horizon: Count = 40
    """Actions an episode; a multiple of every policy's chunk length."""
    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    episodes: Count | None = None
    """Tasks used, from the first; None uses all."""
    trials: Count = 1
    """Rollouts of each task. More than one tells of the noise of policy and world, not of other tasks."""
    group_by: Annotated[str, Choices(*GROUPINGS)] = "instruction"
    """What counts as one task in tables: "instruction" (all starts with the same words) or "task" (each id)."""
    batch_size: Count = 64
    """Rollouts at once; what a killed evaluation repeats when it is resumed. Part of what a seed means."""
    rescore: ZeroOrMore = 1
    """How often rollouts that could not be judged are put to the reward model again."""
    max_error_rate: Fraction = 0.5
    """Share of a policy's rollouts in a world left unjudged above which the evaluation stops, to be resumed."""
    videos: ZeroOrMore = 8
    """Trials filmed of every policy in every world: the same ones, spread evenly, whatever their outcome."""
    device: str = "auto"
    """torch device of the policies; auto: cuda where there is one. World and reward models have their own."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin: hooks.NAME.KEY."""
    seed: Seed = 0
    output: str | None = None
    """Folder of the results; None makes runs/evaluate-<date>-<time>."""

    def __post_init__(self) -> None:
        self._check_parts()

    def all_policies(self) -> dict[str, ComponentConfig]:
        """Label -> policy, the single one included."""
        return _with_single(self.policies, self.policy, "policy", "policies")

    def all_worlds(self) -> dict[str, ComponentConfig]:
        """Label -> world, the single one included."""
        return _with_single(self.worlds, self.world_model, "world_model", "worlds")

    def all_rewards(self) -> dict[str, ComponentConfig]:
        """Label of a world -> its reward model, for every world."""
        chosen = {label: self.rewards.get(label) or self.reward_model for label in self.all_worlds()}
        return {label: part for label, part in chosen.items() if part is not None}

    def _check_parts(self) -> None:
        policies, worlds = self.all_policies(), self.all_worlds()
        for label in (*policies, *worlds):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label):
                raise ConfigError(f"The label {label!r} names files; use letters, digits, '_', '-' and '.'.")
        if not policies or not worlds:
            raise ConfigError(
                "policies and worlds need an entry each: policies.LABEL=openvla-oft worlds.LABEL=gymnasium "
                "(or policy=openvla-oft world_model=gymnasium)."
            )
        unjudged = sorted(set(worlds) - set(self.all_rewards()))
        if unjudged or not set(self.rewards) <= set(worlds):
            raise ConfigError(
                f"rewards needs a judge for each world {sorted(worlds)} and for no other; it has "
                f"{sorted(self.rewards)}. "
                + (
                    f"Set rewards.{unjudged[0]}=NAME, or reward_model=NAME for all."
                    if unjudged
                    else "Name the worlds and rewards alike."
                )
            )
        if self.reference is not None and self.reference not in worlds:
            raise ConfigError(f"reference: {unknown_name('world', self.reference, worlds)}")


def _with_single(
    several: dict[str, ComponentConfig], single: ComponentConfig | None, key: str, keys: str
) -> dict[str, ComponentConfig]:
    if single is None:
        return dict(several)
    if single.name in several:
        raise ConfigError(f"{key} and {keys}.{single.name} have one label, {single.name!r}. Rename the latter.")
    return {single.name: single, **several}
