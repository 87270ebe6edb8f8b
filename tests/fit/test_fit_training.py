"""What `gymnast fit` trains, validates and saves."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from safetensors.torch import load_file
from torch import nn

from gymnast_core.config import load_config
from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.runs.snapshot import load_latest_snapshot
from gymnast_core.seeds import seeded_generator
from gymnast_fit.batches import SeededBatches, episode_loader
from gymnast_fit.config import FitConfig, FitLoopConfig
from gymnast_fit.fit import fit as run_fit
from gymnast_fit.optimizers import build_optimizers, learning_rate_factor
from gymnast_tabletop.record import Recording, record

Fit = Callable[..., Path]
INSTRUCTIONS = [
    f"push the {colour} block to the {side}"
    for colour in ("red", "green", "blue", "yellow")
    for side in ("left", "right", "top", "bottom")
]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_classifier_learns_from_recorded_episodes(tmp_path: Path) -> None:
    record(Recording(behaviour="demonstrations", episodes=24, actions=16, image_size=16), tmp_path / "play")
    instructions = ", ".join(INSTRUCTIONS)
    episodes = f"{{name: tabletop-episodes, args: {{path: {tmp_path / 'play'}, instructions: hindsight, "
    config = load_config(
        FitConfig,
        None,
        [
            f"reward_model={{name: success-classifier, args: {{instructions: [{instructions}], image_size: 16}}}}",
            "reward_model.args.width=8",
            f"episodes={episodes} validation_fraction: 0.2, part: train}}}}",
            f"validation={episodes} validation_fraction: 0.2, part: validation}}}}",
            "fit={steps: 40, batch_size: 8, learning_rate: 0.003, warmup_steps: 4, log_every: 10, workers: 1}",
            "trainer={accelerator: cpu}",
            f"output={tmp_path / 'run'}",
        ],
    )
    summary = run_fit(config)
    losses = [float(row["loss"]) for row in rows(tmp_path / "run")]
    assert 0.01 < losses[-1] < 0.8 * losses[0]
    assert summary["steps"] == 40
    assert 0.0 <= summary["validation"]["accuracy"] <= 1.0 and summary["validation"]["count"] == 5
    loaded = registries().reward_models.build("success-classifier", {"checkpoint": summary["checkpoint"]})
    assert sum(p.numel() for p in loaded.module().parameters()) == summary["parameters"]
    assert json.loads((tmp_path / "run/summary.json").read_text()) == summary
    assert "Supervised training, 40 steps" in (tmp_path / "run/report.html").read_text()


def test_the_saved_weights_are_the_moving_average(fit: Fit) -> None:
    """Runs of 1, 2, … steps without an average say what the weights were after each step."""
    own = [toy.checkpoint(fit(steps=steps)) for steps in range(1, 6)]
    run = fit("validation=toy-episodes", steps=5, ema=0.7, validation_episodes=10)
    expected = {name: value.double() for name, value in toy.Toy(toy.Toy.Config()).network.state_dict().items()}
    for weights in own:
        for name in expected:
            expected[name] = 0.7 * expected[name] + 0.3 * weights[name].double()
    saved = toy.checkpoint(run)
    for name, parameter in toy.Toy(toy.Toy.Config()).network.named_parameters():
        torch.testing.assert_close(saved[name].double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(saved[name], own[-1][name]) or torch.equal(own[0][name], own[-1][name]), parameter.shape
    # Running statistics are not averaged: they are averages already.
    assert torch.equal(saved["1.running_mean"], own[-1]["1.running_mean"])
    reloaded = toy.Toy(toy.Toy.Config())
    reloaded.network.load_state_dict(saved)
    reloaded.network.eval()
    # Ten of twenty, spread evenly.
    held_out = toy.ToyEpisodes(toy.ToyEpisodes.Config()).episodes()[::2]
    error = reloaded.validate(held_out, generator=torch.Generator())["error"]
    assert json.loads((run / "summary.json").read_text())["validation"] == {"error": error}
    assert float(rows(run)[-1]["validation/error"]) == error


def test_validation_does_not_disturb_training(fit: Fit) -> None:
    without = fit(ema=0.9)
    often = fit("validation=toy-episodes", ema=0.9, validate_every=1)
    assert toy.same(without, often)


def test_validation_does_not_wait_for_the_log(fit: Fit) -> None:
    run = fit("validation=toy-episodes", steps=6, validate_every=2, log_every=3)
    assert [row["step"] for row in rows(run)] == ["2", "3", "4", "6"]
    assert [row["step"] for row in rows(run) if row["validation/error"]] == ["2", "4", "6"]


def test_a_row_of_the_log_is_the_mean_since_the_last(fit: Fit) -> None:
    single = [float(row["loss"]) for row in rows(fit(steps=4, log_every=1))]
    run = rows(fit(steps=4, log_every=3))
    assert [row["step"] for row in run] == ["3", "4"]
    assert float(run[0]["loss"]) == pytest.approx(sum(single[:3]) / 3)
    assert float(run[1]["loss"]) == pytest.approx(single[3])
    # What only some steps measure is averaged over those steps.
    assert float(run[0]["odd"]) == 3.0 and run[1]["odd"] == ""


def test_the_seed_decides(fit: Fit) -> None:
    state = torch.get_rng_state()
    first, second, other = fit("seed=3"), fit("seed=3"), fit("seed=4")
    assert toy.same(first, second)
    assert not toy.same(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_number_of_workers(workers: int) -> None:
    episodes = toy.ToyEpisodes(toy.ToyEpisodes.Config(count=5)).episodes()
    loader = episode_loader(episodes, SeededBatches(5, 3, seed=2, start=0, steps=10), workers)
    batches = [[int(episode.id) for episode in batch] for batch in loader]
    assert batches == list(SeededBatches(5, 3, seed=2, start=0, steps=10))
    drawn = [index for batch in batches for index in batch]
    for epoch in range(0, 30, 5):
        assert sorted(drawn[epoch : epoch + 5]) == [0, 1, 2, 3, 4]
    assert drawn[:5] != drawn[5:10]
    assert list(SeededBatches(5, 3, seed=2, start=4, steps=10)) == batches[4:]
    assert list(SeededBatches(5, 3, seed=1, start=0, steps=10)) != batches


def test_workers_do_not_change_the_result(fit: Fit) -> None:
    assert toy.same(fit(workers=0, steps=3), fit(workers=1, steps=3))


def test_the_learning_rate_follows_warm_up_and_decay() -> None:
    cosine = FitLoopConfig(steps=12, warmup_steps=4)
    factors = [learning_rate_factor(step, cosine) for step in range(13)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5) and factors[12] == pytest.approx(0.0)
    assert factors[6] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    constant = FitLoopConfig(steps=12, warmup_steps=0, decay="constant")
    assert {learning_rate_factor(step, constant) for step in range(12)} == {1.0}


@pytest.mark.parametrize(("warmup", "rate"), [(0, 0.01), (4, 0.0025)])
def test_the_first_step_of_adam_is_as_long_as_the_learning_rate(fit: Fit, warmup: int, rate: float) -> None:
    start = toy.Toy(toy.Toy.Config()).network.state_dict()
    moved = toy.checkpoint(fit(steps=1, warmup_steps=warmup))
    assert (moved["3.weight"] - start["3.weight"]).abs().max().item() == pytest.approx(rate, rel=1e-3)


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"map": nn.Linear(4, 4), "norm": nn.LayerNorm(4), "table": nn.Embedding(3, 4)})
            for _ in range(2)
        )
        self.blocks.append(nn.Conv2d(1, 2, 3))
        self.blocks_of_nothing = nn.Linear(4, 4)
        self.frozen = nn.ModuleList([nn.Linear(4, 4).requires_grad_(False)])


def test_muon_trains_the_matrices_of_blocks_and_adamw_the_rest() -> None:
    module = Blocks()
    adamw, muon = build_optimizers(module, FitLoopConfig(optimizer="muon", weight_decay=0.1))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    held = {
        optimizer: {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (adamw, muon)
    }
    assert held[muon] == {"blocks.0.map.weight": 0.1, "blocks.1.map.weight": 0.1}
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert held[adamw].keys() == trained - held[muon].keys()
    for name, decay in held[adamw].items():
        assert decay == (0.1 if module.get_parameter(name).ndim >= 2 else 0.0), name
    (alone,) = build_optimizers(module, FitLoopConfig(weight_decay=0.1))
    assert {names[id(p)] for group in alone.param_groups for p in group["params"]} == trained


def test_a_limit_in_minutes_ends_with_a_checkpoint_that_goes_on(fit: Fit) -> None:
    whole = fit(steps=4, decay="cosine")
    run = fit(steps=4, decay="cosine", max_minutes=1e-9)
    assert json.loads((run / "summary.json").read_text())["steps"] == 1
    assert not toy.same(run, whole)
    fit(steps=4, decay="cosine", resume=run)
    assert toy.same(run, whole)


def test_a_trainer_that_stops_early_leaves_a_snapshot_too(fit: Fit) -> None:
    whole = fit(steps=4)
    run = fit("trainer.limit_train_batches=3", steps=4)
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None and state["step"] == 3 and rows(run)[-1]["step"] == "3"
    fit(steps=4, resume=run)
    assert toy.same(run, whole)


def test_held_out_episodes_are_spread_over_all(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of one recording follow each other: the first so many would be of one alone."""
    read: list[int] = []

    reader = toy._Readable.__getitem__
    monkeypatch.setattr(toy._Readable, "__getitem__", lambda self, i: (read.append(i), reader(self, i))[1])
    fit("validation={name: toy-episodes, args: {count: 41}}", steps=1, batch_size=2, validation_episodes=4)
    assert set(read) >= {0, 10, 20, 30}


def test_episodes_are_read_when_they_are_needed(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    reader = toy._Readable.__getitem__
    monkeypatch.setattr(toy._Readable, "__getitem__", lambda self, i: (read.append(i), reader(self, i))[1])
    fit("validation=toy-episodes", steps=1, batch_size=4, validation_episodes=2)
    assert len(read) == 6


@pytest.mark.parametrize("weighed", [False, True])
def test_a_step_is_the_mean_over_its_episodes_however_it_is_split(fit: Fit, weighed: bool) -> None:
    plain = f"reward_model.args={{batch_norm: false, weighed: {str(weighed).lower()}}}"
    settings = {"steps": 1, "batch_size": 8, "log_every": 1, "max_grad_norm": 1e9}
    component = toy.Toy(toy.Toy.Config(batch_norm=False, weighed=weighed))
    episodes = toy.ToyEpisodes(toy.ToyEpisodes.Config()).episodes()
    (batch,) = SeededBatches(20, 8, seed=0, start=0, steps=1)
    whole = component.training_loss([episodes[i] for i in batch], generator=seeded_generator(0, "step", 0))
    gradients = torch.autograd.grad(whole.mean, list(component.network.parameters()))
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    weights = {}
    for microbatches in (1, 2, 4, 8):
        run = fit(plain, **settings, microbatches=microbatches)
        row = rows(run)[0]
        assert float(row["loss"]) == pytest.approx(whole.mean.item(), rel=1e-5)
        assert float(row["grad_norm"]) == pytest.approx(norm, rel=1e-5)
        assert float(row["brightest"]) == pytest.approx(float(whole.metrics["brightest"].value), rel=1e-6)
        weights[microbatches] = toy.checkpoint(run)
    for name, expected in weights[1].items():
        for microbatches in (2, 4, 8):
            torch.testing.assert_close(weights[microbatches][name], expected, rtol=1e-5, atol=1e-7)


def test_a_step_of_which_nothing_can_be_learned_says_so(fit_error: Callable[..., str]) -> None:
    message = fit_error("reward_model.args={batch_norm: false, weighed: true}", "episodes.args.dark=true")
    assert "Nothing can be learned from any episode of step 0" in message


WORLD = (
    "world_model={name: worldgym, args: {image_size: [16, 16], patch_size: 8, dim: 32, layers: 1, heads: 2, "
    "action_dim: 3, robot_action_dim: 2, window: 4, device: cpu}}"
)
WORLD_EPISODES = "={name: toy-episodes, args: {count: 6, size: 16, length: 6, action_dim: 2}}"


def fit_world(folder: Path, precision: str) -> list[dict[str, str]]:
    loop = "fit={steps: 6, batch_size: 4, learning_rate: 0.003, warmup_steps: 0, log_every: 1, validate_every: 3}"
    trainer = f"trainer={{accelerator: cpu, precision: {precision}}}"
    pairs = [WORLD, f"episodes{WORLD_EPISODES}", f"validation{WORLD_EPISODES}", loop, trainer, f"output={folder}"]
    run_fit(load_config(FitConfig, None, pairs))
    return rows(folder)


def test_bf16_mixed_trains_like_float32(tmp_path: Path) -> None:
    exact, mixed = fit_world(tmp_path / "exact", "32-true"), fit_world(tmp_path / "mixed", "bf16-mixed")
    ours, theirs = ([float(row["loss"]) for row in run] for run in (mixed, exact))
    assert ours == pytest.approx(theirs, rel=0.02) and ours != theirs
    weights = toy.checkpoint(tmp_path / "mixed")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())
    # What is measured is what is saved: weights in float32, not the rounding of the training step around them.
    saved = registries().world_models.build("worldgym", {"checkpoint": str(tmp_path / "mixed/checkpoint")})
    held_out = registries().datasets.build("toy-episodes", {"count": 6, "size": 16, "length": 6, "action_dim": 2})
    quality = saved.validate(list(held_out.episodes()), generator=seeded_generator(0, "validation"))
    assert float(mixed[-1]["validation/psnr"]) == quality["psnr"]
    pictures = {path.name for path in (tmp_path / "mixed/validation/step-000003").iterdir()}
    assert {"curves.svg", "curves.json", "curves.csv", "episode-0.mp4", "episode-5.mp4"} <= pictures


def test_pictures_are_of_the_averaged_weights(fit: Fit) -> None:
    run = fit("reward_model=toy-drawing", "validation=toy-episodes", steps=4, ema=0.9, validate_every=2)
    folders = sorted((run / "validation").iterdir())
    assert [folder.name for folder in folders] == ["step-000002", "step-000004"]
    last = load_file(str(folders[1] / "weights.safetensors"))
    assert all(torch.equal(value, toy.checkpoint(run)[name]) for name, value in last.items())
    assert not torch.equal(last["0.weight"], load_file(str(folders[0] / "weights.safetensors"))["0.weight"])
    first, second = ((folder / "drawn").read_text() for folder in folders)
    assert first == second and first.startswith("20 ")
    assert toy.same(run, fit("validation=toy-episodes", steps=4, ema=0.9, validate_every=2))


def test_pictures_that_fail_do_not_end_the_training(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    run = fit("reward_model={name: toy-drawing, args: {torn: true}}", "validation=toy-episodes", steps=2)
    assert "No space left on device" in caplog.text and "step-000002" in caplog.text
    assert (run / "checkpoint/model.safetensors").exists() and list((run / "validation").iterdir()) == []


def test_the_benchmark_on_real_video_is_a_config_that_builds() -> None:
    config = load_config(FitConfig, str(Path(__file__).parents[2] / "benchmarks/bridge_overfit.yaml"))
    assert config.world_model is not None and config.validation is not None
    world = registries().world_models.build(config.world_model.name, config.world_model.args)
    # A window holds the start frame and the 16 frames whose quality is reported.
    assert world.architecture.window == 17 and config.validation.args == config.episodes.args
    assert sum(p.numel() for p in world.module().parameters()) == 4_231_872


@pytest.mark.parametrize(("way", "kind", "said"), [("raise", RuntimeError, "torn cable"), ("end", DataError, "memory")])
def test_an_error_in_a_worker_is_told_from_its_end(way: str, kind: type[Exception], said: str) -> None:
    class Episodes(list[int]):
        def __getitem__(self, index: Any) -> Any:
            if way == "end":
                os._exit(1)
            raise RuntimeError("torn cable")

    loader = episode_loader(Episodes([0, 1, 2, 3]), SeededBatches(4, 2, seed=0, start=0, steps=2), 1)  # type: ignore[arg-type]
    with pytest.raises(kind, match=said):
        list(loader)
