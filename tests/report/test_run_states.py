"""Real runs that end in every way, and what page and `gymnast view` say of them: the state, and the right numbers."""

from __future__ import annotations

import csv
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launching import Launched
from small import CommandLine, Models

from gymnast_core.errors import DataError, GymnastError, StorageError
from gymnast_core.plugins.events import StepDone
from gymnast_core.runs.ending import CRASHED, note_ending
from gymnast_pages import state as states
from gymnast_pages.state import State, state_of, write_state
from gymnast_report.keeping import SHARE, PageKeeper
from gymnast_report.view import freshen

TINY = [
    "reward_model={name: random, args: {probability: 0.5}}", "loop.max_draws=1", "loop.tasks_per_iteration=2",
    "evaluation.videos=0", "loop.iterations=500",  "checkpoint_every=1",
]  # fmt: skip


def tiny(models: Models) -> list[str]:
    return [*(item for item in models.overrides() if not item.startswith("reward_model")), *TINY]


def rows(run: Path) -> int:
    if not (run / "metrics.csv").exists():
        return 0
    with (run / "metrics.csv").open() as file:
        return sum(1 for _ in csv.DictReader(file))


def shown(run: Path, *, fresh: bool = True) -> dict[str, str]:
    """What the page says: state, tiles by label, all of its text. `fresh`: after `gymnast view` looked at it."""
    if fresh:
        freshen(run)
    html = (run / "report.html").read_text()
    text = " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL).split())
    tiles = re.findall(r'<div class="tile"><span class="quiet">(.*?)</span><strong>(.*?)</strong>', html)
    curve = str(html.count("<svg"))
    return {"state": re.findall(r'data-state="(\w+)"', html)[0], "text": text, "curves": curve, **dict(tiles)}


@pytest.fixture
def at_step() -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Do something once a run has that many steps."""
    from gymnast_core.plugins.hooks import plugin_manager

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    plugged: list[Any] = []

    def plan(step: int, what: Callable[[], None]) -> None:
        def gymnast_metrics(event: StepDone) -> None:
            if event.step == step:
                what()

        plugged.append(type("AtStep", (), {"gymnast_metrics": staticmethod(gymnast_metrics)}))
        plugin_manager().add(plugged[-1], f"at-step-{len(plugged)}")

    yield plan
    for plugin in plugged:
        plugin_manager().unregister(plugin)
    signal.signal(signal.SIGINT, before)


def test_a_run_is_running_until_it_is_killed(models: Models, tmp_path: Path) -> None:
    arguments = ["train", "tabletop", *tiny(models)]
    process = Launched(arguments, tmp_path)
    run, end = tmp_path / "run", time.monotonic() + 120
    try:
        while rows(run) < 2:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.02)
        page = shown(run)
        assert state_of(run).name == page["state"] == "running"
        assert re.search(r"Running iteration \d+ of 500, about .* left", page["text"])
        assert "There is no evaluation after training yet" in page["text"] and int(page["curves"]) > 0
    finally:
        process.kill()
        process.wait()
    page = shown(run)  # neither a lock nor an end
    assert state_of(run).name == page["state"] == "lost" and page["Iterations"] == str(rows(run))
    assert "Stopped without saying so" in page["text"] and f"gymnast train --resume {run}" in page["text"]


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_an_interrupted_run_shows_its_curve_and_how_to_go_on(
    models: Models, gymnast: CommandLine, tmp_path: Path, at_step: Any, number: int, said: str
) -> None:
    at_step(3, lambda: os.kill(os.getpid(), number))
    assert gymnast("train", "tabletop", *tiny(models)).code == 128 + number
    run = Path("run")
    page = shown(run, fresh=False)  # nobody had to ask for it
    assert page["state"] == state_of(run).name == "interrupted" and f"by {said}" in page["text"]
    assert int(page["curves"]) > 0 and page["Iterations"] == str(rows(run)) == "2"  # the third was not written down
    assert "Go on with gymnast train --resume run" in page["text"]
    assert "There is no evaluation after training." in page["text"]


def test_a_crash_says_why_and_a_resumed_run_is_finished(
    models: Models, gymnast: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymnast_core.training.update import Updater

    run, original = Path("run"), Updater.update

    def failing(self: Updater, groups: Any, iteration: int, tally: Any) -> Any:
        if iteration == 2:
            raise GymnastError("The <b>camera</b> is upside down.")
        return original(self, groups, iteration, tally)

    with monkeypatch.context() as patch:
        patch.setattr(Updater, "update", failing)
        done = gymnast("train", "tabletop", *tiny(models), "loop.iterations=3")
    assert done.code == 2
    page = shown(run, fresh=False)
    assert page["state"] == state_of(run).name == "crashed" and page["Iterations"] == "2"
    assert "The &lt;b&gt;camera&lt;/b&gt; is upside down." in page["text"]
    assert "Go on with gymnast train --resume run" in page["text"]
    assert gymnast("train", "--resume", "run").code == 0
    page = shown(run, fresh=False)
    assert page["state"] == state_of(run).name == "finished" and page["Iterations"] == "3"
    assert "Go on with" not in page["text"] and "upside down" not in page["text"]


def test_an_error_after_the_last_iteration_is_a_crash(
    models: Models, gymnast: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Any) -> None:
        raise StorageError(f"{path} could not be written: the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("gymnast_core.training.run.write_json", full)
        done = gymnast("train", "tabletop", *tiny(models), "loop.iterations=1")
    assert done.code == 2
    page = shown(Path("run"), fresh=False)
    assert page["state"] == state_of(Path("run")).name == "crashed" and page["Iterations"] == "1"
    assert "the disk is full" in page["text"] and "Go on with gymnast train --resume run" in page["text"]
    assert gymnast("train", "--resume", "run").code == 0
    assert state_of(Path("run")).name == "finished"


def test_folders_of_earlier_versions_are_told_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    assert state_of(tmp_path).name == states.LOST
    assert state_of(tmp_path).resume == f"gymnast evaluate --resume {tmp_path}"
    (tmp_path / "summary.json").write_text("{}")
    assert state_of(tmp_path).name == states.FINISHED
    # A finished run that was resumed and killed is not finished.
    write_state(tmp_path, State(states.RUNNING))
    assert state_of(tmp_path).name == states.LOST
    (tmp_path / "state.json").write_text('{"name": "sleeping"}')
    with pytest.raises(DataError, match=r"state\.json: name is 'sleeping'"):
        state_of(tmp_path)


def test_a_command_that_keeps_no_state_is_told_by_what_ended_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: evaluate\n")
    note_ending(tmp_path, DataError("No clips in here."))
    found = state_of(tmp_path)
    assert (found.name, found.error) == (CRASHED, "No clips in here.")
    assert found.resume == f"gymnast evaluate --resume {tmp_path}"
    # One whose process stopped before it could write its state, which is still that of the last time.
    write_state(tmp_path, State(states.FINISHED, 3, 3, "iteration"))
    found = state_of(tmp_path)
    assert (found.name, found.error, found.step) == (CRASHED, "No clips in here.", 3)
    (tmp_path / "state.json").unlink()
    # One that was done once, and stopped when it was resumed.
    (tmp_path / "summary.json").write_text("{}")
    assert state_of(tmp_path).name == CRASHED


def test_a_page_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cost, built = [0.0], 0.5, []

    def build(folder: Path) -> None:
        built.append(clock[0])
        clock[0] += cost

    monkeypatch.setattr("gymnast_report.report.build_report", build)
    event = SimpleNamespace(folder=tmp_path, step=0, total=900, unit="iteration")
    keeper = PageKeeper(event, lambda: clock[0])  # type: ignore[arg-type]
    keeper.started()
    for _ in range(900):
        clock[0] += 1.0
        keeper.step_done()
    assert len(built) * cost <= 1.1 * SHARE * clock[0] and len(built) > 25
