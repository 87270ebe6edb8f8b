"""Environments whose seeds cannot be relied on are refused when they are first used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart
from gymnast_environment.environments import Environments
from gymnast_environment.hosting import Hosting
from gymnast_environment.hosts import Lost

ID = "gymnast-test/Odd-v0"


class Odd(gymnasium.Env):
    """A picture and readings, drawn as `how` says."""

    resets = 0

    def __init__(self, *, how: str = "sound"):
        self.how, self.worn, self.unseeded = how, 0.0, np.random.default_rng()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        type(self).resets += 1
        super().reset(seed=seed)
        if self.how == "few seeds" and seed not in (3, 4):
            raise KeyError(f"no start {seed}")
        random = self.unseeded if self.how == "unseeded" else self.np_random
        self.place = np.array([2, 2]) if self.how in ("ignores", "given") else random.integers(0, 12, 2)
        if self.how == "given" and options:
            self.place = np.array(options.pop("place"))
        self.readings = np.array([0.1, 0.2]) if self.how == "ignores" else random.normal(size=2)
        if self.how == "unseeded readings":
            self.readings[1] = self.unseeded.normal()
        if self.how == "worn":
            self.readings[0] += self.worn
        return self._observe(), {}

    def step(self, action: np.ndarray):
        self.worn += 1e-9
        return self._observe(), 0.0, self.how == "short", False, {}

    def _observe(self) -> dict[str, Any]:
        image = np.zeros((16, 16, 3), np.uint8)
        image[self.place[0], self.place[1]] = 255
        if self.how == "grainy":
            image += self.unseeded.integers(0, 2, image.shape, dtype=np.uint8) * (image < 200)
        robot = {"arm": self.readings.astype(np.float64), "name": "odd"}
        return {"image": image, "robot": robot}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(ID, entry_point=Odd)
    yield
    gymnasium.registry.pop(ID)


def use(how: str, options: dict[str, Any] | None = None, **settings: Any) -> list[str | None]:
    """Start two episodes: the error of each."""
    environments = Environments(hosting=Hosting(workers=0), **settings)
    lives = environments.reset([EnvironmentStart(ID, 3, options or {}, {"how": how})] * 2)
    assert all(live.shown for live in lives)
    for live in lives:
        live.release()
    environments.close()
    return [live.error for live in lives]


@pytest.mark.parametrize("how", ["sound", "grainy", "few seeds", "short"])
def test_what_can_be_relied_on(how: str) -> None:
    assert use(how) == [None, None]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unseeded", "two resets with the seed 3 show different things.*np_random"),
        ("unseeded readings", r"different things \(robot.arm: number\[1\] is .* and"),
        ("worn", r"different things \(robot.arm: number\[0\] is .* and"),
        ("ignores", "ignores its seed: 8 other seeds than 3 show the very same start.*constant_start=true"),
    ],
)
def test_what_cannot(how: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        use(how)


def test_one_start_only_may_be_said() -> None:
    assert use("ignores", constant_start=True) == [None, None]
    with pytest.raises(DataError, match="different things"):
        use("unseeded", constant_start=True)


def test_options_may_say_what_to_show() -> None:
    assert use("given", {"place": [3, 4]}) == [None, None]


def test_nothing_is_tried_where_nobody_wants_it() -> None:
    assert use("unseeded", check_resets=False) == [None, None]


def test_of_several_that_start_together_none_goes_ahead_of_the_trial() -> None:
    """One tries for all: what it finds is the error of each of them, and of whoever comes later."""
    environments, tried = Environments(hosting=Hosting(workers=0)), []

    def rehearse(*_: Any) -> str:
        tried.append(1)
        time.sleep(0.1)
        return "two resets show different things"

    host, start = SimpleNamespace(rehearse=rehearse), EnvironmentStart(ID, 3)
    kind = SimpleNamespace(key="k")
    with ThreadPoolExecutor(8) as pool:
        together = [pool.submit(environments._rely_on, kind, host, start) for _ in range(8)]
        found = [future.exception() for future in together]
    with pytest.raises(DataError, match="different things"):
        environments._rely_on(kind, host, start)
    assert all(isinstance(error, DataError) and "different things" in str(error) for error in found)
    assert len(tried) == 1


def test_a_trial_that_is_lost_is_not_repeated_by_those_who_waited() -> None:
    """A hang may take an hour to be noticed: one of those who start together pays for it, the others go on."""
    environments, tried = Environments(hosting=Hosting(workers=0)), []

    def rehearse(*_: Any) -> None:
        tried.append(1)
        time.sleep(0.1)
        raise Lost("it hangs")

    host, start = SimpleNamespace(rehearse=rehearse), EnvironmentStart(ID, 3)
    with ThreadPoolExecutor(8) as pool:
        together = [pool.submit(environments._rely_on, SimpleNamespace(key="k"), host, start) for _ in range(8)]
    errors = [future.exception() for future in together]
    assert len(tried) == 1 and sorted(map(type, errors), key=str) == sorted([Lost, *[type(None)] * 7], key=str)
    # Nothing is known yet, so the next one tries.
    with pytest.raises(Lost):
        environments._rely_on(SimpleNamespace(key="k"), host, start)


def test_an_environment_is_tried_once() -> None:
    environments = Environments(hosting=Hosting(workers=0))
    start = EnvironmentStart(ID, 3)
    Odd.resets = 0
    for _ in range(3):
        for live in environments.reset([start, start]):
            live.release()
    assert Odd.resets == 3 * 2 + 3  # its seed, another one, its seed again
