"""What `gymnast adapt` is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.alone import refuse_several_processes
from gymnast_core.config.ranges import Count, Fraction, NotNegative, Seed, ZeroOrMore
from gymnast_core.config.schema import LoopConfig
from gymnast_core.errors import ConfigError
from gymnast_episodes.images import Pixels, check_size

IN_SEVERAL = (
    "To learn in several, run `gymnast train` with tasks=adaptation, and `gymnast evaluate` with the policies before "
    "and after."
)


@dataclass(frozen=True)
class Protection:
    """What keeps the policy from forgetting the rest while it learns one scene."""

    kl_coefficient: NotNegative = 0.0
    """Weight of the divergence from the policy as it was (the optimizer's `kl_coefficient`)."""
    tasks: ComponentConfig | None = None
    """Other tasks that go on being trained, beside the target; others than those that `retention` measures."""
    share: Fraction = 0.0
    """Share of the starts that come from `tasks`, on average over an iteration."""
    lora_rank: ZeroOrMore = 0
    """Above 0, only low-rank factors learn (the policy's `train.lora_rank`): they lie in a folder of their own in the
    adapted checkpoint, and without it the policy is the original again."""


@dataclass(frozen=True)
class AdaptConfig:
    """`gymnast adapt`: a few iterations of reinforcement learning from one start, in a world model."""

    kind: ClassVar[str] = "adapt"
    policy: ComponentConfig
    world_model: ComponentConfig
    """Where the policy practises."""
    reward_model: ComponentConfig
    """The judge of its practice, and of the success in imagination before and after."""
    pictures: list[str] = field(default_factory=list)
    """Files of pictures (PNG, JPEG) of the scene, each one a start, with `instruction`; or give `target`."""
    instruction: str | None = None
    """What is to be done in the pictures."""
    image_size: list[Pixels] | None = None
    """Height and width to which the pictures are resized, in pixels; null keeps their own. Not beside `target`."""
    target: ComponentConfig | None = None
    """A dataset whose tasks are the starts, instead of pictures."""
    targets: Count | None = None
    """Tasks of `target` used, from the first; null uses all."""
    retention: ComponentConfig | None = None
    """Other tasks, on which success is measured before and after: what was forgotten. null measures none."""
    retained: Count = 100
    """Tasks of `retention` used, from the first."""
    protect: Protection = field(default_factory=Protection)
    """What keeps the policy from forgetting them."""
    optimizer: ComponentConfig = field(default_factory=lambda: ComponentConfig("grpo"))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(iterations=5, max_draws=1))
    """The iterations of practice; as of `gymnast train`."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `lightning.Trainer`. The policy learns in one process: `devices` names one, `num_nodes` is
    1."""
    trials: Count = 32
    """Rollouts of each target before and after, in imagination and, where there is one, in the environment."""
    temperature: NotNegative = 1.0
    """Sampling temperature of those; at 0 an environment gives the same rollout again and again."""
    environment: ComponentConfig = field(default_factory=lambda: ComponentConfig("gymnasium"))
    """The real thing, for targets and other tasks that name their environment."""
    environment_reward: ComponentConfig = field(default_factory=lambda: ComponentConfig("environment"))
    """The judge there."""
    batch_size: Count = 64
    """Rollouts at once while measuring."""
    videos: ZeroOrMore = 4
    """Trials filmed before and after, the same ones."""
    device: str = "auto"
    """torch device of the policy while measuring; `trainer.accelerator` says where it learns."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin: hooks.NAME.KEY."""
    seed: Seed = 0
    output: str | None = None
    """Folder of the results; None makes runs/adapt-<date>-<time>."""

    def __post_init__(self) -> None:
        check_size(self.image_size)
        if bool(self.pictures) == (self.target is not None):
            raise ConfigError(
                "There is no target: give pictures=[FILE] with instruction='...', or target=DATASET."
                if self.target is None
                else "The target is both pictures and a dataset (target). Give one of them."
            )
        if bool(self.pictures) != (self.instruction is not None):
            raise ConfigError(
                "The pictures come without words: say what is to be done, instruction='...'."
                if self.pictures
                else "instruction goes with pictures; the tasks of target have instructions of their own."
            )
        if self.pictures and self.targets is not None:
            raise ConfigError("targets counts the tasks of target; of pictures, all are used.")
        if self.target is not None and self.image_size is not None:
            raise ConfigError(
                f"image_size={self.image_size} resizes pictures; the tasks of target have a size of their own. Leave "
                "it out, or set the size among target.args, as that dataset calls it."
            )
        if not self.loop.iterations:
            raise ConfigError("loop.iterations is 0, so nothing would be learned. Set it to 1 or more.")
        self._check_protection()
        refuse_several_processes(self.trainer, "trainer", IN_SEVERAL)

    def _check_protection(self) -> None:
        protect = self.protect
        if bool(protect.share) != (protect.tasks is not None):
            given = "is not given" if protect.tasks is None else repr(protect.tasks.name)
            raise ConfigError(
                f"protect.share is {protect.share:g} and protect.tasks {given}: the share of the starts that come from "
                "other tasks needs both. Give both, or neither."
            )
        if protect.share == 1:
            raise ConfigError("protect.share is 1, which leaves no start for the target. Set it lower, e.g. 0.5.")
        if protect.kl_coefficient and self.optimizer.args.get("kl_coefficient") is not None:
            raise ConfigError("kl_coefficient is given twice: in protect and in optimizer.args. Leave out one of them.")
        tuning = self.policy.args.get("train")
        if protect.lora_rank and isinstance(tuning, Mapping) and tuning.get("lora_rank") is not None:
            raise ConfigError("lora_rank is given twice: in protect and in policy.args.train. Leave out one of them.")

    def starts(self) -> ComponentConfig:
        """The dataset of the targets."""
        if self.target is not None:
            return self.target
        args = {"files": list(self.pictures), "instruction": self.instruction, "image_size": self.image_size}
        return ComponentConfig("pictures", args)
