"""What `gymnast fit` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Choices, Count, Fraction, NotNegative, Positive, Range, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError
from gymnast_core.training.schedules import DECAYS

Decay = Annotated[float, Range(least=0, below=1)]
"""Share of a moving average that stays at each step."""


@dataclass(frozen=True)
class FitLoopConfig:
    """Supervised training."""

    steps: Count = 10_000
    """Gradient steps."""
    batch_size: Count = 16
    """Episodes a step, of all processes together."""
    microbatches: Count = 1
    """Equal parts of a step's batch that are worked on one after the other, for want of memory; they change no step.
    Several processes share them: at least one each, of weights shared by fsdp2 equally many."""
    learning_rate: Positive = 1e-4
    """Peak learning rate of AdamW."""
    warmup_steps: ZeroOrMore = 100
    """Steps of linear warm-up."""
    optimizer: Annotated[str, Choices("adamw", "muon")] = "adamw"
    """"adamw", or "muon" for the matrices with AdamW for everything else."""
    muon_learning_rate: Positive = 0.02
    """Peak learning rate of Muon, scaled so that its updates are as large as AdamW's at that rate."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay of matrices; norms and biases have none."""
    betas: list[Decay] = field(default_factory=lambda: [0.9, 0.99])
    """AdamW's decay rates of the first and second moment."""
    max_grad_norm: Positive = 1.0
    """Gradient norm above which gradients are scaled down."""
    ema: Decay = 0.0
    """Decay of the moving average of the weights that is validated and saved; 0 keeps none."""
    decay: Annotated[str, Choices(*DECAYS)] = "cosine"
    """How the learning rate falls from the end of the warm-up to the last step: along a half cosine, in a straight line
    ("linear"), or not at all ("constant")."""
    decay_floor: Fraction = 0.0
    """Share of the peak at which it ends."""
    validate_every: ZeroOrMore = 1000
    """Steps between validations (numbers in the log, pictures in RUN/validation); 0 validates at the end only."""
    validation_episodes: Count = 32
    """Held-out episodes of a validation."""
    checkpoint_every: Count = 1000
    """Steps between checkpoints."""
    log_every: Count = 50
    """Steps between log lines."""
    workers: ZeroOrMore = 0
    """Processes that read episodes, for each training process; 0 reads in the training process."""
    short_episodes: Annotated[str, Choices("leave_out", "refuse")] = "leave_out"
    """What becomes of episodes that are too short for the component, held-out ones, too: left out at the start, and
    counted, or refused. Components that can learn from less have an option of the same name: pad."""
    max_minutes: Positive | None = None
    """Wall-clock minutes after which this process ends training early, with a checkpoint."""

    def __post_init__(self) -> None:
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"fit.batch_size is {self.batch_size}; it must be a multiple of fit.microbatches ({self.microbatches})"
            )
        if len(self.betas) != 2:
            raise ValueError(f"fit.betas are two numbers, not {self.betas}")


@dataclass(frozen=True)
class FitConfig:
    """`gymnast fit`: supervised training of exactly one component on recorded episodes."""

    kind: ClassVar[str] = "fit"
    shards: ClassVar[bool] = True
    """`trainer.strategy=fsdp2` may share the weights between processes."""
    episodes: ComponentConfig
    world_model: ComponentConfig | None = None
    policy: ComponentConfig | None = None
    reward_model: ComponentConfig | None = None
    validation: ComponentConfig | None = None
    """Held-out episodes; None skips validation."""
    fit: FitLoopConfig = field(default_factory=FitLoopConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `lightning.Trainer`, e.g. {devices: 2, strategy: ddp, precision: bf16-mixed}."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin: hooks.NAME.KEY."""
    seed: Seed = 0
    output: str | None = None
    """Run folder; None makes runs/<preset>-<timestamp>."""

    def __post_init__(self) -> None:
        given = [key for key in ("world_model", "policy", "reward_model") if getattr(self, key) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            raise ConfigError(
                f"Fit exactly one of world_model, policy, reward_model: world_model=NAME (given: {said})."
            )

    @property
    def component(self) -> tuple[str, ComponentConfig]:
        """What is fitted: its key ("world_model", …) and its config."""
        parts = (("world_model", self.world_model), ("policy", self.policy), ("reward_model", self.reward_model))
        return next((key, part) for key, part in parts if part is not None)
