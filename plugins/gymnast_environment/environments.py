"""Environments that are reset, stepped and looked at many at once, wherever they run."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart
from gymnast_environment.hosting import Hosting
from gymnast_environment.hosts import About, Host, InWorker, Kind, Lost
from gymnast_environment.placement import Placement
from gymnast_environment.pool import Pool, pool_here, pool_of_workers
from gymnast_environment.view import View
from gymnast_environment.worker.seeing import Sensed

__all__ = ["About", "Environments", "Live", "Sensed"]

Result = TypeVar("Result")


class Live:
    """One episode under way in an environment that is lent to it."""

    def __init__(self, start: EnvironmentStart, host: Host, pool: Pool) -> None:
        self.start = start
        self.error: str | None = None
        """Why this episode is lost; None while all is well."""
        self._host, self._pool = host, pool
        self._sensed: Sensed | None = None
        self._released, self._spoilt = False, False

    @property
    def shown(self) -> bool:
        """Whether the environment ever showed anything: False if it could not even be reset."""
        return self._sensed is not None

    @property
    def sensed(self) -> Sensed:
        """What was shown last. Raises `DataError` if nothing ever was."""
        if self._sensed is None:
            raise DataError(f"{self.start.id} with the seed {self.start.seed} was never seen: {self.error}")
        return self._sensed

    @property
    def about(self) -> About:
        """What is known of the environment: action limits, frame rate."""
        return self._host.about

    def release(self) -> None:
        """Give the environment back. May be called more than once."""
        self.let_go()
        self._pool.collect()

    def let_go(self) -> None:
        """As `release`, at any moment and in any thread: what there is to do with the environment is done later."""
        if not self._released:
            self._released = True
            self._pool.give_back(self._host, self.error is None and not self._spoilt)


class _Rehearsal:
    """Whether the resets of one kind of environment can be relied on, tried once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lost = 0
        """Times that trying it ended with an error."""
        self.done = False
        self.verdict: str | None = None
        """Why they cannot; None where they can."""


class Environments:
    """Lends environments.

    >>> environments = Environments(View(cameras={"front": "image"}), Hosting(python="/envs/libero/bin/python"))
    >>> lives = environments.reset([EnvironmentStart("libero/Goal-v0", seed=3)])
    >>> [[after]] = environments.step(lives, [np.zeros((1, 7), np.float32)])
    >>> after.frames_VHWC, after.outcome
    >>> for live in lives:
    ...     live.release()

    The first time that an environment (id and arguments) is used, it is reset a few times: one whose seeds cannot be
    relied on is refused (`worker/resets.py`). `constant_start` allows those that have one start only.
    """

    def __init__(
        self,
        view: View | None = None,
        hosting: Hosting | None = None,
        *,
        check_resets: bool = True,
        constant_start: bool = False,
    ) -> None:
        self.view, self.hosting = view or View(), hosting or Hosting()
        self._check_resets, self._constant = check_resets, constant_start
        self._placement = Placement(self.hosting)
        self._here, self._workers = pool_here(), pool_of_workers(self.hosting)
        self._rehearsals: dict[str, _Rehearsal] = {}
        """By kind of environment."""
        self._looking = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def most_episodes(self, starts: Sequence[EnvironmentStart]) -> int | None:
        """How many of these episodes, in this order, should be under way at once; None: all of them.

        Of several kinds of environments, as many as leave all that were made alive until the last episode: making one
        takes longer than most episodes do. At least half as many as can step at once, all the same.
        """
        if all(self._placement.here(environment_id) for environment_id in {start.id for start in starts}):
            return None
        limit, kinds = self.hosting.max_environments, self._kinds(starts)
        if len(set(kinds)) in (0, 1):
            return limit
        fitting = (together for together in range(limit, 0, -1) if _made(kinds, together) <= limit)
        # Where there are more kinds than may be alive, some are made again and again in any case.
        return max(next(fitting, limit), -(-min(self.hosting.parallel, limit) // 2))

    def alternating(self, starts: Sequence[EnvironmentStart]) -> list[int]:
        """Places of all of them, kinds of environments in turn: so consecutive ones need few of each."""
        by_kind: dict[str, list[int]] = {}
        for place, kind in enumerate(self._kinds(starts)):
            by_kind.setdefault(kind, []).append(place)
        turns = itertools.zip_longest(*by_kind.values())
        return [place for turn in turns for place in turn if place is not None]

    def _kinds(self, starts: Sequence[EnvironmentStart]) -> list[str]:
        return [self._placement.kind(start.id, start.args, self.view).key for start in starts]

    def reset(self, starts: Sequence[EnvironmentStart], *, lenient: bool = False) -> list[Live]:
        """Start one episode each, in parallel. One that cannot be started has an `error`, unless it is all of them.

        Raises `DataError` for environments that cannot be made, whose seeds cannot be relied on, or that do not show
        what the view says; for more starts than `most_episodes`; and if no episode at all can be started. `lenient`
        makes each of these the error of the episode concerned.
        """
        lives = self._lend(starts)
        try:
            self._each(_lenient(self._begin) if lenient else self._begin, lives)
        except BaseException:
            for live in lives:
                live.release()
            raise
        if lives and not lenient and not any(live.shown for live in lives):
            for live in lives:
                live.release()
            raise DataError(f"No episode could be started. First error: {lives[0].error}")
        return lives

    def step(
        self, lives: Sequence[Live], actions: Sequence[np.ndarray], *, lenient: bool = False
    ) -> list[list[Sensed]]:
        """Take actions, (L, A) each, L as they come; what each of the L actions led to.

        An episode that is lost on the way, or was before, gets an `error` and shows its last picture again. Raises
        `DataError` for actions of a width that an environment does not take; `lenient` makes it that episode's error.
        """
        results = self._each(_lenient(self._act) if lenient else self._act, lives, list(actions))
        return [seen if seen is not None else [live.sensed] for seen, live in zip(results, lives, strict=True)]

    def expert(self, lives: Sequence[Live], function: str | None = None) -> list[np.ndarray]:
        """The scripted expert's action for each current state, float32 (A,); zeros for lost episodes.

        `function` is "module:function", called beside the environment as function(environment, observation); None:
        the environment's own `expert_action()`. Raises `DataError` if there is no such expert.
        """
        abouts = [live.about for live in lives if live.shown]
        width = next((len(about.low_A) for about in abouts if about.low_A is not None), 0)
        return self._each(self._advise, lives, [function] * len(lives), [width] * len(lives))

    def call(self, live: Live, method: str, **keywords: Any) -> Any:
        """What a method (or attribute) of the environment itself returns, as plain values."""
        try:
            return live._host.call(method, keywords)
        except Lost as error:
            live.error = str(error)
            raise DataError(f"{live.start.id}: {method} failed: {error}") from error

    def close(self) -> None:
        """End all environments that nobody uses; the others end when they are released.

        Those that others with the same `hosting` may use again are left to them.
        """
        self._here.close(self)
        self._workers.close(self)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _lend(self, starts: Sequence[EnvironmentStart]) -> list[Live]:
        kinds = [self._placement.kind(start.id, start.args, self.view) for start in starts]
        pools = [self._here if self._placement.here(kind.id) else self._workers for kind in kinds]
        hosts: dict[int, Host] = {}
        for pool in (self._here, self._workers):
            places = [place for place, its in enumerate(pools) if its is pool]
            if places:
                hosts.update(zip(places, pool.lend([kinds[place] for place in places], self), strict=True))
        return [Live(start, hosts[place], pools[place]) for place, start in enumerate(starts)]

    def _begin(self, live: Live) -> None:
        host, start = live._host, live.start
        try:
            if not hasattr(host, "about"):
                host.make()
            self._rely_on(host.kind, host, start)
            live._sensed = host.reset(start.seed, dict(start.options))
        except Lost as error:
            live.error = f"reset(seed={start.seed}, options={dict(start.options) or None}) failed: {error}"
        except BaseException:
            live._spoilt = True
            raise

    def _rely_on(self, kind: Kind, host: Host, start: EnvironmentStart) -> None:
        if not self._check_resets:
            return
        with self._looking:
            rehearsal = self._rehearsals.setdefault(kind.key, _Rehearsal())
        lost = rehearsal.lost
        # Of several episodes that start together, one tries for all; the others wait for what it finds.
        with rehearsal.lock:
            if not rehearsal.done:
                if rehearsal.lost > lost:
                    return  # by a crash or a hang: what is wrong shows in this episode's own reset
                try:
                    rehearsal.verdict = host.rehearse(start.seed, dict(start.options), self._constant)
                except BaseException:
                    rehearsal.lost += 1
                    raise
                rehearsal.done = True
        if rehearsal.verdict is not None:
            raise DataError(f"Environment {start.id} with {dict(start.args)} cannot be used: {rehearsal.verdict}")

    def _act(self, live: Live, actions_LA: np.ndarray) -> list[Sensed]:
        if live._released:
            raise DataError(f"The episode in {live.start.id} with the seed {live.start.seed} was released.")
        seen: list[Sensed] = []
        if live.error is None:
            try:
                for sensed in live._host.step(actions_LA):
                    _expect_alike(sensed, live.sensed)
                    live._sensed = sensed
                    seen.append(sensed)
            except Lost as error:
                live.error = str(error)
        return seen + [live.sensed] * (len(actions_LA) - len(seen))

    def _advise(self, live: Live, function: str | None, width: int) -> np.ndarray:
        if live.error is None:
            try:
                return live._host.expert(function)
            except Lost as error:
                live.error = f"its expert failed: {error}"
        return np.zeros(width, np.float32)

    def _each(self, work: Callable[..., Result], lives: Sequence[Live], *more: Sequence[Any]) -> list[Result]:
        """The work for every episode: in parallel for those with a process of their own."""
        away = [place for place, live in enumerate(lives) if isinstance(live._host, InWorker)]
        results: dict[int, Result] = {}
        futures: dict[int, Future[Result]] = {}
        arguments = list(zip(lives, *more, strict=True))
        try:
            for place in away:
                futures[place] = self._pool_of_threads().submit(work, *arguments[place])
            for place, its in enumerate(arguments):
                if place not in futures:
                    results[place] = work(*its)
            wait(futures.values())
        except BaseException:
            for place, future in futures.items():
                host = lives[place]._host
                if not future.cancel() and not future.done() and isinstance(host, InWorker):
                    host.kill()  # or its thread would wait for an answer
            wait(futures.values())
            raise
        results.update({place: future.result() for place, future in futures.items()})
        return [results[place] for place in range(len(lives))]

    def _pool_of_threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.hosting.parallel, thread_name_prefix="environments")
            weakref.finalize(self, self._threads.shutdown, wait=False)
        return self._threads


def _expect_alike(now: Sensed, before: Sensed) -> None:
    """Raises `Lost` if an environment changes the size of what it shows within an episode."""
    for after, earlier in ((now.frames_VHWC, before.frames_VHWC), (now.proprio_P, before.proprio_P)):
        sizes = [None if shown is None else shown.shape for shown in (after, earlier)]
        if sizes[0] != sizes[1]:
            raise Lost(f"it showed {sizes[1]} numbers before and {sizes[0]} now")


def _lenient(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, whose refusals are the episode's error."""

    def done(live: Live, *more: Any) -> Any:
        try:
            return work(live, *more)
        except DataError as error:
            live.error = str(error)
            return None

    return done


def _made(kinds: Sequence[str], together: int) -> int:
    """Environments that are made for episodes of these kinds, if so many are under way at once and none is closed."""
    most: Counter[str] = Counter()
    for first in range(0, len(kinds), together):
        most |= Counter(kinds[first : first + together])
    return most.total()
