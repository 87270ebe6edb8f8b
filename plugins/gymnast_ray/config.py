"""What the engine is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gymnast_core.config.ranges import Choices, Count, NotNegative, Positive, Range
from gymnast_core.network.address import refuse_secrets

JUDGING = ("workers", "apart", "here")


@dataclass(frozen=True)
class RayConfig:
    """Where workers are, what each of them gets, and who judges."""

    workers: Count = 2
    """Rollout workers, each with a policy and a world model of its own (and a judge, unless `judging` says otherwise);
    of a training in several processes, this many for each process."""
    cpus: NotNegative = 1.0
    """CPUs that Ray reserves for a worker, and the threads that it computes with (at least one)."""
    gpus: NotNegative = 0.0
    """GPUs that Ray reserves for a worker; 0.5 lets two workers share one."""
    resources: dict[str, float] = field(default_factory=dict)
    """Further resources of a worker, by the names that the cluster's nodes were started with."""
    staleness: Annotated[int, Range(least=0, most=1)] = 0
    """1: while the policy is updated, workers already imagine the next iteration's first draw, with the weights from
    before that update. 0: they wait for it, and a run has the numbers of one without Ray."""
    judging: Annotated[str, Choices(*JUDGING)] = "workers"
    """Who judges: "workers" (each what it imagined), "apart" (`judges` workers that do nothing else), or "here" (the
    process that trains; for judges behind a network, whose budget and ledger are then one)."""
    judges: Count = 1
    """Workers that judge, with judging=apart."""
    judge_cpus: NotNegative = 1.0
    """CPUs that Ray reserves for each of them, and the threads that it computes with (at least one)."""
    judge_gpus: NotNegative = 0.0
    """GPUs that Ray reserves for each of them."""
    judge_resources: dict[str, float] = field(default_factory=dict)
    """Further resources of each of them."""
    address: str | None = None
    """Ray cluster to join, e.g. "auto"; None: RAY_ADDRESS if that is set, or else Ray on this machine alone."""
    object_store_gib: Positive | None = None
    """Shared memory, in GiB, of a Ray on this machine alone; None: as much as Ray chooses. It holds the trained weights
    and the rollouts that were not fetched yet."""
    attempts: Count = 3
    """How often the same rollouts may lose their worker before the run stops."""

    def __post_init__(self) -> None:
        if self.address is not None:
            refuse_secrets(self.address, "engine.args.address", "Ray takes HOST:PORT.")
