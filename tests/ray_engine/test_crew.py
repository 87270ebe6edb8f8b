"""Crews of workers that die, without processes: what Ray would answer is made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gymnast_core.errors import ConfigError
from gymnast_ray.crew import Crew, WorkersDying, work

ray = pytest.importorskip("ray")


@dataclass(eq=False)
class Reference:
    """What a worker was asked for."""

    result: Any


@dataclass(eq=False)
class Worker:
    """Answers with `answers`, one after the other, then with its own number; an error ends it."""

    number: int
    answers: list[Any] = field(default_factory=list)
    killed: bool = False

    def asked(self) -> Reference:
        return Reference(self.answers.pop(0) if self.answers else self.number)


@dataclass(eq=False)
class Job:
    name: str
    attempts: int = 0
    result: Any = None
    tried: list[int] = field(default_factory=list)

    def submit(self, worker: Worker) -> Reference:
        self.tried.append(worker.number)
        return worker.asked()

    def done(self, result: Any) -> None:
        assert self.result is None, "a job is done once"
        self.result = result


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(reference: Reference) -> Any:
        if isinstance(reference.result, BaseException):
            raise reference.result
        return reference.result

    def wait(references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        return references[:1], references[1:]

    def kill(worker: Worker, no_restart: bool) -> None:
        worker.killed = True

    for name, stub in {"get": get, "wait": wait, "kill": kill}.items():
        monkeypatch.setattr(ray, name, stub)


class Hired:
    """A crew, and everybody who was ever in it; `answers` are those of each worker, that it was built first."""

    def __init__(self, *answers: list[Any], count: int = 2, attempts: int = 3) -> None:
        self.answers, self.workers = list(answers), list[Worker]()
        self.crew: Crew[Job] = Crew("workers", count, self.start, lambda worker, result: None, attempts)

    def start(self) -> tuple[Worker, Reference]:
        number = len(self.workers)
        self.workers.append(Worker(number, self.answers[number] if number < len(self.answers) else []))
        return self.workers[-1], self.workers[-1].asked()

    def work(self, count: int) -> list[Job]:
        jobs = [Job(str(number)) for number in range(count)]
        self.crew.give(jobs)
        work([self.crew], lambda: False)
        return jobs


def died() -> Exception:
    return ray.exceptions.ActorDiedError()


def test_every_job_is_done_once_whoever_dies() -> None:
    hired = Hired(["built", "one", died()], [died()], ["built", died()])
    jobs = hired.work(6)
    assert all(job.result is not None for job in jobs)
    assert hired.crew.replaced == 3 and len(hired.workers) == 5
    assert [worker.killed for worker in hired.workers] == [True, True, True, False, False]
    assert sum(job.attempts for job in jobs) == 2
    assert all(len(job.tried) == job.attempts + 1 for job in jobs)


def test_a_job_that_kills_everybody_ends_the_run() -> None:
    hired = Hired(*(["built", died()] for _ in range(9)), count=1, attempts=3)
    with pytest.raises(WorkersDying, match=r"workers die again and again.*died unexpectedly.*engine.args.workers"):
        hired.work(1)
    assert len(hired.workers) == 3


def test_workers_that_cannot_be_built_end_the_run() -> None:
    hired = Hired(*([died()] for _ in range(9)), count=2, attempts=2)
    with pytest.raises(WorkersDying):
        hired.work(1)
    assert len(hired.workers) == 2 + 3


def test_an_error_of_ours_is_told_as_it_is() -> None:
    error = ConfigError("There is no /models on this machine.")
    raised = ray.exceptions.RayTaskError("build", "a long traceback of another machine", error).as_instanceof_cause()
    hired = Hired(["built", raised], count=1)
    with pytest.raises(ConfigError) as found:
        hired.work(1)
    assert found.value is error


def test_a_bug_in_a_plugin_is_told_with_its_traceback() -> None:
    raised = ray.exceptions.RayTaskError("make", "the traceback", ValueError("a bug")).as_instanceof_cause()
    with pytest.raises(ValueError, match="the traceback"):
        Hired(["built", raised], count=1).work(1)


def test_a_crew_stops_when_it_is_told_to() -> None:
    hired = Hired()
    hired.crew.give([Job("never")])
    work([hired.crew], lambda: True)
    assert hired.crew.works
    hired.crew.close()
    assert all(worker.killed for worker in hired.workers)
