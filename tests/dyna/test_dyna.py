"""`gymnast dyna`: what each round is made of, how it goes on, when it ends."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small import CommandLine, Models

from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import Dataset
from gymnast_core.plugins.compose import registries
from gymnast_core.runs.spending import Payment, note
from gymnast_core.types import Episode
from gymnast_dyna.command import _cost, _Rounds
from gymnast_dyna.config import DynaConfig, RefitConfig, StopConfig
from gymnast_dyna.page import _change
from gymnast_dyna.refit import Refit
from gymnast_dyna.stages import Parts, collect_config, refit_of, train_config
from gymnast_episodes.replayed import ReplayedEpisodes
from gymnast_pages.claims import Change

TASKS = "{name: tabletop, args: {first: 0, count: 4, image_size: 32, horizon: 4}}"
IMAGINED = f"judge.imagined={{tasks: {TASKS}, horizon: 4, fps: 10}}"


def small(models: Models, *more: str) -> list[str]:
    environment = "{id: gymnast/Tabletop-v0, name: robot, args: {image_size: 32, horizon: 4}, count: 3}"
    return [
        f"policy={{name: openvla-oft, args: {{checkpoint: {models.policy}, chunk_length: 2}}}}",
        f"world_model={{name: worldgym, args: {{checkpoint: {models.world}}}}}",
        f"reward_model={{name: success-classifier, args: {{checkpoint: {models.judge}}}}}",
        f"collect={{environments: [{environment}], view: {{instruction_key: instruction, outcomes_key: outcomes}}, "
        "horizon: 4}",
        "world={fit: {fit: {steps: 2, batch_size: 2, warmup_steps: 1}}, recorded: {name: lerobot, args: {window: 5}}}",
        "judge={fit: {fit: {steps: 2, batch_size: 2, warmup_steps: 1}}, recorded: {name: lerobot, args: {window: 5}}, "
        "replayed: true}",
        f"train={{optimizer: {{name: grpo, args: {{group_size: 2, minibatch_size: 4, accuracy_bounds: [0, 1]}}}}, "
        f"tasks: {TASKS}, loop: {{iterations: 1, tasks_per_iteration: 2, horizon: 4, max_draws: 1}}, "
        "trainer: {accelerator: cpu}}",
        f"evaluate={{world_model: gymnasium, reward_model: environment, tasks: {TASKS}, horizon: 4, batch_size: 4, "
        "videos: 0}",
        "rounds=2", "output=out", *more,
    ]  # fmt: skip


def test_each_round_builds_on_the_one_before(
    gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagined: list[int] = []
    imagine = ReplayedEpisodes._imagined

    def counted(self: ReplayedEpisodes, episodes: Sequence[Episode], number: int) -> list[Episode]:
        imagined.append(len(episodes))
        return imagine(self, episodes, number)

    monkeypatch.setattr(ReplayedEpisodes, "_imagined", counted)
    done = gymnast("dyna", *small(models, "judge.fit.fit.steps=6"))
    assert done.code == 0, done.err
    # One recording in the first round, two in the second: each once, however often the judge looks.
    assert imagined == [3, 3, 3]
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["state"] == "done" and summary["cost_usd"] == 0.0
    assert [row["label"] for row in summary["rounds"]] == ["start", "round-1", "round-2"]
    assert all(row["measured"]["gymnasium"]["n"] == 4 for row in summary["rounds"])
    assert summary["policy"] == str(Path("out/round-2/train/policy").resolve())

    def config(place: str) -> dict[str, Any]:
        return yaml.safe_load(Path(f"out/{place}/config.yaml").read_text())

    # The policy of the round before acts, the world of the round before learns, and practice is in the new ones.
    assert config("round-1/collect")["actor"]["policy"]["args"]["checkpoint"] == str(models.policy)
    assert config("round-2/collect")["actor"]["policy"]["args"]["checkpoint"] == str(
        Path("out/round-1/train/policy").resolve()
    )
    assert config("round-2/world_model")["world_model"]["args"]["checkpoint"] == str(
        Path("out/round-1/world_model/checkpoint").resolve()
    )
    assert config("round-2/train")["world_model"]["args"]["checkpoint"] == str(
        Path("out/round-2/world_model/checkpoint").resolve()
    )
    assert config("round-2/train")["reward_model"]["args"]["checkpoint"] == str(
        Path("out/round-2/reward_model/checkpoint").resolve()
    )
    # Every round learns from the recordings of all.
    paths = [part["args"]["path"] for part in config("round-2/world_model")["episodes"]["args"]["of"]]
    assert paths == [str(Path(f"out/round-{number}/collect/episodes").resolve()) for number in (1, 2)]
    # The judge also sees them as the round's world model shows them.
    seen = [Path(part["args"]["path"]) for part in config("round-2/reward_model")["episodes"]["args"]["of"]]
    replays = [Path(f"out/round-2/replayed/{number}").resolve() for number in (1, 2)]
    assert seen == [*map(Path, paths), *replays]
    for path, replay in zip(paths, replays, strict=True):
        source = json.loads((replay / "conversion.json").read_text())["source"]
        assert source["name"] == "replayed-episodes" and source["args"]["episodes"]["args"]["path"] == path
        assert source["args"]["world_model"]["args"]["checkpoint"] == str(
            Path("out/round-2/world_model/checkpoint").resolve()
        )
    _assert_under_other_frames("out/round-1/collect/episodes", "out/round-1/replayed/1")
    before, after = (
        load_file(path / "model.safetensors") for path in (models.world, Path("out/round-1/world_model/checkpoint"))
    )
    assert any(not (before[name] == after[name]).all() for name in before)
    page = Path("out/dyna.html").read_text()
    assert "round-2" in page and "<svg" in page
    assert page.count('class="interval"') == 3  # of each policy's success, on the curve
    (pair,) = (
        row for row in json.loads(Path("out/evaluation/summary.json").read_text())["comparisons"]
        if {row["first"], row["second"]} == {"start", "round-2"}
    )  # fmt: skip
    change = pair["difference"] if pair["second"] == "round-2" else -pair["difference"]
    said = re.search(r"A change of <strong>([+−-]?[\d.]+) points</strong>\s.*?; (\d+) trials judged of both", page)
    assert said is not None and said[2] == "4"
    assert float(said[1].replace("−", "-")) == pytest.approx(100 * change, abs=0.05)
    # Evaluated from its folder: the last round's policy beside the first one, as the rounds measured them.
    done = gymnast("evaluate", "out", "--imagined", "output=again")
    assert done.code == 0, done.err
    again = json.loads(Path("again/summary.json").read_text())["results"]
    rates = {row["label"]: row["measured"]["gymnasium"]["rate"] for row in summary["rounds"]}
    assert again["start"]["gymnasium"]["rate"] == rates["start"]
    assert again["trained"]["gymnasium"]["rate"] == rates["round-2"]
    assert again["trained"]["imagined"]["n"] == 4
    evaluated = yaml.safe_load(Path("again/config.yaml").read_text())
    assert evaluated["policies"]["trained"]["args"]["checkpoint"] == str(Path("out/round-2/train/policy").resolve())


def test_it_goes_on_where_it_stopped_and_adds_rounds(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("dyna", *small(models)).code == 0
    whole = {
        name: Path(f"out/{name}").read_bytes()
        for name in ("round-2/train/policy/model.safetensors", "evaluation/results.jsonl")
    }
    first = Path("out/round-1/train/policy/model.safetensors").stat().st_mtime_ns
    for later in ("reward_model", "replayed"):
        shutil.rmtree(f"out/round-2/{later}")
    _leave_only_the_config(Path("out/round-2/train"))  # killed before its first snapshot
    for name in ("out/summary.json", "out/round-2/world_model/summary.json", "out/round-2/measured.json"):
        Path(name).unlink()
    rows = Path("out/evaluation/results.jsonl").read_text().splitlines(keepends=True)
    Path("out/evaluation/results.jsonl").write_text("".join(rows[:9]))
    done = gymnast("dyna", "--resume", "out")
    assert done.code == 0, done.err
    assert {name: Path(f"out/{name}").read_bytes() for name in whole} == whole
    assert Path("out/round-1/train/policy/model.safetensors").stat().st_mtime_ns == first

    done = gymnast("dyna", "--resume", "out", "rounds=3")
    assert done.code == 0, done.err
    rounds = json.loads(Path("out/summary.json").read_text())["rounds"]
    assert [row["label"] for row in rounds][-1] == "round-3"


@pytest.mark.parametrize(("first", "second", "sign"), [("start", "round-1", 1), ("round-1", "start", -1)])
def test_a_change_is_from_the_first_policy_to_the_last(first: str, second: str, sign: int, tmp_path: Path) -> None:
    bounds = sorted(sign * bound for bound in (0.05, 0.25))
    pair = {
        "world": "gymnasium", "first": first, "second": second, "difference": sign * 0.15, "interval": bounds, "n": 100
    }  # fmt: skip
    others = [
        {**pair, "world": "imagination", "n": 7},
        {**pair, "first": "round-0", "n": 8},
        {**pair, "interval": None},
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/summary.json").write_text(json.dumps({"comparisons": [*others, pair]}))
    rows = [{"label": "start"}, {"label": "round-0"}, {"label": "round-1"}]
    assert _change(tmp_path, rows, "gymnasium") == Change(0.15, (0.05, 0.25), 100)
    assert _change(tmp_path / "elsewhere", rows, "gymnasium") is None


@pytest.mark.parametrize(("practice", "total"), [(0.25, 1.75), (None, None)])
def test_rounds_cost_what_practice_and_measuring_cost(
    practice: float | None, total: float | None, tmp_path: Path
) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/summary.json").write_text('{"cost_usd": 1.0}')
    note(tmp_path / "round-0/train", Payment("training", 1, 0.5))
    note(tmp_path / "round-1/train", Payment("training", 1, practice))
    assert _cost(tmp_path) == total


def test_a_judge_learns_from_recordings_without_a_rate(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registries().datasets.build("tabletop", {"count": 1, "image_size": 32}).tasks()[0]
    frames_TVHWC = task.frames_TVHWC[:1].repeat(3, 1, 1, 1, 1)
    episode = Episode("a", task.instruction, frames_TVHWC, torch.zeros(2, 2), success=True)
    assert episode.fps is None

    class Unrated(Dataset):
        api_version = 2

        @dataclass(frozen=True)
        class Config:
            path: str = ""

        def __init__(self, config: Config) -> None:
            pass

        def episodes(self) -> Sequence[Episode]:
            return [episode, episode]

    datasets = registries().datasets
    monkeypatch.setattr(datasets, "_registered", dict(datasets._registered))
    datasets.register("unrated", Unrated)
    how = RefitConfig(recorded=ComponentConfig("unrated"), replayed=True, fit={"fit": {"steps": 1, "batch_size": 2}})
    world = ComponentConfig("worldgym", {"checkpoint": str(models.world)})
    judge = ComponentConfig("success-classifier", {"checkpoint": str(models.judge)})
    refit = Refit(how, "reward_model", judge, world, [tmp_path / "mine"], 0, tmp_path / "round/reward_model", "judge")
    assert Path(refit.work().args["checkpoint"]) == tmp_path / "round/reward_model/checkpoint"


def _assert_under_other_frames(recording: str, replay: str) -> None:
    """The same actions and outcomes, under other frames than were recorded, but for the first."""
    recorded, replayed = (
        registries().datasets.build("lerobot", {"path": path}).episodes() for path in (recording, replay)
    )
    for before, after in zip(recorded, replayed, strict=True):
        assert torch.equal(before.actions_TA, after.actions_TA)
        for said in ("success", "outcomes", "instruction"):
            assert getattr(before, said) == getattr(after, said)
        assert torch.equal(before.frames_TVHWC[0], after.frames_TVHWC[0])
        assert not torch.equal(before.frames_TVHWC[1:], after.frames_TVHWC[1:])


def _leave_only_the_config(run: Path) -> None:
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.yaml":
            path.unlink()


def test_a_person_may_record(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("dyna", *small(models, "rounds=1", "judge=null", "output=other")).code == 0
    words = [word for word in small(models, "judge=null") if not word.startswith(("collect=", "judge={"))]
    done = gymnast("dyna", *words)
    assert done.code == 0 and "Round 1 waits for a recording" in done.err
    assert json.loads(Path("out/summary.json").read_text())["state"] == "waiting"
    done = gymnast("dyna", "--resume", "out", "recordings=[other/round-1/collect/episodes]")
    assert done.code == 0 and "Round 2 waits for a recording" in done.err
    assert "recordings=[other/round-1/collect/episodes, FOLDER]" in done.err
    message = gymnast.error("dyna", "--resume", "out", "recordings=[elsewhere]")
    assert "add to them" in message


def test_practice_may_come_first(gymnast: CommandLine, models: Models) -> None:
    done = gymnast("dyna", *small(models, "begin=train", "rounds=1", "judge=null"))
    assert done.code == 0, done.err
    labels = [row["label"] for row in json.loads(Path("out/summary.json").read_text())["rounds"]]
    assert labels == ["start", "round-0", "round-1"]
    collected = yaml.safe_load(Path("out/round-1/collect/config.yaml").read_text())
    assert collected["actor"]["policy"]["args"]["checkpoint"] == str(Path("out/round-0/train/policy").resolve())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["world=null", "judge=null"], "recording changes nothing"),
        (["recordings=[x]"], "Give one of them"),
        (["train.policy=openvla-oft"], "train.policy is set by the rounds themselves"),
        (["collect.actor={kind: random}"], "collect.actor is set by the rounds themselves"),
        (["world.replayed=true"], "not from what it imagined"),
        (["train.loop.iterationss=3"], "train.loop.iterationss"),
        (["evaluate.tasks=null"], "tasks"),
        (["world.fit.fit.steps=0"], "world.fit.fit.steps"),
        (["reward_model={name: random}"], "has no argument `checkpoint`"),
        ([f"judge.imagined={{tasks: {TASKS}, horizon: 4}}"], "judge.imagined.fps"),
        ([IMAGINED, "judge.imagined.policy=openvla-oft"], "judge.imagined.policy is set by the rounds themselves"),
        ([IMAGINED, "judge.imagined.horizonn=4"], "horizonn"),
        (["train.trainer.devices=2"], "train.trainer.devices=2: this command trains in one process"),
        (["world.recorded.args.path=mine"], "world.recorded.args.path is set to each recording"),
        (
            ["collect.environments=[{id: gymnast/Tabletop-v0, seeds: [100-149], count: 3}]"],
            "collect.environments[0].seeds would start every round from the same seeds",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_once(gymnast: CommandLine, models: Models, words: list[str], told: str) -> None:
    message = gymnast.error("dyna", *small(models), *words)
    assert told in message, message
    assert not Path("out").exists()


def _config(models: Models, *more: str) -> DynaConfig:
    return load_config(DynaConfig, None, small(models, *more))


def test_rounds_never_meet_the_same_seeds(models: Models) -> None:
    config = _config(models)
    parts = Parts(config.policy, config.world_model, config.reward_model)
    firsts = [collect_config(config, parts, number, Path("x")).environments[0].first for number in (1, 2, 3)]
    seeds = [collect_config(config, parts, number, Path("x")).seed for number in (1, 2, 3)]
    assert firsts == [0, 1_000_000, 2_000_000] and len(set(seeds)) == 3


def test_no_round_of_a_seed_draws_what_a_round_of_another_seed_draws(models: Models) -> None:
    """Studies over seeds would have fewer than they count."""
    made: dict[str, list[int]] = {}
    for seed in range(4):
        config = _config(models, f"seed={seed}")
        parts = Parts(config.policy, config.world_model, config.reward_model)
        for number in (1, 2, 3):
            made.setdefault("train", []).append(train_config(config, parts, number, Path("x")).seed)
            made.setdefault("collect", []).append(collect_config(config, parts, number, Path("x")).seed)
            made.setdefault("refit", []).append(refit_of(config, "world_model", parts, [], number, Path("x")).seed)
    assert {key: len(set(seeds)) for key, seeds in made.items()} == dict.fromkeys(made, 12)


@pytest.mark.parametrize("section", ["train.trainer", "world.fit.trainer", "judge.fit.trainer"])
@pytest.mark.parametrize("devices", ["2", "-1", "auto", "[0,1]", "'0,1'", "0", "[]"])
def test_what_may_be_several_processes_is_refused(section: str, devices: str, models: Models) -> None:
    for key in ("devices", "num_nodes"):
        with pytest.raises(ConfigError, match=rf"^{section}\.{key}=.*: this command trains in one process"):
            _config(models, f"{section}.{key}={devices}")


@pytest.mark.parametrize("devices", ["1", "'1'", "[3]", "'3,'"])
def test_a_single_device_may_be_named(devices: str, models: Models) -> None:
    config = _config(models, *(f"{key}.trainer.devices={devices}" for key in ("train", "world.fit", "judge.fit")))
    sections = [config.train, config.world.fit, config.judge.fit]
    assert all(section["trainer"]["devices"] in (1, "1", [3], "3,") for section in sections)


def test_a_judge_learns_from_what_the_policy_imagines(gymnast: CommandLine, models: Models) -> None:
    """Of every round so far: that of the round before in the world model of the round, labelled by the simulator."""
    done = gymnast("dyna", *small(models, IMAGINED))
    assert done.code == 0, done.err
    assert "Round 2: imagine, and execute what was imagined" in done.err

    def made_of(number: int) -> dict[str, Any]:
        return json.loads(Path(f"out/round-{number}/imagined/conversion.json").read_text())["source"]["args"]

    assert made_of(2)["policy"]["args"]["checkpoint"] == str(Path("out/round-1/train/policy").resolve())
    assert made_of(2)["world_model"]["args"]["checkpoint"] == str(Path("out/round-2/world_model/checkpoint").resolve())
    assert made_of(1)["seed"] != made_of(2)["seed"]
    learned = yaml.safe_load(Path("out/round-2/reward_model/config.yaml").read_text())["episodes"]["args"]["of"]
    assert [part["args"]["path"] for part in learned if "imagined" in str(part["args"].get("path"))] == [
        str(Path(f"out/round-{number}/imagined").resolve()) for number in (1, 2)
    ]  # fmt: skip
    world = yaml.safe_load(Path("out/round-2/world_model/config.yaml").read_text())["episodes"]["args"]["of"]
    assert "imagined" not in str(world), "a world model learns from what was seen"
    assert "4 imagined and executed" in Path("out/dyna.html").read_text()
    # Killed between imagining and learning, it goes on with what was imagined.
    before = Path("out/round-2/imagined/conversion.json").stat().st_mtime_ns
    shutil.rmtree("out/round-2/reward_model")
    shutil.rmtree("out/round-2/train")
    for name in ("out/summary.json", "out/round-2/measured.json"):
        Path(name).unlink()
    assert gymnast("dyna", "--resume", "out").code == 0
    assert Path("out/round-2/imagined/conversion.json").stat().st_mtime_ns == before


def test_earlier_episodes_come_along(models: Models) -> None:
    config = _config(models, "world.earlier={name: lerobot, args: {path: play, window: 5}}", "world.times=3")
    parts = Parts(config.policy, config.world_model, config.reward_model)
    refit = refit_of(config, "world_model", parts, [Path("a"), Path("b")], 2, Path("x"))
    args = refit.config().episodes.args
    assert [part["args"]["path"] for part in args["of"]] == ["play", "a", "b"]
    assert args["times"] == [1, 3, 3]


@pytest.mark.parametrize(
    ("rates", "least", "patience", "ends"),
    [
        ([0.3, 0.31], 0.02, 1, True),
        ([0.3, 0.33], 0.02, 1, False),
        ([0.3, 0.5, 0.4], 0.02, 1, True),  # less than the best before
        ([0.3, 0.31, 0.36], 0.02, 2, False),
        ([0.3, 0.31, 0.31], 0.02, 2, True),
        ([0.3], 0.02, 1, False),
        ([0.3, 0.5, 0.4, 0.45], 0.02, 2, True),  # the best before, not the last
        ([0.3, 0.1], None, 1, False),
        ([-0.3, -0.2], 0.02, 1, False),
        ([-0.3, None, -0.2], 0.02, 1, False),  # a round that could not be scored is no 0
        ([-0.3, None, -0.29], 0.02, 1, True),
        ([0.3, None], 0.02, 1, False),  # nor is it fruitless
        ([0.3, 0.31, None], 0.02, 2, False),
        ([0.3, 0.31, None, 0.31], 0.02, 2, True),
        ([None, 0.3], 0.02, 1, False),  # nothing to compare with
        ([None, 0.3, 0.31], 0.02, 1, True),
    ],
)
def test_fruitless_rounds_end_it(rates: list[float | None], least: float | None, patience: int, ends: bool) -> None:
    assert _ends("collect", rates, StopConfig(least, patience)) is ends


@pytest.mark.parametrize(
    ("rates", "ends"),
    [
        ([0.3, 0.3], False),  # nothing was recorded yet
        ([0.3, 0.3, 0.31], True),
        ([0.3, 0.5, 0.4], True),  # round 0 was better
        ([0.3, None, 0.4], False),
    ],
)
def test_practice_before_the_first_recording_is_no_fruitless_round(rates: list[float | None], ends: bool) -> None:
    assert _ends("train", rates, StopConfig(0.02, 1)) is ends


def _ends(begin: str, rates: list[float | None], stop: StopConfig) -> bool:
    part = ComponentConfig("any")
    config = DynaConfig(part, part, part, {}, {}, collect={}, world=RefitConfig(), begin=begin, stop=stop)
    rounds = _Rounds(config, Path("x"))
    rounds.rows = [{"reference": "w", "measured": {"w": {"rate": rate}}} for rate in rates]
    return rounds._is_fruitless()
