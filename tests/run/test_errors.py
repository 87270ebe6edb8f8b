"""What a user can get wrong ends in one message and exit code 2: what failed, what exists, what to type next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small import INSTRUCTIONS, WORLD, CommandLine, Models, build

from gymnast_tabletop.record import Recording, record

PARTS = ["world_model=worldgym", "policy=openvla-oft", "reward_model=random", "optimizer=grpo", "tasks=tabletop"]


def contains(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, message


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gymnast_core.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tabletp"], ["No preset 'tabletp'", "Did you mean 'tabletop'?", "Known: ", "A path to a YAML file"]),
        (
            ["tabletop", "world_model=worldgm", "policy.args.checkpoint=null"],
            ["No world model 'worldgm'", "Did you mean 'worldgym'?", "gymnasium"],
        ),
        (["tabletop", "policy=openvla-of"], ["No policy 'openvla-of'", "'openvla-oft'", "gymnast plugins"]),
        (["tabletop", "loop.horizn=3"], ["loop.horizn", "Did you mean 'horizon'?", "iterations"]),
        (["tabletop", "optimizer.args.groups=3"], ["optimizer.args.groups", "Did you mean 'group_size'?"]),
        (["tabletop", "loop.iterations=many"], ["loop.iterations", "'many'", "Integer"]),
        (["tabletop", "trainer=fast"], ["trainer", "str"]),
        (PARTS[:-1], ["Missing value: tasks", "tasks=VALUE"]),
        (["nowhere.yaml"], ["nowhere.yaml", "gymnast presets"]),
        (["--resume", "nowhere"], ["nowhere", "not a run folder", "config.yaml", "that a run wrote"]),
        (["fit-tabletop-policy"], ["fit-tabletop-policy", "gymnast fit"]),
    ],
)
def test_what_the_config_gets_wrong(gymnast: CommandLine, arguments: list[str], parts: list[str]) -> None:
    contains(gymnast.error("train", *arguments), *parts)


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (["train", "tabletop"], "policy.args.checkpoint=gone"),
        (["train", "tabletop"], "world_model.args.checkpoint=gone"),
        (["evaluate", "evaluate-tabletop"], "policies.shipped.args.checkpoint=gone"),
        (["evaluate", "evaluate-tabletop"], "worlds.imagination.args.checkpoint=gone"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told_before_tasks_are_made(
    gymnast: CommandLine, monkeypatch: pytest.MonkeyPatch, command: list[str], change: str
) -> None:
    """Environments behind tasks may take minutes to start."""
    from gymnast_tabletop.datasets import TabletopTasks

    def make(self: TabletopTasks) -> None:
        raise AssertionError("tasks were made")

    monkeypatch.setattr(TabletopTasks, "tasks", make)
    contains(gymnast.error(*command, change), "gone", "checkpoint")


def test_a_malformed_file_is_named_with_the_line(gymnast: CommandLine) -> None:
    Path("broken.yaml").write_text("policy: {name: openvla-oft\nloop: ]\n")
    contains(gymnast.error("train", "broken.yaml"), "broken.yaml is not a usable YAML config", "line 2")


@pytest.mark.parametrize("arguments", [[], ["world_model=worldgym", "policy=openvla-oft"]])
def test_fit_takes_exactly_one_component(gymnast: CommandLine, arguments: list[str]) -> None:
    message = gymnast.error("fit", "episodes=tabletop-episodes", *arguments)
    contains(message, "exactly one", "world_model, policy, reward_model", "world_model=NAME")
    contains(message, "world_model and policy" if arguments else "none")


def test_check_suggests_the_plugin_that_was_meant(gymnast: CommandLine) -> None:
    contains(gymnast.error("check", "worldgm"), "'worldgm'", "Did you mean 'worldgym'?", "Known: ")


def test_every_world_of_an_evaluation_needs_a_judge(gymnast: CommandLine) -> None:
    parts = ["policies.a=openvla-oft", "worlds.real=gymnasium", "tasks=tabletop"]
    without = gymnast.error("evaluate", *parts)
    contains(without, "rewards", "['real']", "rewards.real=NAME")
    other = gymnast.error("evaluate", *parts, "rewards.imagined=environment")
    contains(other, "['real']", "['imagined']", "rewards.real=NAME")


@pytest.mark.parametrize(
    ("of", "next_step"),
    [
        ("world", "Give a folder, a .safetensors file or a .pt file"),
        ("policy", "Set policy.args.checkpoint"),
        ("judge", "Give RUN/checkpoint, which `gymnast fit fit-tabletop-success-classifier` writes"),
    ],
)
def test_checkpoints_that_are_missing_or_truncated(
    gymnast: CommandLine, models: Models, of: str, next_step: str
) -> None:
    contains(gymnast.error("train", "tabletop", *models.overrides(**{of: Path("gone")})), " gone", next_step)
    damaged = Path("damaged").resolve()
    shutil.copytree(getattr(models, of), damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    message = gymnast.error("train", "tabletop", *models.overrides(**{of: damaged}))
    contains(message, str(weights))
    assert len(message.strip().splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.parametrize("of", ["world", "policy", "judge"])
def test_a_checkpoint_of_another_architecture(gymnast: CommandLine, models: Models, of: str) -> None:
    """The weights of one model under the description of another, or a wholly different model's folder."""
    mixed = Path("mixed").resolve()
    shutil.copytree(getattr(models, of), mixed)
    other = models.world if of != "world" else models.judge
    shutil.copy(other / "model.safetensors", mixed / "model.safetensors")
    contains(gymnast.error("train", "tabletop", *models.overrides(**{of: mixed})), str(mixed))
    message = gymnast.error("train", "tabletop", *models.overrides(**{of: other}))
    contains(message, str(other))
    assert len(message.strip().splitlines()) == 1


def test_a_setting_that_the_checkpoint_has_fixed(gymnast: CommandLine, models: Models) -> None:
    message = gymnast.error("train", "tabletop", *models.overrides(), "world_model.args.dim=64")
    contains(message, "dim is 64", "have 32", "Leave dim out")


class TestTrials:
    """A folder of images and instructions as the tasks of a run."""

    @pytest.fixture
    def trials(self, tmp_path: Path) -> Path:
        folder = tmp_path / "trials"
        folder.mkdir()
        for name, size in (("a", 32), ("b", 32)):
            Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(folder / f"{name}.png")
            (folder / f"{name}.json").write_text(json.dumps({"instruction": INSTRUCTIONS[0]}))
        return folder

    @staticmethod
    def arguments(models: Models, folder: Path) -> list[str]:
        kept = [item for item in models.overrides() if not item.startswith(("tasks.args", "evaluation.tasks"))]
        return ["train", "tabletop", *kept, "tasks=trials", f"tasks.args.path={folder}", "evaluation.tasks=null"]

    def test_images_that_cannot_be_read(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        for image in trials.glob("*.png"):
            image.write_bytes(image.read_bytes()[:40])
        contains(gymnast.error(*self.arguments(models, trials)), "Cannot read the image", ".png")

    def test_no_folder(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        message = gymnast.error(*self.arguments(models, trials / "other"))
        contains(message, str(trials / "other"), "tasks.args.path=FOLDER")

    def test_no_images(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        for image in trials.glob("*.png"):
            image.unlink()
        contains(gymnast.error(*self.arguments(models, trials)), "No trials", "found 0 .png files", "instruction")

    def test_descriptions_that_are_no_json(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        for about in trials.glob("*.json"):
            about.write_text("{instruction: ")
        contains(gymnast.error(*self.arguments(models, trials)), "No trials", "found 2 .png files", "instruction")

    def test_frames_of_another_size(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        for image in trials.glob("*.png"):
            Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(image)
        message = gymnast.error(*self.arguments(models, trials))
        contains(message, "Task '", "(T, 32, 32, 3)", "48", "tasks.args.image_size")

    def test_no_environment_for_the_simulator(self, gymnast: CommandLine, models: Models, trials: Path) -> None:
        kept = [item for item in self.arguments(models, trials) if not item.startswith("world_model.args")]
        message = gymnast.error(*kept, "world_model=gymnasium")
        contains(message, "Task '", "no environment", "another world model")


def test_actions_of_another_width(gymnast: CommandLine, models: Models) -> None:
    """Known from the configs of both, so that nothing is loaded, recorded or judged for it."""
    message = gymnast.error("train", "tabletop", *models.overrides(policy=models.three_actions))
    contains(message, "'openvla-oft' decides actions of width 3", "'worldgym' takes actions of width 2", "same robot")
    three = {"name": "openvla-oft", "args": {"checkpoint": str(models.three_actions), "chunk_length": 2}}
    values = {
        "kind": "evaluate", "worlds": {"simulator": "gymnasium"}, "rewards": {"simulator": "environment"},
        "policies": {"three": three},
        "tasks": {"name": "tabletop", "args": {"count": 2, "image_size": 16}}, "horizon": 4,
    }  # fmt: skip
    Path("simulated.yaml").write_text(yaml.safe_dump(values))
    message = gymnast.error("evaluate", "simulated.yaml")
    contains(message, "Actions have 3 dimensions", "takes Box", "same robot")


def test_a_horizon_that_chunks_do_not_fill(gymnast: CommandLine, models: Models) -> None:
    message = gymnast.error("train", "tabletop", *models.overrides(), "loop.horizon=5")
    contains(message, "loop.horizon is 5", "chunk length 2", "set loop.horizon=4")


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("trainer.max_epochs=3", ["trainer.max_epochs", "loop.iterations"]),
        ("trainer.nonsense=1", ["trainer", "nonsense", "lightning.Trainer"]),
        ("trainer.accelerator=abacus", ["trainer", "abacus"]),
        (
            "trainer.devices=2",
            ["2 groups of 2 rollouts", "some of 2 processes idle", "set loop.imagine_batch_size to 2 or less"],
        ),
        ("trainer.strategy=fsdp", ["trainer.strategy=fsdp", "ddp"]),
        ("trainer.precision=3", ["trainer", "3", "bf16"]),
    ],
)
def test_options_of_the_trainer(gymnast: CommandLine, models: Models, option: str, parts: list[str]) -> None:
    contains(gymnast.error("train", "tabletop", *models.overrides(), option, "evaluation.tasks=null"), *parts)


def test_the_parts_of_the_evaluation(gymnast: CommandLine, models: Models) -> None:
    message = gymnast.error("train", "tabletop", *models.overrides(), "evaluation.world=gymnasum")
    contains(message, "No world model 'gymnasum'", "Did you mean 'gymnasium'?")


def test_fit_in_two_processes_needs_microbatches(gymnast: CommandLine) -> None:
    recording = Recording(episodes=2, actions=8, image_size=32)
    record(recording, Path("play"))
    small = ["episodes.args.path=play", "validation=null", "fit.steps=1", "world_model.args.layers=1", "output=run"]
    message = gymnast.error("fit", "fit-tabletop-world-model", *small, "trainer.devices=2")
    contains(message, "2 processes", "fit.microbatches", "trainer.devices=1")


def test_episodes_that_do_not_exist(gymnast: CommandLine) -> None:
    message = gymnast.error("fit", "fit-tabletop-world-model", "episodes.args.path=nowhere", "output=run")
    contains(message, "nowhere", "gymnast_tabletop.record")


def test_a_folder_that_already_holds_a_run(gymnast: CommandLine, models: Models) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("kind: train\n")
    Path("run/metrics.csv").write_text("step\n1\n")
    message = gymnast.error("train", "tabletop", *models.overrides())
    contains(message, "run already holds a run", "--resume run", "output=")


class TestInAProcess:
    """As a user sees it: whatever a command writes to stderr on its way out is checked, too."""

    def test_before_anything_is_built(self, tmp_path: Path) -> None:
        done = in_a_process(tmp_path, "train", "tabletop", "loop.horizn=3")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == done.stderr.splitlines()[0] + "\n"
        contains(done.stderr, "Error: loop.horizn", "Did you mean 'horizon'?")

    def test_inside_the_trainer(self, tmp_path: Path, models: Models) -> None:
        world = build("world_models", "worldgym", {**WORLD, "action_dim": 1, "robot_action_dim": None})
        world.save(tmp_path / "narrow")
        small = models.overrides(world=tmp_path / "narrow")
        done = in_a_process(tmp_path, "train", "tabletop", *small)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        contains(done.stderr, "Error: ", "takes actions of width 1 at most, got 2")
