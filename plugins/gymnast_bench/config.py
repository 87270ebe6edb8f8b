"""What `gymnast bench` is told: a base config and the axes along which it varies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_core.config.ranges import Choices, Count, NotNegative, Positive, Seed
from gymnast_core.errors import ConfigError
from gymnast_core.network.address import refuse_secrets

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class BudgetConfig:
    """What a cell may use before it is stopped; its row then says so, and keeps what it had found."""

    minutes: Positive | None = None
    """Wall-clock minutes of a cell over all its attempts; None: no limit."""
    dollars: Positive | None = None
    """US dollars for judging: training, evaluations, audits and canaries of all attempts, seen as soon as a draw of
    rollouts is judged; None: no limit."""


@dataclass(frozen=True)
class BenchConfig:
    """`gymnast bench`: every combination of the axes' values and the seeds is a cell, one `gymnast train`."""

    kind: ClassVar[str] = "bench"
    base: str
    """Preset or YAML file of `gymnast train` that every cell starts from."""
    axes: dict[str, Any] = field(default_factory=dict)
    """Axis -> its values: {label: [override, ...]}, or a list of overrides that label themselves."""
    overrides: list[str] = field(default_factory=list)
    """Overrides of every cell; those of axes come after them and win."""
    exclude: list[Any] = field(default_factory=list)
    """Combinations to leave out, as {axis: label}; the key "seed" works, too. An axis not named matches any label."""
    adjust: list[Any] = field(default_factory=list)
    """Further overrides where a combination matches: {when: {axis: label}, overrides: [...]}; these win over all."""
    seeds: list[Seed] = field(default_factory=lambda: [0])
    jobs: Count = 1
    """Cells at once."""
    threads: Count | None = None
    """CPU threads of a cell; None shares the cores between the jobs."""
    executor: Annotated[str, Choices(*EXECUTORS)] = "local"
    """Where cells run: "local" (this machine) or "ray" (a Ray cluster that shares this file system)."""
    address: str | None = None
    """Ray cluster to join, e.g. "auto"; None: RAY_ADDRESS if that is set, or else Ray on this machine alone."""
    gpus: NotNegative = 0.0
    """GPUs that Ray reserves for a cell."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    retry: bool = False
    """When resuming: also go on with the cells that failed or ran out of their budget."""
    output: str | None = None
    """Folder of the bench; None makes runs/bench-<date>-<time>."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds is {list(self.seeds)}; give at least one, and each once.")
        if self.address is not None:
            refuse_secrets(self.address, "address", "Ray takes HOST:PORT.")
