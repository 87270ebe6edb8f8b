"""What a command is told, as dataclasses with a docstring under each field."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_core.config.ranges import Count, Fraction, Range, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError


@dataclass(frozen=True)
class ComponentConfig:
    """A plugin by name and the arguments merged over its `Config`."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoopConfig:
    """Imagine, score, update."""

    iterations: ZeroOrMore = 100
    """Batches of rollouts; a batch is `tasks_per_iteration` groups."""
    tasks_per_iteration: Count = 8
    """Groups a batch, G."""
    horizon: Count = 40
    """Actions an episode."""
    temperature: Annotated[float, Range(least=1e-3)] = 1.0
    """Sampling temperature of the policy."""
    max_draws: Count = 4
    """How often a batch is refilled by fresh tasks (dynamic sampling) before it goes on smaller."""
    groups_per_update: Count | None = None
    """Groups that fill a batch; None means `tasks_per_iteration`. Surplus groups wait for the next one."""
    imagine_batch_size: Count = 256
    """Episodes imagined at once, at most; each batch is judged while the next is imagined."""
    micro_batch_size: Count | None = None
    """Trajectories whose gradient is computed at once (memory); None means a process's whole share of a minibatch. It
    changes no update."""
    rescore: ZeroOrMore = 1
    """How often rollouts that could not be judged are put to the reward model again."""
    drop_incomplete_groups: bool = False
    """Whether to drop a group of which a rollout stays unjudged; otherwise the judged ones teach."""
    max_error_rate: Fraction = 0.5
    """Share of rollouts left unjudged above which the run stops, to be resumed."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How a run measures its policy: the same tasks in another world, judged by its own judge."""

    world: ComponentConfig = field(default_factory=lambda: ComponentConfig("gymnasium"))
    reward_model: ComponentConfig = field(default_factory=lambda: ComponentConfig("environment"))
    tasks: ComponentConfig | None = None
    """Held-out tasks; None skips evaluation."""
    horizon: Count | None = None
    """Actions an episode; None: as in the loop. More where training starts in the midst of episodes."""
    temperature: Annotated[float, Range(least=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    before: bool = True
    """Whether the policy is measured before it is trained. False where its success is known, from another run on the
    same tasks; the run then has no difference to tell."""
    every: ZeroOrMore = 0
    """Iterations between evaluations; 0 evaluates before and after the run only."""
    videos: ZeroOrMore = 8
    """Rollout videos kept of each evaluation."""


@dataclass(frozen=True)
class RunConfig:
    """`gymnast train`: reinforcement learning of a policy in a world model."""

    kind: ClassVar[str] = "train"
    shards: ClassVar[bool] = True
    """`trainer.strategy=fsdp2` may share the weights between processes."""
    world_model: ComponentConfig
    policy: ComponentConfig
    reward_model: ComponentConfig
    optimizer: ComponentConfig
    tasks: ComponentConfig
    demonstrations: ComponentConfig | None = None
    """Episodes for algorithms that mix imitation into the updates."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    engine: ComponentConfig = field(default_factory=lambda: ComponentConfig("local"))
    """Where rollouts are made and judged: "local", in the process that trains, or an engine plugin such as "ray". It
    may change when a run is resumed."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `lightning.Trainer`; `precision` is that of the update alone."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin: hooks.NAME.KEY."""
    seed: Seed = 0
    output: str | None = None
    """Run folder; None makes runs/<preset>-<timestamp>."""
    checkpoint_every: Count | None = None
    """Iterations between checkpoints; None: as often as `checkpoint_share` allows."""
    checkpoint_share: Annotated[float, Range(above=0, most=1)] | None = None
    """Share of the run's time that writing checkpoints may take where `checkpoint_every` does not say how often; None:
    0.05. After the first iteration one is written in any case, and after the last."""
    check_saved: bool = True
    """Load the saved policy at the end and compare it with the live one. A second copy of the policy must fit into the
    memory of its device meanwhile; false leaves the comparison out."""

    @property
    def evaluation_horizon(self) -> int:
        """Actions an episode of the evaluations during the run."""
        return self.evaluation.horizon or self.loop.horizon

    def __post_init__(self) -> None:
        if self.checkpoint_every is not None and self.checkpoint_share is not None:
            raise ConfigError(
                f"checkpoint_share={self.checkpoint_share:g} has no effect beside "
                f"checkpoint_every={self.checkpoint_every}. Give one of them."
            )
