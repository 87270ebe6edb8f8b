"""One draw under way on the cluster: a thread hands deals out and takes in what comes back, while the policy learns."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from gymnast_core.interfaces import RewardModel
from gymnast_core.rollouts.deal import Deal
from gymnast_core.training.engine import Making, Wanted
from gymnast_core.training.judge import judge, submit
from gymnast_core.types import Reward, Rollout
from gymnast_ray.crew import Crew, work
from gymnast_ray.wire import PackedBatch, unpack_batch, unpack_rewards
from gymnast_ray.worker import Told


@dataclass(frozen=True)
class Shared:
    """What workers are told, in the object store."""

    told: Told
    weights: Any
    """Reference to the trained weights."""
    states: Any
    """Reference to what other parts remember."""


@dataclass
class MadeBatch:
    """A batch that came back."""

    rollouts: list[Rollout]
    rewards: list[Reward] | None = None
    judging: Future[list[Reward]] | None = None
    """Of a batch that is judged in this process."""


@dataclass(eq=False)
class ImagineJob:
    """A deal for a rollout worker."""

    making: RayMaking
    place: int
    """Its place among the deals of the draw."""
    deal: Deal
    attempts: int = 0
    reference: Any = None

    def submit(self, worker: Any) -> Any:
        wanted, shared = self.making.wanted, self.making.shared
        self.reference = worker.make.remote(self.deal, wanted, shared.told, shared.weights, shared.states)
        return self.reference

    def done(self, result: Sequence[PackedBatch]) -> None:
        self.making.imagined(self, result)


@dataclass(eq=False)
class JudgeJob:
    """What came of a deal, for a worker that judges."""

    making: RayMaking
    of: ImagineJob
    made: Sequence[PackedBatch]
    attempts: int = 0

    def submit(self, worker: Any) -> Any:
        wanted, shared = self.making.wanted, self.making.shared
        # By reference, the frames go from worker to judge; if they were lost on the way, this process still has them.
        made = self.made if self.attempts else self.of.reference
        return worker.judge.remote(self.of.deal, wanted, shared.told, made, shared.states)

    def done(self, result: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        self.making.judged(self, result)


@dataclass(eq=False)
class RayMaking(Making):
    """A draw; begun when it is made."""

    wanted: Wanted
    shared: Shared
    workers: Crew[ImagineJob]
    judges: Crew[JudgeJob] | None
    here: RewardModel | None
    """Who judges in this process, if it is judged here."""
    _made: dict[int, list[MadeBatch]] = field(default_factory=dict)
    """Batches of each deal, by its place."""

    def __post_init__(self) -> None:
        deals = self.wanted.deals
        self.wanted = replace(self.wanted, deals=())  # workers need their own only
        self._count = len(deals)
        self._stopped = threading.Event()
        self._ended: Future[None] = Future()
        self.workers.give(ImagineJob(self, place, deal) for place, deal in enumerate(deals))
        self._thread = threading.Thread(target=self._work, name="gymnast-ray", daemon=True)
        self._thread.start()

    def rollouts(self) -> list[Rollout]:
        return [rollout for batch in self._batches() for rollout in batch.rollouts]

    def rewards(self) -> list[Reward]:
        found: list[Reward] = []
        for batch in self._batches():
            if batch.rewards is None:
                assert self.here is not None
                batch.rewards = judge(self.here, batch.rollouts, batch.judging, self.wanted.loop.rescore)
            found += batch.rewards
        return found

    def stop(self) -> None:
        """Hand out and take in nothing more."""
        self._stopped.set()
        self._thread.join()

    def imagined(self, job: ImagineJob, result: Sequence[PackedBatch]) -> None:
        """A deal came back; called in the thread."""
        batches = []
        for packed, batch in zip(result, job.deal.batches, strict=True):
            batches.append(MadeBatch(*unpack_batch(packed, batch.tasks)))
        self._made[job.place] = batches
        if self.judges is not None:
            self.judges.give([JudgeJob(self, job, result)])
        if self.here is not None:
            self.workers.hand_out()  # a judge that answers at once would keep a worker waiting
            for made in batches:
                made.judging = submit(self.here, made.rollouts)

    def judged(self, job: JudgeJob, result: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """So did its rewards."""
        for made, packed in zip(self._made[job.of.place], result, strict=True):
            made.rewards = unpack_rewards(packed)

    def _work(self) -> None:
        try:
            work([self.workers, *([] if self.judges is None else [self.judges])], self._stopped.is_set)
        except BaseException as error:  # whoever waits hears of it
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _batches(self) -> list[MadeBatch]:
        self._ended.result()
        return [batch for place in range(self._count) for batch in self._made[place]]
