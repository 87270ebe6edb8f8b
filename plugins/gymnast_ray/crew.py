"""Workers that do jobs: whoever is free takes the next one, and a job whose worker died goes to another.

Ray places workers, restarts none of them, and tells when one died. A replacement is asked for at once, wherever the
cluster has room; the others do not wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from gymnast_core.errors import GymnastError

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.2
"""How soon a crew that waits notices that it should stop."""
PATIENCE_SECONDS = 60.0
"""Time without a single worker after which a crew says what it waits for, and says it again."""


class WorkersDying(GymnastError):
    """Workers die again and again; the run stops and can be resumed."""


class Job(Protocol):
    """Something to do, on any worker of a crew."""

    attempts: int
    """Workers that it lost."""

    def submit(self, worker: Any) -> Any:
        """Start it on that worker; a reference to its result."""

    def done(self, result: Any) -> None:
        """It is."""


J = TypeVar("J", bound=Job)


class Crew(Generic[J]):
    """Some workers of one kind."""

    def __init__(
        self,
        kind: str,
        count: int,
        start: Callable[[], tuple[Any, Any]],
        ready: Callable[[Any, Any], None],
        attempts: int,
    ) -> None:
        """`start` returns a new worker and the reference that says that it is built; `ready` is given both then.
        `kind` is what errors call it. A job may lose `attempts` workers less one."""
        self.kind, self._start, self._ready, self._attempts = kind, start, ready, attempts
        self._most_failures = attempts * count
        self._queue: deque[J] = deque()
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, J]] = {}
        self._building: dict[Any, Any] = {}
        self._failures = 0
        """Workers that died since a job was done or a worker was built."""
        self.replaced = 0
        """Workers that died and were replaced."""
        for _ in range(count):
            self._hire()

    def give(self, jobs: Iterable[J]) -> None:
        """More to do."""
        self._queue.extend(jobs)

    @property
    def works(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue or self._busy)

    @property
    def references(self) -> list[Any]:
        """What may end next."""
        return [*self._busy, *self._building]

    @property
    def is_empty(self) -> bool:
        """Whether no worker is there yet."""
        return not self._idle and not self._busy

    def hand_out(self) -> None:
        """Give every free worker something to do."""
        while self._queue and self._idle:
            worker, job = self._idle.pop(), self._queue.popleft()
            self._busy[job.submit(worker)] = (worker, job)

    def settle(self, reference: Any) -> None:
        """Something ended. Raises what was raised there, `WorkersDying` if a job or the crew has lost too many."""
        import ray

        job: J | None = None
        if reference in self._building:
            worker = self._building.pop(reference)
        else:
            worker, job = self._busy.pop(reference)
        try:
            result = ray.get(reference)
            if job is None:
                self._ready(worker, result)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, GymnastError):
                raise error.cause from None  # it says everything, without the traceback of another machine
            raise
        except ray.exceptions.RayError as error:
            self._lost(worker, job, error)
            return
        self._failures = 0
        self._idle.append(worker)
        if job is not None:
            job.done(result)

    def close(self) -> None:
        """End all workers."""
        self._queue.clear()
        for worker in [*self._idle, *self._building.values(), *(worker for worker, _ in self._busy.values())]:
            self._dismiss(worker)
        self._idle, self._building, self._busy = [], {}, {}

    def _lost(self, worker: Any, job: J | None, error: BaseException) -> None:
        self._failures += 1
        if job is not None:
            job.attempts += 1
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if self._failures >= self._most_failures or (job is not None and job.attempts >= self._attempts):
            raise WorkersDying(
                f"Ray's {self.kind} die again and again, most often because memory runs out. The last one: {said} "
                "Give them more (engine.args.cpus, gpus), let fewer share a machine (engine.args.workers), or set "
                "loop.imagine_batch_size lower."
            ) from error
        logger.warning("One of Ray's %s died (%s); what it worked on is done again by another.", self.kind, said)
        self._dismiss(worker)
        if job is not None:
            self._queue.appendleft(job)
        self.replaced += 1
        self._hire()

    def _hire(self) -> None:
        worker, built = self._start()
        self._building[built] = worker

    def _dismiss(self, worker: Any) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(worker, no_restart=True)


def work(crews: Sequence[Crew[Any]], stopped: Callable[[], bool]) -> None:
    """Until nothing is left to do, or `stopped` says so. Raises as of `Crew.settle`."""
    import ray

    waited_since, patience = time.monotonic(), PATIENCE_SECONDS
    while any(crew.works for crew in crews) and not stopped():
        for crew in crews:
            crew.hand_out()
        owner = {reference: crew for crew in crews for reference in crew.references}
        ended, _ = ray.wait(list(owner), num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        for reference in ended:
            owner[reference].settle(reference)
        if not any(crew.works and crew.is_empty for crew in crews):
            waited_since, patience = time.monotonic(), PATIENCE_SECONDS
        elif time.monotonic() - waited_since > patience:
            _say_what_is_missing(crews, time.monotonic() - waited_since)
            patience = 2 * (time.monotonic() - waited_since)


def _say_what_is_missing(crews: Sequence[Crew[Any]], seconds: float) -> None:
    import ray

    kinds = " and ".join(crew.kind for crew in crews if crew.works and crew.is_empty)
    has, free = ray.cluster_resources(), ray.available_resources()
    logger.warning(
        "Waiting for Ray's %s since %d s: they are being built still, or there is no room for them. Of %g CPU and %g "
        "GPU, %g and %g are free; `ray status` tells more.",
        kinds, seconds, *(found.get(name, 0.0) for found in (has, free) for name in ("CPU", "GPU")),
    )  # fmt: skip
