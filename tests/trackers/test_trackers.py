"""What trackers hold of a run is what metrics.csv holds, also after SIGKILL, and nothing that is secret."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from offline import mlflow_points, wandb_rows, wandb_text
from small import CommandLine, Models, save_models
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gymnast_core.errors import StorageError
from gymnast_core.runs.metrics import read_metrics

OWN = ("evaluation/", "videos", "_")
"""Beginnings of the names of what is sent beside the rows of metrics.csv."""
ITERATIONS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def gymnast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Where MLflow keeps its runs: it remembers stores by their address."""
    return f"{tmp_path}/store"


def table(run: Path) -> dict[int, dict[str, float]]:
    """metrics.csv by step."""
    return {
        int(row["step"]): {name: float(text) for name, text in row.items() if name != "step"}
        for row in read_metrics(run / "metrics.csv")
    }


def success(run: Path) -> list[tuple[int, float]]:
    """What the evaluations found, by step; the one after the run counts for its last step."""
    found = {}
    for label in ("before", "iteration-000002", "iteration-000004", "after"):
        content = json.loads((run / "evaluations" / f"{label}.json").read_text())
        found[content.get("iteration") or 0] = content["rate"]
    return sorted(found.items())


@pytest.mark.usefixtures("_libraries")
def test_what_a_killed_and_resumed_run_sent_is_its_record(models: Models, gymnast: CommandLine, store: str) -> None:
    arguments = [
        "train", "tabletop", *models.overrides(), f"loop.iterations={ITERATIONS}", "evaluation.every=2",
        "checkpoint_every=2", "hooks.wandb.mode=offline", "hooks.wandb.videos=4", f"hooks.mlflow.tracking_uri={store}",
        "hooks.mlflow.videos=4",
    ]  # fmt: skip
    script = [sys.executable, str(Path(__file__).with_name("killed_train.py")), *arguments]
    assert subprocess.run(script, capture_output=True).returncode == -9
    run = Path("run")
    names = {name: json.loads((run / f"trackers/{name}.json").read_text())["run"] for name in ("wandb", "mlflow")}
    points = mlflow_points(store, names["mlflow"])
    assert max(step for step, _ in points["rollouts"]) == 2  # behind the third stood no snapshot

    done = gymnast("train", "--resume", "run")
    assert done.code == 0, done.err
    rows = table(run)
    assert list(rows) == [1, 2, 3, 4]

    history = wandb_rows(run)
    assert [row["_step"] for row in history] == [0, 1, 2, 3, 4]
    for row in history:
        own = {name: value for name, value in row.items() if not name.startswith(OWN)}
        assert own == pytest.approx(rows.get(row["_step"], {}), rel=0, abs=0)
    assert [(row["_step"], row["evaluation/success"]) for row in history if "evaluation/success" in row] == success(run)
    assert 0 < len(list(run.glob("wandb/offline-run-*/files/media/videos/*.mp4"))) <= 4

    points = mlflow_points(store, names["mlflow"])
    for name in {name for row in rows.values() for name in row}:
        expected = [(step, row[name]) for step, row in rows.items() if name in row]
        assert sorted(points[name]) == expected, name
    assert points["evaluation/success"] == success(run)
    assert {name: json.loads((run / f"trackers/{name}.json").read_text())["run"] for name in names} == names
    kept = [path.name for path in Path("store").glob(f"*/{names['mlflow']}/artifacts/**/*") if path.is_file()]
    assert "report.html" in kept and "config.yaml" in kept and 0 < sum(name.endswith(".mp4") for name in kept) <= 4
    assert not [thread for thread in threading.enumerate() if "wandb" in thread.name]


@pytest.mark.usefixtures("_libraries")
def test_a_tracker_that_fails_ends_no_run_and_is_told_of_once(
    models: Models,
    gymnast: CommandLine,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from gymnast_trackers import following, mlflow_sink

    monkeypatch.setattr(following, "PAUSE_SECONDS", 0.0)
    works = mlflow_sink.MlflowSink.send
    calls: list[int] = []

    def refused(self: Any, point: Any) -> None:
        calls.append(point.step)
        if len(calls) <= 2:
            raise ConnectionError("the network is gone")
        works(self, point)

    monkeypatch.setattr(mlflow_sink.MlflowSink, "send", refused)
    done = gymnast(
        "train", "tabletop", *models.overrides(), "loop.iterations=3", "checkpoint_every=1",
        f"hooks.mlflow.tracking_uri={store}", "hooks.mlflow.videos=0",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = [record.getMessage() for record in caplog.records if "hooks.mlflow" in record.getMessage()]
    assert len([text for text in told if "the network is gone" in text]) == 1
    assert any("2 attempts failed" in text for text in told)
    points = mlflow_points(store, json.loads(Path("run/trackers/mlflow.json").read_text())["run"])
    assert [step for step, _ in points["rollouts"]] == [1, 2, 3]  # sent later: nothing is lost


@pytest.mark.usefixtures("_libraries")
def test_secrets_and_the_environment_stay_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gymnast_trackers.secrets import without_secrets
    from gymnast_trackers.sink import Opening, Point
    from gymnast_trackers.wandb_options import Config
    from gymnast_trackers.wandb_sink import WandbSink

    monkeypatch.setenv("SOME_API_KEY", "sk-do-not-tell")
    monkeypatch.setattr(sys, "argv", ["gymnast", "train", "argument-of-the-command"])
    config = without_secrets(
        {"args": {"api_key": "sk-in-config", "url": "https://me:sk-login@host/x", "tokens": "kept", "list": [1]}}
    )
    assert config == {"args": {"api_key": "(withheld)", "url": "https://host/x", "tokens": "kept", "list": [1]}}
    for name in ("x-api-key", "X-Auth-Token", "apiKey", "API_KEYS", "api_keys", "hf_token", "password", "accessToken"):
        assert without_secrets({name: ["sk-1"]}) == {name: ["(withheld)"]}, name
    for name in ("monkey", "keys", "tokenizer", "turnkey", "secretary"):
        assert without_secrets({name: "kept"}) == {name: "kept"}, name
    assert without_secrets("http://user:p/w@host/x?to=a@b") == "http://host/x?to=a@b"
    for address in ("https://x.org/data@v1", "hf://datasets/o/n@main/x.parquet", "http://localhost:8000/v1@2"):
        assert without_secrets(address) == address
    assert without_secrets("ws://h/x?token=a&to=b&api-key=c") == "ws://h/x?token=(withheld)&to=b&api-key=(withheld)"
    sink = WandbSink(Config(mode="offline"), Opening(tmp_path, "train", config))
    sink.send(Point(1, {"loss": 0.5, "odd": math.nan}))
    sink.finish(True)
    text = wandb_text(tmp_path)
    assert "(withheld)" in text and [row["_step"] for row in wandb_rows(tmp_path)] == [1]
    for secret in ("sk-", "argument-of-the-command"):
        assert secret not in text


def test_a_missing_library_is_one_error_with_the_command(gymnast: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'gymnast[wandb]'" in gymnast.error("train", "tabletop", "hooks.wandb.mode=offline")


@pytest.mark.usefixtures("_libraries")
def test_a_login_in_an_address_is_refused(gymnast: CommandLine) -> None:
    for uri in (
        "http://me:secret-word@host:5000",
        "http://host:5000/?t=secret-word",
        "mysql://host/db?password=secret-word",
    ):
        said = gymnast.error("train", "tabletop", f"hooks.mlflow.tracking_uri='{uri}'")
        assert "MLFLOW_TRACKING_PASSWORD" in said and "secret-word" not in said


def test_a_failure_is_told_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gymnast_trackers.following import Following, _Followed

    monkeypatch.setenv("WANDB_API_KEY", "secret-word-0123456789")

    def refused(run: object) -> None:
        raise RuntimeError("401 for Basic secret-word-0123456789")

    with caplog.at_level("DEBUG", logger="gymnast_core.trackers"):
        Following("wandb", object, refused)._attempt(_Followed(None, None, 1), refused)  # type: ignore[arg-type]
    assert "401 for Basic [key]" in caplog.text and "Traceback" in caplog.text and "secret-word" not in caplog.text


def test_a_run_that_ended_by_an_error_is_closed_as_incomplete(tmp_path: Path) -> None:
    """The event says it, whoever handles an exception meanwhile."""
    from gymnast_core.plugins.events import RunStopped
    from gymnast_trackers.following import Following, _Followed

    closed: list[bool] = []

    class Followed(Following):
        def _close(self, run: _Followed, complete: bool) -> None:
            closed.append(complete)

    following = Followed("wandb", object, lambda options, opening: None)  # type: ignore[arg-type, return-value]
    following._runs[tmp_path] = _Followed(RunStopped(None, tmp_path), None, 3)
    try:
        raise RuntimeError("of somebody else")
    except RuntimeError:
        following.stopped(RunStopped(None, tmp_path, 3))
    assert closed == []  # its summary and its page are to come
    following.stopped(RunStopped(None, tmp_path, 3, error=KeyboardInterrupt()))
    assert closed == [False]


def curves(folder: Path, steps: list[int], done: int = 0) -> None:
    """A run's curves, as one process writes them."""
    from gymnast_trackers.events_file import EventsFile

    file = EventsFile(folder / "tensorboard", done + 1)
    for step in steps:
        file.add(step, {"loss": step / 3, "kl": float("nan")})
    file.close()


def test_tensorboard_shows_every_step_once(tmp_path: Path) -> None:
    curves(tmp_path, [1, 2, 3])
    curves(tmp_path, [3, 4], done=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]


def test_tensorboard_shows_what_was_recorded_before_a_kill(tmp_path: Path) -> None:
    from gymnast_trackers.events_file import EventsFile

    file = EventsFile(tmp_path, 1)
    file.add(1, {"loss": 1 / 3})
    file.add(2, {"loss": 1e-17, "kl": 2.0})
    events = EventAccumulator(str(tmp_path))
    events.Reload()  # of a file that nobody has closed
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([1 / 3, 1e-17])
    assert events.Tags()["scalars"] == ["loss", "kl"]
    file.close()


def test_curves_that_a_disk_refuses_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(StorageError, match=r"tensorboard/events.* cannot be written"):
        curves(tmp_path, [1])


def test_tensorboard_is_written_unless_it_is_not_wanted(models: Models, gymnast: CommandLine) -> None:
    small = ["train", "tabletop", *models.overrides(), "evaluation.tasks=null"]
    assert gymnast(*small, "hooks.tensorboard.enabled=false").code == 0
    assert not Path("run/tensorboard").exists()
    assert gymnast(*small, "output=other").code == 0
    events = EventAccumulator("other/tensorboard")
    events.Reload()
    rows = table(Path("other"))
    assert {name: events.Scalars(name)[0].value for name in rows[1]} == pytest.approx(rows[1], rel=1e-6)
