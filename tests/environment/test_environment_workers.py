"""Environments in processes of their own: as many as may be, none left behind, and no crash costs more than itself."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import farama_notifications
import gymnasium
import numpy as np
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from plain_environment import ID, SIZE

from gymnast_core.errors import DataError
from gymnast_core.types import EnvironmentStart
from gymnast_environment.environments import Environments, Live
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View

VIEW = View(proprio=["robot.place"], instruction_key="instruction", outcomes_key="outcomes")


def start(seed: int = 0, **args: Any) -> EnvironmentStart:
    return EnvironmentStart(ID, seed, {}, args)


@contextmanager
def environments(view: View = VIEW, check_resets: bool = False, **hosting: Any) -> Iterator[Environments]:
    made = Environments(view, Hosting(**{"workers": 2, **hosting}), check_resets=check_resets)
    try:
        yield made
    finally:
        made.close()


def release(lives: list[Live]) -> None:
    for live in lives:
        live.release()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def moves(count: int, length: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(count, length, 2)).astype(np.float32))


def test_a_worker_shows_what_this_process_shows() -> None:
    with environments() as away, environments(workers=0) as here:
        lives = {
            place: made.reset([start(0), start(1, name="red")]) for place, made in (("away", away), ("here", here))
        }
        for there, mine in zip(lives["away"], lives["here"], strict=True):
            assert np.array_equal(there.sensed.frames_VHWC, mine.sensed.frames_VHWC)
            assert (there.sensed.instruction, there.about.fps) == (mine.sensed.instruction, 20.0)
            assert there.about.high_A is not None and there.about.high_A.tolist() == [4.0, 4.0]
        assert lives["away"][1].sensed.instruction == "move the red square to the right"
        for _ in range(2):
            for there, mine in zip(away.step(lives["away"], moves(2)), here.step(lives["here"], moves(2)), strict=True):
                assert len(there) == 3
                for one, other in zip(there, mine, strict=True):
                    assert np.array_equal(one.frames_VHWC, other.frames_VHWC)
                    assert np.array_equal(one.proprio_P, other.proprio_P)
                    assert (one.outcome, one.outcomes, one.ended) == (other.outcome, other.outcomes, other.ended)
        assert here.call(lives["here"][0], "pid") == os.getpid() != away.call(lives["away"][0], "pid")


def test_experts_act_beside_the_environment() -> None:
    with environments() as made:
        lives = made.reset([start(0), start(1)])
        assert [action.tolist() for action in made.expert(lives)] == [[4.0, 0.0]] * 2
        expected = [[live.sensed.proprio_P[0] / 2, 0.0] for live in lives if live.sensed.proprio_P is not None]
        assert [action.tolist() for action in made.expert(lives, "plain_environment:slowly")] == expected
        for name in ("plain_environment:fast", "nowhere:act", "slowly"):
            with pytest.raises(DataError, match=f"The expert '{name}' cannot be used"):
                made.expert(lives, name)


def test_environments_are_made_once_and_reused() -> None:
    with environments() as made:
        pids = []
        for seed in range(3):
            lives = made.reset([start(seed), start(seed + 1)])
            pids.append({made.call(live, "pid") for live in lives})
            release(lives)
        assert len(pids[0]) == 2 and pids[0] == pids[1] == pids[2]
    assert not any(is_alive(pid) for pid in pids[0])


def test_the_longest_idle_make_room() -> None:
    with environments(max_environments=2) as made:
        pids = {}
        for name in ("a", "b", "a", "c", "a"):
            (live,) = made.reset([start(0, name=name)])
            pids.setdefault(name, []).append(made.call(live, "pid"))
            live.release()
        assert len(set(pids["a"])) == 1
        assert not is_alive(pids["b"][0]) and is_alive(pids["c"][0])


@pytest.mark.parametrize(
    ("limit", "names", "most"),
    [
        (8, "abab", 8),
        (8, "abcde", 8),
        (12, "aaaaaaaabbbbbbbbcccccccc", 4),  # groups of eight
        (12, "abcde" * 10, 10),
        (12, "ab" * 4 + "a" * 16, 8),
        (2, "abc", 2),  # more kinds than may be alive
        (3, "aaaabbbbcccc", 2),  # one at a time would leave all alive, and three of four workers idle
    ],
)
def test_several_kinds_leave_each_other_alive(limit: int, names: str, most: int) -> None:
    with environments(max_environments=limit, workers=4) as made:
        assert made.most_episodes([start(seed, name=name) for seed, name in enumerate(names)]) == most


@given(st.text("abc", min_size=2, max_size=30), st.integers(1, 12))
def test_as_many_episodes_at_once_as_leave_all_environments_alive(names: str, limit: int) -> None:
    """By hand: the most of a kind in any batch is what must be alive of it."""

    def alive(together: int) -> int:
        batches = [names[first : first + together] for first in range(0, len(names), together)]
        return sum(max(batch.count(kind) for batch in batches) for kind in set(names))

    with environments(max_environments=limit, workers=1) as made:
        most = made.most_episodes([start(seed, name=name) for seed, name in enumerate(names)])
    assert 1 <= most <= limit
    if len(set(names)) <= limit and len(set(names)) > 1:
        assert alive(most) <= limit
        assert all(alive(more) > limit for more in range(most + 1, limit + 1))


def test_episodes_of_several_kinds_in_turn_make_few_environments() -> None:
    with environments(max_environments=4) as made:
        starts = [start(seed, name=name) for seed, name in enumerate("aaaabababbb")]
        order = made.alternating(starts)
        assert sorted(order) == list(range(len(starts)))
        assert "".join(starts[place].args["name"] for place in order) == "ababababab" + "a"
        most = made.most_episodes([starts[place] for place in order])
        assert most == 4
        pids = set()
        for first in range(0, len(order), most):
            lives = made.reset([starts[place] for place in order[first : first + most]])
            pids |= {made.call(live, "pid") for live in lives}
            release(lives)
        assert len(pids) == 4


def test_no_more_environments_than_there_may_be() -> None:
    with environments(max_environments=2) as made:
        assert made.most_episodes([start(seed) for seed in range(9)]) == 2
        lives = made.reset([start(0), start(1)])
        with pytest.raises(DataError, match=r"1 environments are wanted at once and 2 are in use.*max_environments"):
            made.reset([start(2)])
        release(lives)
        release(made.reset([start(2)]))


def test_who_hosts_alike_shares_environments_and_their_number() -> None:
    with environments(max_environments=2) as tasks, environments(max_environments=2) as world:
        lives = tasks.reset([start(0), start(1)])
        pids = {tasks.call(live, "pid") for live in lives}
        release(lives)
        # Otherwise there would be four now.
        lives = world.reset([start(2), start(3)])
        assert {world.call(live, "pid") for live in lives} == pids
        tasks.close()
        release(lives)
        assert all(is_alive(pid) for pid in pids), "the other one still uses them"
    assert not any(is_alive(pid) for pid in pids)


def test_another_view_shares_the_number_only() -> None:
    other = replace(VIEW, rotate=180)
    with environments(max_environments=1) as plain, environments(other, max_environments=1) as turned:
        (live,) = plain.reset([start(0)])
        upright, pid = live.sensed.frames_VHWC, plain.call(live, "pid")
        live.release()
        (live,) = turned.reset([start(0)])
        np.testing.assert_array_equal(live.sensed.frames_VHWC[:, ::-1, ::-1], upright)
        assert not is_alive(pid), "it made room"
        live.release()


def test_two_at_once_do_not_wait_for_each_other() -> None:
    with environments(max_environments=1) as world, environments(max_environments=1) as judge:
        lives = world.reset([start(0)]) + judge.reset([start(0)])
        assert world.call(lives[0], "pid") != judge.call(lives[1], "pid")
        release(lives)


FAULTS = {
    "raise": "RuntimeError: the table collapsed",
    "exit": r"its process ended during step \(exit code 7\)\. It printed: about to exit",
    "segfault": r"its process ended during step \(signal SIGSEGV\)",
    "hang": r"step took longer than 1\.5 s \(hosting\.step_timeout_s\).*about to hang",
    "hold": r"step took longer than 1\.5 s",
    "grow": r"showed \(1, 16, 16, 3\) numbers before and \(1, 64, 64, 3\) now",
    "large": r"TooLarge",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crash_is_its_own_episode_s_error(fault: str) -> None:
    with environments(step_timeout_s=1.5 if fault in ("hang", "hold") else 60.0) as made:
        lives = made.reset([start(0, fault=fault), start(1)])
        pid = lives[0]._host._process.pid  # type: ignore[attr-defined]
        lost, sound = made.step(lives, moves(2))
        assert lives[1].error is None and len(sound) == 3
        assert lives[0].error is not None
        assert re.search(FAULTS[fault], lives[0].error), lives[0].error
        assert len(lost) == 3 and all(sensed.frames_VHWC.shape == (1, SIZE, SIZE, 3) for sensed in lost)
        assert np.array_equal(lost[1].frames_VHWC, lost[0].frames_VHWC)
        again = made.step(lives, [np.full((3, 2), 4.0, np.float32)] * 2)
        assert np.array_equal(again[0][2].frames_VHWC, lost[2].frames_VHWC)
        assert not np.array_equal(again[1][2].frames_VHWC, sound[2].frames_VHWC)
        assert made.expert(lives)[0].tolist() == [0.0, 0.0]
        release(lives)
        assert not is_alive(pid)
        replaced = made.reset([start(0, fault=fault), start(1)])
        assert [live.error for live in replaced] == [None, None]
        release(replaced)


@pytest.mark.parametrize("fault", ["raise", "exit", "hang"])
def test_a_start_that_fails_costs_no_other_episode(fault: str) -> None:
    with environments(reset_timeout_s=1.5 if fault == "hang" else 60.0) as made:
        lives = made.reset([EnvironmentStart(ID, 0, {"fault": fault}), start(1)])
        assert lives[0].error is not None and "reset(seed=0" in lives[0].error and not lives[0].shown
        assert lives[1].error is None and lives[1].shown
        release(lives)
        with pytest.raises(DataError, match=r"No episode could be started.*reset\(seed=0"):
            made.reset([EnvironmentStart(ID, 0, {"fault": fault})])


@pytest.mark.parametrize(
    ("environment_id", "args", "message"),
    [
        ("gymnast-test/Nowhere-v0", {}, "No Gymnasium environment 'gymnast-test/Nowhere-v0'"),
        ("not_installed:Some-v0", {}, "No module named 'not_installed'"),
        (ID, {"colour": "red"}, r"unexpected keyword argument 'colour'.*start\.args"),
        (ID, {"fault": "raise", "at": "make"}, r"RuntimeError: the table collapsed"),
        (ID, {"fault": "exit", "at": "make"}, r"its process ended during make \(exit code 7\)"),
        (ID, {"name": {1, 2}}, r"start\.args of .* cannot be sent"),
    ],
)
def test_environments_that_cannot_be_made(environment_id: str, args: dict[str, Any], message: str) -> None:
    with environments() as made, pytest.raises(DataError, match=message):
        made.reset([EnvironmentStart(environment_id, 0, {}, args)] * 2)


def test_actions_of_another_width_are_refused_and_cost_nothing() -> None:
    with environments() as made:
        lives = made.reset([start(0)])
        with pytest.raises(DataError, match="Actions have 3 dimensions"):
            made.step(lives, [np.zeros((2, 3), np.float32)])
        assert len(made.step(lives, moves(1))[0]) == 3 and lives[0].error is None


def test_an_environment_that_this_process_registered_runs_in_a_worker() -> None:
    """The id names no module, and nothing installed registers it."""
    with environments() as made:
        (live,) = made.reset([EnvironmentStart(ID.partition(":")[2], 0)])
        assert made.call(live, "pid") != os.getpid()


def test_seeds_are_tried_in_the_worker() -> None:
    with environments(check_resets=True) as made:
        assert len(made.reset([start(0), start(1)])) == 2


def test_keys_do_not_reach_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "my_password", "GITHUB_TOKEN_FILE")
    for name in secrets:
        monkeypatch.setenv(name, "sk-123")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    with environments(variables={"MUJOCO_GL": "egl"}) as made:
        (live,) = made.reset([start(0)])
        found = made.call(live, "variables")
    assert not set(secrets) & set(found) and "sk-123" not in found.values()
    assert found["MUJOCO_GL"] == "egl" and found["TOKENIZERS_PARALLELISM"] == "false" and "PATH" in found


def test_a_dropped_layer_leaves_no_process() -> None:
    made = Environments(VIEW, Hosting(workers=2), check_resets=False)
    lives = made.reset([start(0), start(1)])
    pids = [made.call(live, "pid") for live in lives]
    lives[0].release()
    del made, lives
    gc.collect()
    time.sleep(0.1)
    assert not any(is_alive(pid) for pid in pids)


def test_a_bare_interpreter_is_enough(tmp_path: Path) -> None:
    """NumPy and Gymnasium, with what they need themselves, are all that a worker imports."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for module in (np, gymnasium, cloudpickle, farama_notifications):
        folder = Path(module.__file__).parent
        (packages / folder.name).symlink_to(folder)
    (packages / "typing_extensions.py").symlink_to(typing_extensions.__file__)
    libraries = Path(np.__file__).parent.parent / "numpy.libs"
    if libraries.exists():
        (packages / "numpy.libs").symlink_to(libraries)
    (packages / "plain_environment.py").symlink_to(Path(__file__).parent / "plain_environment.py")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    with environments(python=str(python), variables={"PYTHONPATH": str(packages)}) as made:
        lives = made.reset([start(0)])
        assert len(made.step(lives, moves(1))[0]) == 3
        modules = made.call(lives[0], "modules")
    assert not {name.partition(".")[0] for name in modules} & {
        "torch",
        "gymnast_core",
        "gymnast_environment",
        "omegaconf",
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, r"hosting\.python: .* cannot be started"),
        ("import sys; sys.exit('no numpy here')", r"its process ended during make \(exit code 1\).*no numpy here"),
        ("import os, sys; os.write(int(sys.argv[2]), b'What is all this?' * 9)", "speaks another language"),
        ("import os, sys; os.write(int(sys.argv[2]), b'GYM1' + bytes(12)); os.read(int(sys.argv[2]), 1)", "language"),
    ],
    ids=["missing", "without packages", "garbage", "an empty message"],
)
def test_an_interpreter_that_is_none(script: str | None, message: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!{sys.executable}\n{script}\n")
        python.chmod(0o755)
    with environments(python=str(python)) as made, pytest.raises(DataError, match=message):
        made.reset([start(0)])
