"""Every part of a run can be exchanged by one config key; what a run leaves behind is complete."""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small import SIZES, TOWER, TWO_ACTIONS, CommandLine, Models, build

from gymnast_core.config import RunConfig, load_config, to_yaml
from gymnast_core.types import Observation


def rows(run: Path = Path("run")) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def evaluations(run: Path = Path("run")) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")}


def saved_policy(run: Path = Path("run")) -> Any:
    return build("policies", "openvla-oft", {"checkpoint": str(run / "policy")})


def same_weights(first: Any, second: Any) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def check_run(run: Path = Path("run")) -> dict[str, float]:
    """A complete run of one iteration; returns its row of metrics."""
    (row,) = rows(run)
    assert float(row["rollouts"]) >= 4
    assert float(row["unscored"]) == 0
    found = evaluations(run)
    assert found.keys() == {"before", "after"}
    for result in found.values():
        assert (result["world"], result["n"], result["unscored"]) == ("gymnasium", 2, 0)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["difference"]["n"] == 2
    image = torch.zeros(1, 1, 1, 32, 32, 3, dtype=torch.uint8)
    chunk = saved_policy(run).act(Observation(image, ("push the red block to the left",)), temperature=0)
    assert chunk.actions_BLA.shape == (1, 2, 2)
    return {key: float(value) for key, value in row.items() if value}


def swapped(models: Models, key: str) -> list[str]:
    """The overrides of a small run without those for the component at `key`, whose arguments the swap drops."""
    return [item for item in models.overrides() if not item.startswith(f"{key}.args.")]


@pytest.mark.parametrize(
    ("key", "name"),
    [("world_model", "gymnasium"), ("reward_model", "environment"), ("reward_model", "random")],
)
def test_one_key_swaps_a_component(gymnast: CommandLine, models: Models, key: str, name: str) -> None:
    done = gymnast("train", "tabletop", *swapped(models, key), f"{key}={name}")
    assert done.code == 0, done.err
    assert getattr(load_config(RunConfig, "run/config.yaml"), key).name == name
    row = check_run()
    before = build("policies", "openvla-oft", {"checkpoint": str(models.policy)})
    assert same_weights(before, saved_policy()) == (row["groups_kept"] == 0)


def test_the_world_says_itself_what_an_imagined_reward_would_have_to_guess(
    gymnast: CommandLine, models: Models
) -> None:
    """Both worlds at once: the simulator as the world, its verdict as the reward."""
    small = [item for item in swapped(models, "world_model") if not item.startswith("reward_model.args.")]
    done = gymnast("train", "tabletop", *small, "world_model=gymnasium", "reward_model=environment")
    assert done.code == 0, done.err
    check_run()


def test_imitation_of_successes_mixed_with_demonstrations(gymnast: CommandLine, models: Models) -> None:
    recording = [sys.executable, "-m", "gymnast_tabletop.record", "--behaviour", "demonstrations"]
    sizes = ["--episodes", "3", "--actions", "12", "--image-size", "32", "--out", "demonstrations"]
    subprocess.run([*recording, *sizes], check=True, capture_output=True, timeout=300)
    done = gymnast(
        "train",
        "tabletop",
        *swapped(models, "optimizer"),
        "optimizer=iter-sft",
        "optimizer.args.group_size=2",
        "optimizer.args.learning_rate=1e-3",
        "demonstrations=tabletop-episodes",
        "demonstrations.args.path=demonstrations",
        # An untrained judge is unsure of everything; a success is needed to imitate.
        "reward_model.args.threshold=0.001",
    )
    assert done.code == 0, done.err
    row = check_run()
    assert row["groups_kept"] == 2
    assert row["demonstration_loss"] > 0
    before = build("policies", "openvla-oft", {"checkpoint": str(models.policy)})
    assert not same_weights(before, saved_policy())


def test_iterated_imitation_asks_for_its_demonstrations(gymnast: CommandLine, models: Models) -> None:
    message = gymnast.error("train", "tabletop", *swapped(models, "optimizer"), "optimizer=iter-sft")
    assert "demonstrations.name" in message


def test_a_policy_of_another_size_from_scratch(gymnast: CommandLine, models: Models) -> None:
    sizes = {**SIZES, **TWO_ACTIONS, "llm_layers": 2, "llm_width": 48, "llm_heads": 4, "siglip": {**TOWER, "width": 24}}
    done = gymnast(
        "train",
        "tabletop",
        *models.overrides(),
        "policy.args.checkpoint=null",
        f"policy.args.architecture={json.dumps(sizes)}",
    )
    assert done.code == 0, done.err
    check_run()
    assert saved_policy().description.config["text_config"]["hidden_size"] == 48


def test_options_of_the_trainer_pass_through(
    gymnast: CommandLine, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning

    made: list[lightning.Trainer] = []
    original = lightning.Trainer.__init__

    @functools.wraps(original)  # its signature says which options there are
    def remember(self: lightning.Trainer, **options: Any) -> None:
        original(self, **options)
        made.append(self)

    monkeypatch.setattr(lightning.Trainer, "__init__", remember)
    options = ["trainer.precision=bf16-mixed", "trainer.accelerator=cpu", "evaluation.tasks=null"]
    small = [item for item in models.overrides() if not item.startswith("evaluation.tasks")]
    done = gymnast("train", "tabletop", *small, *options)
    assert done.code == 0, done.err
    (trainer,) = made
    # Autocast is the update's own: Lightning's would be around everything.
    assert trainer.precision == "32-true"
    assert isinstance(trainer.accelerator, lightning.pytorch.accelerators.CPUAccelerator)
    assert len(rows()) == 1
    assert not evaluations()


def test_a_policy_whose_success_is_known_is_measured_after_training_alone(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", "tabletop", *models.overrides(), "evaluation.before=false").code == 0
    assert evaluations().keys() == {"after"}
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["after"]["n"] == 2 and not {"before", "difference"} & summary.keys()
    assert Path("run/report.html").exists()


def test_the_config_of_a_run_reads_back_as_it_was(gymnast: CommandLine, models: Models) -> None:
    overrides = [*models.overrides(), "evaluation.tasks=null", "reward_model=random", "seed=3"]
    overrides = [item for item in overrides if not item.startswith(("evaluation.tasks.args", "reward_model.args"))]
    done = gymnast("train", "tabletop", *overrides)
    assert done.code == 0, done.err
    written = Path("run/config.yaml").read_text()
    again = load_config(RunConfig, "run/config.yaml")
    assert again == load_config(RunConfig, "tabletop", overrides)
    assert to_yaml(again) == written
    assert "${" not in written


def test_a_finished_run_goes_on_with_more_iterations(gymnast: CommandLine, models: Models) -> None:
    assert gymnast("train", "tabletop", *models.overrides()).code == 0
    assert gymnast("train", "--resume", "run", "loop.iterations=2").code == 0
    assert [int(float(row["step"])) for row in rows()] == [1, 2]
    assert {name: found["iteration"] for name, found in evaluations().items()} == {"before": 0, "after": 2}
