"""The engine "ray": rollout workers on any number of machines, under `gymnast train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Parts
from gymnast_core.training.engine import Engine, Making, Wanted
from gymnast_ray.cluster import join, leave
from gymnast_ray.config import RayConfig
from gymnast_ray.crew import Crew
from gymnast_ray.making import ImagineJob, JudgeJob, RayMaking, Shared
from gymnast_ray.weights import frozen_prints, packed_frozen, packed_states, packed_weights, states_key
from gymnast_ray.worker import JudgeWorker, Place, RolloutWorker, Told


class RayEngine(Engine):
    """Rollout workers, each with a policy, a world model and, unless told otherwise, a judge of its own.

    At `staleness` 0 a run has the numbers of one without Ray, whichever worker makes what, and however many die.
    Trained weights go to the workers through Ray's object store before each draw; the process that trains updates,
    measures and writes, as ever. What a judge or a world changes in its own state while it works stays on the worker.
    """

    Config = RayConfig

    def __init__(self, config: RayConfig | None = None) -> None:
        self.config = config or RayConfig()
        self.staleness = self.config.staleness
        self._parts = Parts()
        self._crews: _Crews | None = None
        self._shared: Shared | None = None
        self._shared_version = -1
        self._sharings = 0
        """How often weights were put into the store; names them."""
        self._making: RayMaking | None = None

    def attach(self, parts: Parts) -> None:
        if not hasattr(parts.config, "policy"):
            raise ConfigError("engine=ray builds its workers' parts from the run's config, and there is none.")
        self._parts, self._shared = parts, None

    def start(self, wanted: Wanted) -> Making:
        if self._crews is None:
            self._crews = _Crews(self.config, self._parts)
        here = self._parts.reward_model if self.config.judging == "here" else None
        self._shared = self._share(wanted.version)
        self._making = RayMaking(wanted, self._shared, self._crews.workers, self._crews.judges, here)
        return self._making

    @property
    def replaced(self) -> int:
        """Workers that died so far, and were replaced."""
        return 0 if self._crews is None else self._crews.replaced

    def close(self) -> None:
        """End the workers, and Ray if it is ours."""
        if self._making is not None:
            self._making.stop()
        if self._crews is not None:
            self._crews.close()
        self._crews = self._making = self._shared = None

    def _share(self, version: int) -> Shared:
        """What workers must be told now; weights that they were told are in the store already."""
        import ray

        policy, shared = self._parts.policy, self._shared
        assert policy is not None
        key = states_key(self._parts)
        if shared is None or self._shared_version != version:
            self._sharings += 1
            self._shared_version, weights = version, ray.put(packed_weights(policy))
        else:
            weights = shared.weights
        same_states = shared is not None and shared.told.states_key == key
        states = shared.states if shared is not None and same_states else ray.put(packed_states(self._parts))
        return Shared(Told(self._sharings, key), weights, states)


class _Crews:
    """The workers of a run, and the Ray that they are on."""

    def __init__(self, config: RayConfig, parts: Parts) -> None:
        """Join the cluster and ask for workers. They are built while rollouts wait for them."""
        assert parts.policy is not None
        self._policy, self._config, self._run = parts.policy, config, parts.config
        self._prints = frozen_prints(parts.policy)
        self._frozen: Any = None
        self._joined = join(config, parts.processes.count)
        self.workers: Crew[ImagineJob] = Crew(
            "rollout workers", config.workers, self._start_worker, self._check_frozen, config.attempts
        )
        self.judges: Crew[JudgeJob] | None = None
        if config.judging == "apart":
            self.judges = Crew("judges", config.judges, self._start_judge, lambda *_: None, config.attempts)

    @property
    def replaced(self) -> int:
        return self.workers.replaced + (0 if self.judges is None else self.judges.replaced)

    def close(self) -> None:
        self.workers.close()
        if self.judges is not None:
            self.judges.close()
        if self._joined:
            leave()

    def _start_worker(self) -> tuple[Any, Any]:
        share = _Share(self._config.cpus, self._config.gpus, self._config.resources)
        worker = share.actor(RolloutWorker)
        return worker, worker.build.remote(self._run, share.place, self._config.judging == "workers")

    def _start_judge(self) -> tuple[Any, Any]:
        share = _Share(self._config.judge_cpus, self._config.judge_gpus, self._config.judge_resources)
        worker = share.actor(JudgeWorker)
        return worker, worker.build.remote(self._run, share.place)

    def _check_frozen(self, worker: Any, prints: Mapping[str, str]) -> None:
        """Weights that nobody trains are not sent, unless a worker was built with other ones: drawn by chance, or
        changed since."""
        import ray

        if prints == self._prints:
            return
        if self._frozen is None:
            self._frozen = ray.put(packed_frozen(self._policy))
        ray.get(worker.take_frozen.remote(self._frozen))


@dataclass(frozen=True)
class _Share:
    """What one worker has of a machine."""

    cpus: float
    gpus: float
    resources: Mapping[str, float]

    @property
    def place(self) -> Place:
        return Place(str(Path.cwd()), tuple(sys.path), max(int(self.cpus), 1), self.gpus)

    def actor(self, kind: type) -> Any:
        """A new worker. Ray restarts none: a replacement may be wanted elsewhere, and has to be built first."""
        import ray

        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.resources)}
        return (
            ray.remote(kind)
            .options(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **options)
            .remote()
        )
