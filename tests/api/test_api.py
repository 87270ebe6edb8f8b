"""`import gymnast`: what the command line does, as functions."""

from __future__ import annotations

import base64
import csv
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from small import CommandLine, Models, save_models

import gymnast
from gymnast.commands import _config
from gymnast.overrides import words
from gymnast.tables import Table
from gymnast_core.config import RunConfig, load_config
from gymnast_core.config.load import parse_overrides
from gymnast_core.errors import ConfigError, DataError, PluginError

TIMED = {"seconds_imagining", "seconds_updating", "rollouts_per_second"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def run(models: Models, tmp_path_factory: pytest.TempPathFactory) -> gymnast.Run:
    """A training of one iteration, measured before and after."""
    return gymnast.train("tabletop", *models.overrides(), output=tmp_path_factory.mktemp("api") / "run")


def test_importing_takes_no_torch_and_little_time() -> None:
    code = (
        "import resource, sys; import gymnast; gymnast.train; gymnast.world_model; gymnast.Table;"
        "print('torch' in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    heavy, seconds = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert heavy == "False" and float(seconds) < 1.0


def test_every_name_is_there_typed_and_explained() -> None:
    for name in gymnast.__all__:
        found = getattr(gymnast, name)
        assert name.startswith("__") or inspect.getdoc(found), name
        if inspect.isfunction(found):
            assert "return" in found.__annotations__, name
    assert set(dir(gymnast)) == set(gymnast.__all__)
    with pytest.raises(AttributeError, match="trian"):
        _ = gymnast.trian


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        (("loop.iterations=2", "seed=1", "optimizer.args.learning_rate=1e-05", "reward_model=random"), {}),
        (
            ({"loop": {"iterations": 2}, "optimizer.args.learning_rate": 1e-5},),
            {"seed": 1, "reward_model": {"name": "random"}},
        ),
        (("loop.iterations=9", {"loop.iterations": 2, "reward_model": "random"}), {
            "seed": 1, "optimizer": {"args": {"learning_rate": 1e-5}},
        }),
    ],
)  # fmt: skip
def test_changes_mean_what_words_on_the_command_line_mean(changes: Any, keys: dict[str, Any]) -> None:
    typed = ["loop.iterations=2", "seed=1", "optimizer.args.learning_rate=1e-05", "reward_model=random"]
    assert _config(RunConfig, "tabletop", changes, keys, None) == load_config(RunConfig, "tabletop", typed)


def test_values_of_every_kind_arrive_as_they_are() -> None:
    text = 'a "quoted" [text], no: 010 = x'
    args = {"label": text, "path": Path("a b/c"), "list": [1, 0.5, None, True, "12:30"], "number": torch.tensor(3)}
    found = parse_overrides(words([], {"tasks": {"args": args}}))["tasks"]["args"]
    assert found == {**args, "path": "a b/c", "number": 3}
    with pytest.raises(ConfigError, match=r"tasks\.args\.count.*no config holds"):
        gymnast.train("tabletop", tasks={"args": {"count": object()}})
    with pytest.raises(ConfigError, match="changes nothing"):
        gymnast.train("tabletop", 3)  # type: ignore[arg-type]


def test_a_training_is_that_of_the_command_line(
    run: gymnast.Run, models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CommandLine(monkeypatch, capsys)("train", "tabletop", *models.overrides()).code == 0
    told = gymnast.load_run("run")
    assert run.checkpoint is not None and told.checkpoint is not None
    weights = [found.checkpoint / "model.safetensors" for found in (run, told) if found.checkpoint]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {**run.config, "output": None} == {**told.config, "output": None}
    mine, theirs = ({k: v for k, v in found.metrics[0].items() if k not in TIMED} for found in (run, told))
    assert mine == theirs


def test_a_run_is_what_its_files_say(run: gymnast.Run) -> None:
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in run.metrics] == [1] and len(rows) == 1
    assert run.metrics.column("rollouts") == [float(rows[0]["rollouts"])]
    before = json.loads((run.path / "evaluations/before.json").read_text())
    assert (run.evaluations["before"].rate, run.evaluations["before"].n) == (before["rate"], before["n"])
    assert (run.kind, run.page) == ("train", run.path / "report.html")
    assert run.videos and all(film.path.exists() and film.about["phase"] for film in run.videos)
    shown = run._repr_html_()
    assert "n = 2" in shown and "judged by environment" in shown and "data:video/mp4" in shown


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("train", "report.html"), ("fit", "report.html"), ("evaluate", "evaluation.html"), ("judge", "confusion.html"),
        ("probe", "probe.html"), ("gate", "gate.html"), ("adapt", "adapt.html"), ("dyna", "dyna.html"),
        ("imagine", "index.html"),
    ],
)  # fmt: skip
def test_the_page_of_every_command_is_found(kind: str, page: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"kind: {kind}\n")
    (tmp_path / page).write_text("<html></html>")
    assert gymnast.load_run(tmp_path).page == tmp_path / page


def test_a_run_that_has_just_begun_is_one_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: fit\nseed: 0\n")
    found = gymnast.load_run(tmp_path)
    assert (found.kind, len(found.metrics), found.summary, found.checkpoint, found.page) == ("fit", 0, {}, None, None)
    with pytest.raises(DataError, match="has no policy"):
        found.policy()
    with pytest.raises(DataError, match="is not a run folder"):
        gymnast.load_run(tmp_path / "nowhere")


def test_a_rollout_shows_its_frames(run: gymnast.Run) -> None:
    policy, world, judge = run.policy(), run.world_model(), run.reward_model()
    tasks = gymnast.tasks("tabletop", count=2, image_size=32, horizon=4)
    first, again = (gymnast.roll_out(policy, world, tasks, horizon=4, reward_model=judge, seed=3) for _ in range(2))
    assert len(first) == 2 and first[0].reward is not None
    assert torch.equal(first[0].rollout.frames_TVHWC, again[0].rollout.frames_TVHWC)
    found = re.search(r"base64,([^\"]+)", first[0]._repr_html_())
    assert found is not None
    with av.open(io.BytesIO(base64.b64decode(found[1]))) as video:
        assert len(list(video.decode(video=0))) == 5  # the start and what followed each action
    with pytest.raises(ConfigError, match="set horizon="):
        gymnast.roll_out(policy, world, tasks, horizon=3)


def test_the_trained_policy_is_the_one_that_is_built(run: gymnast.Run, models: Models) -> None:
    policy: Any = run.policy()
    world: Any = run.world_model()
    assert policy.config.checkpoint == str(run.checkpoint) and world.config.checkpoint == str(models.world)


def test_a_run_is_evaluated_as_it_evaluated_itself(run: gymnast.Run) -> None:
    found = gymnast.evaluate(run.path, videos=0, output="evaluated")
    values = {label: [row["value"] for row in found.rows if row["policy"] == label] for label in ("start", "trained")}
    rates = {label: sum(given) / len(given) for label, given in values.items()}
    assert rates == {"start": run.evaluations["before"].rate, "trained": run.evaluations["after"].rate}
    both = gymnast.evaluate(run.path, imagined=True, episodes=1, horizon=4, videos=0, output="both")
    assert {row["world"] for row in both.rows} == {"gymnasium", "imagined"}
    with pytest.raises(ConfigError, match="is for the folder of a run"):
        gymnast.evaluate("evaluate-tabletop", imagined=True)


def test_arguments_that_a_checkpoint_does_not_take_are_told(
    tmp_path: Path, models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(models.world, tmp_path / "checkpoint")
    (tmp_path / "config.yaml").write_text("kind: fit\nworld_model: {name: worldgym, args: {window: 77}}\n")
    world: Any = gymnast.load_run(tmp_path).world_model()
    assert world.config.checkpoint == str(tmp_path / "checkpoint") and world.architecture.window != 77
    (line,) = [record.getMessage() for record in caplog.records if "built from" in record.getMessage()]
    assert "without the run's world_model.args: " in line and "window is 77" in line


def test_mistakes_are_exceptions_with_the_words_of_the_command_line() -> None:
    with pytest.raises(gymnast.GymnastError, match="Did you mean 'iterations'"):
        gymnast.train("tabletop", "loop.iteration=2")
    with pytest.raises(gymnast.GymnastError, match="What to evaluate"):
        gymnast.evaluate()
    with pytest.raises(PluginError, match="Did you mean 'worldgym'"):
        gymnast.world_model("worldgmy")
    with pytest.raises(ConfigError, match="actions=keyboard"):
        gymnast.imagine("imagine-tabletop", actions="keyboard")


def test_tables_become_data_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([{"step": 1, "loss": 0.5}, {"step": 2, "kl": 0.1}])
    assert table.columns == ["step", "loss", "kl"] and table.column("loss") == [0.5, None]
    frame = pytest.importorskip("pandas", reason="pandas is not installed") and table.to_pandas()
    assert list(frame.columns) == table.columns and frame["loss"].isna().tolist() == [False, True]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PluginError, match="pip install pandas"):
        table.to_pandas()


def test_a_world_under_given_actions_and_a_judge_on_clips(models: Models) -> None:
    world = {"name": "worldgym", "args": {"checkpoint": models.world}}
    found = gymnast.imagine(
        world_model=world, actions="sweep", tasks={"name": "tabletop", "args": {"count": 1, "image_size": 32}},
        amplitude=[0.01, 0.01], sweep={"frames": 2, "values": 2}, output="imagined",
    )  # fmt: skip
    assert (found.kind, len(found.videos)) == ("imagine", 1)
    judged = gymnast.judge(
        {"reward_model": "random", "clips": {"name": "tabletop-clips", "args": {"image_size": 32}}, "episodes": 4},
        output="judged", videos=0,
    )  # fmt: skip
    assert judged.kind == "judge" and len(judged.rows) == 4 and set(judged.rows.columns) >= {"clip", "value"}


def test_annotations_can_be_read() -> None:
    import gymnast.commands as commands

    for name in ("train", "fit", "evaluate", "judge", "imagine"):
        function = getattr(commands, name)
        assert typing.get_type_hints(function, {**vars(commands), "Run": gymnast.Run})["return"] is gymnast.Run
