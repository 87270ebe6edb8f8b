"""`gymnast adapt`: what is practised, what is protected, what is measured, and how it goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from small import CommandLine, Models

from gymnast_adapt.config import AdaptConfig
from gymnast_adapt.summary import summarise
from gymnast_adapt.tasks import AdaptationTasks
from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.testing import check_dataset
from gymnast_episodes.picture_tasks import PictureTasks


def tabletop(first: int, count: int) -> ComponentConfig:
    return ComponentConfig("tabletop", {"first": first, "count": count, "image_size": 32, "horizon": 4})


def small(models: Models, *more: str) -> list[str]:
    return [
        "adapt-tabletop",
        f"world_model.args.checkpoint={models.world}",
        f"policy.args.checkpoint={models.policy}",
        "policy.args.chunk_length=2",
        "reward_model={name: random, args: {probability: 0.5}}",
        "optimizer.args.group_size=2", "optimizer.args.minibatch_size=4",
        "loop.iterations=2", "loop.tasks_per_iteration=2", "loop.horizon=4",
        "target.args.horizon=4", "retention.args.horizon=4", "retained=3", "trials=4", "batch_size=4", "videos=1",
        "output=out", *more,
    ]  # fmt: skip


def test_target_and_other_tasks_are_measured_before_and_after(gymnast: CommandLine, models: Models) -> None:
    done = gymnast("adapt", *small(models))
    assert done.code == 0, done.err
    summary = json.loads(Path("out/summary.json").read_text())
    for part, n in (("target", 4), ("retention", 3)):
        assert set(summary[part]) == {"imagined", "environment"}
        for cells in summary[part].values():
            assert cells["before"]["n"] == cells["after"]["n"] == cells["change"]["n"] == n
            difference = cells["after"]["rate"] - cells["before"]["rate"]
            assert cells["change"]["difference"] == pytest.approx(difference)
    assert summary["target"]["environment"]["judge"]["name"] == "environment"
    original, adapted = (load_file(folder / "model.safetensors") for folder in (models.policy, Path(summary["policy"])))
    assert any(not (original[name] == adapted[name]).all() for name in original)
    page = Path("out/adapt.html").read_text()
    assert "<video" in page and "Other tasks" in page and "http" not in page.replace("http-equiv", "")
    # Evaluated again from its folder: what it adapted beside what it began with, on the target, as it measured itself.
    done = gymnast("evaluate", "out", "output=again")
    assert done.code == 0, done.err
    assert "Taken from out: policies start (openvla-oft), trained (openvla-oft)" in done.err
    again = json.loads(Path("again/summary.json").read_text())
    for world, cells in summary["target"].items():
        found = {label: again["results"][label][world] for label in ("start", "trained")}
        assert found["start"]["n"] == found["trained"]["n"] == 4
        if world == "environment":  # the other world's judge flips coins, the same ones for the same rollouts only
            assert found["start"]["rate"] == cells["before"]["rate"]
            assert found["trained"]["rate"] == cells["after"]["rate"]


def test_what_is_missing_is_done_when_it_is_resumed(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("adapt", *small(models)).code == 0
    whole = json.loads(Path("out/summary.json").read_text())
    trained = Path("out/training/policy/model.safetensors")
    stamp, content = trained.stat().st_mtime_ns, trained.read_bytes()
    rows = Path("out/target/results.jsonl")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:5]))
    shutil.rmtree("out/retention")
    for name in ("out/summary.json", "out/target/summary.json", "out/adapt.html"):
        Path(name).unlink()
    assert gymnast("adapt", "--resume", "out").code == 0
    assert json.loads(Path("out/summary.json").read_text()) == whole
    assert trained.stat().st_mtime_ns == stamp  # what was trained is not trained again

    shutil.rmtree("out/training/policy")
    Path("out/training/summary.json").unlink()
    assert gymnast("adapt", "--resume", "out").code == 0
    assert trained.read_bytes() == content


def test_killed_before_the_first_snapshot_it_goes_on(gymnast: CommandLine, models: Models) -> None:
    """metrics.csv is written first, and a snapshot in the background."""
    assert gymnast("adapt", *small(models)).code == 0
    content = Path("out/training/policy/model.safetensors").read_bytes()
    for name in ("snapshots", "policy"):
        shutil.rmtree(f"out/training/{name}")
    for name in ("out/summary.json", "out/training/summary.json"):
        Path(name).unlink()
    assert gymnast("adapt", "--resume", str(Path("out").resolve())).code == 0
    assert Path("out/training/policy/model.safetensors").read_bytes() == content


def test_a_resumed_adaptation_keeps_what_it_is(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("adapt", *small(models)).code == 0
    message = gymnast.error("adapt", "--resume", "out", "trials=5")
    assert "trials" in message and "4" in message and "5" in message


def test_protection_reaches_the_training(gymnast: CommandLine, models: Models) -> None:
    others = "protect.tasks={name: tabletop, args: {first: 50, count: 6, image_size: 32, horizon: 4}}"
    done = gymnast(
        "adapt", *small(models, "protect.kl_coefficient=0.1", "protect.lora_rank=2", others, "protect.share=0.5")
    )
    assert done.code == 0, done.err
    run = yaml.safe_load(Path("out/training/config.yaml").read_text())
    assert run["optimizer"]["args"]["kl_coefficient"] == 0.1
    assert run["policy"]["args"]["train"]["lora_rank"] == 2
    assert run["tasks"]["args"]["share"] == 0.5
    assert "kl" in Path("out/training/metrics.csv").read_text().splitlines()[0]
    # Without the adapter's folder, the policy is the original again.
    assert list(Path("out/training/policy").rglob("adapter_model.safetensors"))


def test_a_photograph_and_words_are_a_target(gymnast: CommandLine, models: Models, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    words = ["target=null", "pictures=[scene.png]", "instruction=push the red block to the left", "image_size=[32,32]"]
    overrides = [word for word in small(models) if not word.startswith("target.")]
    done = gymnast("adapt", *overrides, *words)
    assert done.code == 0, done.err
    summary = json.loads(Path("out/summary.json").read_text())
    assert set(summary["target"]) == {"imagined"}  # nothing stands behind a photograph
    assert set(summary["retention"]) == {"imagined", "environment"}
    assert "it may have learned their errors" in Path("out/adapt.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["target=null"], "There is no target"),
        (["pictures=[a.png]", "instruction=x"], "Give one of them"),
        (["target=null", "pictures=[a.png]"], "without words"),
        (["instruction=x"], "instruction goes with pictures"),
        (["image_size=[32,32]"], "image_size=[32, 32] resizes pictures; the tasks of target have a size of their own"),
        (["loop.iterations=0"], "nothing would be learned"),
        (["protect.share=0.5"], "protect.tasks is not given"),
        (["protect.tasks=tabletop", "protect.share=1"], "leaves no start for the target"),
        (["protect.kl_coefficient=0.1", "optimizer.args.kl_coefficient=0.1"], "given twice"),
        (["protect.kl_coefficient=-1"], "protect.kl_coefficient"),
        (["protect.lora_rank=2", "policy.args.train.lora_rank=4"], "lora_rank is given twice"),
        (["trainer.devices=2"], "trainer.devices=2: this command trains in one process. Set it to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(gymnast: CommandLine, words: list[str], told: str) -> None:
    message = gymnast.error("adapt", "adapt-tabletop", "output=out", *words)
    assert told in message, message
    assert not Path("out").exists()


@pytest.mark.parametrize("devices", ["2", "-1", "auto", "[0,1]", "'0,1'", "0", "[]"])
def test_what_may_be_several_processes_is_refused(devices: str) -> None:
    for key in ("devices", "num_nodes"):
        with pytest.raises(ConfigError, match=rf"trainer\.{key}=.*: this command trains in one process"):
            load_config(AdaptConfig, "adapt-tabletop", [f"trainer.{key}={devices}"])


@pytest.mark.parametrize("options", [["devices=1"], ["devices='1'"], ["devices=[3]"], ["devices='3,'", "num_nodes=1"]])
def test_a_single_device_may_be_named(options: list[str]) -> None:
    config = load_config(AdaptConfig, "adapt-tabletop", [f"trainer.{option}" for option in options])
    assert config.trainer["devices"] in (1, "1", [3], "3,")


@pytest.mark.parametrize(
    ("targets", "others", "share"),
    [(100, 10, 0.5), (100, 30, 0.9), (20, 5, 0.25), (1, 1, 0.9), (3, 100, 0.5), (1, 10, 0.5), (7, 2, 1 / 3)],
)
def test_the_share_is_kept_whichever_kind_there_are_few_of(targets: int, others: int, share: float) -> None:
    dataset = AdaptationTasks(AdaptationTasks.Config(tabletop(0, targets), others=tabletop(1000, others), share=share))
    ids = [task.id for task in dataset.tasks()]
    assert len(set(ids)) == len(ids)
    kinds = {True: Counter[str](), False: Counter[str]()}
    for name in ids:
        kinds[name.startswith("other/")][name.rpartition("/")[0]] += 1
    assert abs(kinds[True].total() / len(ids) - share) <= 1 / len(ids)
    assert (len(kinds[False]), len(kinds[True])) == (targets, others)  # every task of both is there
    for times in kinds.values():
        assert max(times.values()) - min(times.values()) <= 1


def test_others_have_their_share() -> None:
    dataset = AdaptationTasks(AdaptationTasks.Config(tabletop(0, 3), count=2, others=tabletop(100, 10), share=0.25))
    tasks = dataset.tasks()
    ids = [task.id for task in tasks]
    others = [name for name in ids if name.startswith("other/")]
    assert len(others) == 10 and len(ids) == 40 and len(set(ids)) == 40
    scenes = {task.start.seed for task in tasks[10:] if task.start is not None}
    assert len(scenes) == 2  # `count` of the three targets
    check_dataset(dataset)


def test_without_others_the_targets_are_as_they_are() -> None:
    tasks = AdaptationTasks(AdaptationTasks.Config(tabletop(0, 3))).tasks()
    assert len(tasks) == 3 and not any(task.id.startswith("other") for task in tasks)
    with pytest.raises(ConfigError, match="give it together with others"):
        AdaptationTasks(AdaptationTasks.Config(tabletop(0, 3), share=0.5))


def test_pictures_are_tasks(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    level = np.zeros((4, 6, 3), np.uint8)
    for name, red in (("a/x.png", 10), ("b/x.png", 200)):
        level[..., 0] = red
        Image.fromarray(level).save(tmp_path / name)
    files = [str(tmp_path / "a/x.png"), str(tmp_path / "b/x.png")]
    dataset = PictureTasks(PictureTasks.Config(files, "lift it"))
    tasks = dataset.tasks()
    assert [task.id for task in tasks] == files  # two pictures of one name keep their folders
    assert [int(task.frames_TVHWC[0, 0, 0, 0, 0]) for task in tasks] == [10, 200]
    assert tasks[0].frames_TVHWC.shape == (1, 1, 4, 6, 3) and tasks[0].start is None
    check_dataset(dataset)
    with pytest.raises(ConfigError, match="twice"):
        PictureTasks(PictureTasks.Config([files[0], files[0]], "lift it"))
    with pytest.raises(ConfigError, match="Say what is to be done"):
        PictureTasks(PictureTasks.Config(files, " "))
    with pytest.raises(DataError, match="There is no picture"):
        _ = PictureTasks(PictureTasks.Config([str(tmp_path / "c.png")], "lift it")).tasks()[0]


def test_a_change_counts_only_what_was_judged_twice() -> None:
    cell = {"rate": None, "interval": None, "n": 0, "unscored": 4, "tasks": {}}
    evaluation = {
        "judges": {"imagined": {"name": "j", "kind": "success"}}, "starts": 1, "unscored": 8, "cost_usd": 0.5,
        "results": {"before": {"imagined": cell}, "after": {"imagined": cell}}, "comparisons": [],
    }  # fmt: skip
    found = summarise({"target": evaluation}, "p")
    assert found["target"]["imagined"]["change"] is None
    assert found["unscored"] == 8 and found["cost_usd"] == 0.5
    assert summarise({"target": evaluation}, "p", 0.25)["cost_usd"] == 0.75  # practice is paid for, too
    assert summarise({"target": evaluation}, "p", None)["cost_usd"] is None
