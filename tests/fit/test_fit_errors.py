"""What can go wrong in `gymnast fit` ends in one message: what failed, what exists, what to type next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gymnast_core.errors import CheckpointError
from gymnast_core.runs.snapshot import load_latest_snapshot, save_snapshot

Fit = Callable[..., Path]
FitError = Callable[..., str]


def contains(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, message


def test_a_loss_that_explodes(fit: Fit, fit_error: FitError, tmp_path: Path) -> None:
    explode = "reward_model={name: toy, args: {explode_at: 4}}"
    message = fit_error(explode, "fit={steps: 6, checkpoint_every: 2}")
    contains(message, "gradient became nan at step 3", "--resume", str(tmp_path / "run"), "fit.learning_rate=")
    # The message is right: the snapshot is from before, and the run goes on from it.
    state = load_latest_snapshot(tmp_path / "run/snapshots")
    assert state is not None and state["step"] == 2
    assert fit(explode, resume=tmp_path / "run", steps=4, batch_size=16) == tmp_path / "run"


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("a tensor", "Faulty.training_loss returned a Tensor, not a LossSum"),
        ("detached", "Faulty.training_loss gave a total without a gradient (detached)"),
        ("weightless", "with the weight 0: what weighs nothing adds up to 0"),
        ("negative", "expected a finite number from 0"),
        ("step", "gave a metric named 'grad_norm', which is a number of the run's own"),
        ("validation", "gave a metric named 'validation/error', which is a number of the run's own"),
        ("a list", "Faulty.validate gave a list; expected numbers by name"),
        ("a text", "Faulty.validate gave 'error' as 'low'; expected numbers by name"),
        ("a comma", "Faulty.validate gave a metric named 'error,'"),
    ],
)
def test_a_component_that_answers_wrongly_is_named(fit_error: FitError, way: str, said: str) -> None:
    faulty = f"reward_model={{name: toy-faulty, args: {{way: {way}}}}}"
    contains(fit_error(faulty, "validation=toy-episodes", "fit.steps=2"), said, "gymnast check")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["reward_model=random"], ["reward_model=random", "does not define module(), training_loss(), save()"]),
        (["episodes=tabletop"], ["TabletopTasks holds no episodes", "recorded"]),
        (["episodes={name: toy-episodes, args: {count: 0}}"], ["'toy-episodes' holds no episodes"]),
        (["validation={name: toy-episodes, args: {count: 0}}"], ["validation", "no episodes", "validation=null"]),
        (["fit.optimizer=muon"], ["muon", "no matrices", "adamw"]),
        (["fit.optimizer=sgd"], ["'sgd'", "adamw, muon"]),
        (["fit.steps=0"], ["fit.steps is 0", "at least 1"]),
        (["fit.batch_size=0"], ["fit.batch_size is 0"]),
        (["fit.log_every=0"], ["fit.log_every is 0"]),
        (["fit.checkpoint_every=0"], ["fit.checkpoint_every is 0"]),
        (["fit.workers=-1"], ["fit.workers is -1"]),
        (["fit.ema=1.0"], ["fit.ema is 1; it must be at least 0 and below 1"]),
        (["fit.betas=[0.9]"], ["fit.betas", "two"]),
        (["fit.microbatches=3"], ["fit.batch_size is 16", "multiple of fit.microbatches (3)"]),
        (["fit.microbatches=0"], ["fit.microbatches is 0"]),
        (["trainer.max_steps=3"], ["trainer.max_steps", "fit.steps"]),
        (["trainer={accelerator: cpu, devices: 2}"], ["2 processes", "fit.microbatches", "2 or more (it is 1)"]),
        (
            ["trainer={accelerator: cpu, devices: 2, strategy: fsdp2}", "fit={batch_size: 9, microbatches: 3}"],
            ["2 processes", "multiple of 2 (it is 3)"],
        ),
        (["hooks.nobody.loud=1"], ["hooks.nobody", "nobody"]),
        (["trainer={accelerator: cpu, devices: 2, strategy: ddp_spawn}"], ["strategy=ddp_spawn", "auto, ddp;"]),
        (
            ["trainer={accelerator: cpu, devices: 2, strategy: model_parallel}"],
            ["strategy=model_parallel", "whole in every process", "auto, ddp;"],
        ),
        (["trainer={accelerator: cpu, devices: 2, strategy: fsdp}"], ["strategy=fsdp", "auto, ddp;"]),
        (["trainer={accelerator: cpu, precision: bf16-true}"], ["precision=bf16-true", "bf16-mixed or 32-true"]),
        (["trainer={accelerator: cpu, precision: 8}"], ["trainer", "precision", "8"]),
        (["episodes.args.bad=[3]", "fit.workers=2", "fit.steps=2"], ["Episode 3 is torn"]),
        (["episodes.args.deadly=3", "fit.workers=2", "fit.steps=2"], ["reads episodes", "fit.workers (2)"]),
    ],
)
def test_what_the_config_gets_wrong(fit_error: FitError, arguments: list[str], parts: list[str]) -> None:
    contains(fit_error(*arguments), *parts)


def test_float16_would_leave_gradients_scaled(fit_error: FitError) -> None:
    contains(fit_error("trainer.precision=16-mixed"), "precision=16-mixed would scale the loss", "use bf16-mixed")


def test_a_refused_trainer_leaves_no_run_behind(fit_error: FitError, tmp_path: Path) -> None:
    fit_error("trainer.nonsense=1")
    assert not (tmp_path / "run").exists()


def test_a_run_resumed_with_another_average(fit: Fit) -> None:
    run = fit(steps=1)
    with pytest.raises(CheckpointError, match=r"does not fit the config.*the run began with"):
        fit("fit.ema=0.5", resume=run, steps=2)


def test_a_snapshot_that_lacks_something(fit: Fit) -> None:
    run = fit(steps=1)
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None
    del state["tally"]
    save_snapshot(run / "snapshots", 2, state)
    with pytest.raises(CheckpointError, match=r"does not fit the config: 'tally'"):
        fit(resume=run, steps=3)
