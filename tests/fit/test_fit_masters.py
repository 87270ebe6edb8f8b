"""`gymnast fit` of weights in bfloat16: small steps, their moving average, several processes, resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from safetensors.torch import load_file
from test_fit_sharded import EPISODES, LOOP, SIZES
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.plugins.compose import registries
from gymnast_core.runs.snapshot import load_latest_snapshot

Fit = Callable[..., Path]
Ranks = Callable[..., list[int | None]]
SMALL = 2e-5
"""A rate whose steps no bfloat16 number near 0.1 shows (half of the distance is 2.4e-4)."""


class Narrow(toy.Toy):
    """A toy whose weights are bfloat16, and its pixels, too."""

    def __init__(self, config: toy.Toy.Config) -> None:
        super().__init__(config)
        self.network.to(torch.bfloat16)
        self.network[1].float()  # running statistics in bfloat16 are refused
        self.network.register_forward_pre_hook(lambda module, args: tuple(x.to(torch.bfloat16) for x in args))


class Wide(toy.Toy):
    """The same start in float32."""

    def __init__(self, config: toy.Toy.Config) -> None:
        super().__init__(config)
        self.network.to(torch.bfloat16).float()


@pytest.fixture(autouse=True)
def _narrow_toys(_toys: None) -> None:
    registries().reward_models.register("narrow", Narrow)
    registries().reward_models.register("wide", Wide)


def masters(run: Path) -> dict[str, Tensor]:
    """Float32 weights of a run's last snapshot, by name."""
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None
    names = [name for name, _ in toy.Toy(toy.Toy.Config()).network.named_parameters()]
    copies = state["weights"]["masters"]
    return {name: copies.get(place, state["network"][name]) for place, name in enumerate(names)}


def test_small_steps_in_bfloat16_add_up_as_in_float32(fit: Fit) -> None:
    wide, narrow = (fit(f"reward_model={kind}", steps=20, learning_rate=SMALL) for kind in ("wide", "narrow"))
    start = dict(Wide(toy.Toy.Config()).network.named_parameters())
    expected, found = masters(wide), masters(narrow)
    moved = torch.cat([(expected[name] - start[name].detach()).flatten() for name in start])
    mine = torch.cat([(found[name] - start[name].detach()).flatten() for name in start])
    assert found["0.weight"].dtype is torch.float32
    # Twenty steps of the rate each: as far as in float32, but where bfloat16's noise turns the sign of a gradient.
    assert float(moved.abs().max()) == pytest.approx(20 * SMALL, rel=0.05)
    assert float(mine @ moved / moved.square().sum()) == pytest.approx(1.0, abs=0.1)
    # Without copies only what is nearly zero could have moved.
    assert float((mine.abs() > SMALL).float().mean()) > 0.8


def test_the_moving_average_of_small_steps(fit: Fit) -> None:
    """Of what the copies were after each step, not of what bfloat16 shows of them."""
    own = [masters(fit("reward_model=narrow", steps=steps, learning_rate=SMALL)) for steps in range(1, 6)]
    run = fit("reward_model=narrow", steps=5, learning_rate=SMALL, ema=0.9)
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None
    for name, parameter in Wide(toy.Toy.Config()).network.named_parameters():
        expected = parameter.detach().double()
        for weights in own:
            expected = 0.9 * expected + 0.1 * weights[name].double()
        found = state["average"][f"module.{name}"]
        assert found.dtype is torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-8)
        assert not torch.equal(found, parameter.detach())
        # What is saved are neighbours of the average in bfloat16.
        saved = toy.checkpoint(run)[name]
        assert saved.dtype is (torch.float32 if name.startswith("1.") else torch.bfloat16)
        distance = torch.finfo(torch.bfloat16).eps * expected.abs()
        assert bool(((saved.double() - expected).abs() <= distance).all())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_fit_in_bfloat16_goes_on_bit_for_bit(fit: Fit, ema: float) -> None:
    settings: dict[str, Any] = {"learning_rate": SMALL, "ema": ema, "microbatches": 2}
    whole = fit("reward_model=narrow", steps=6, **settings)
    part = fit("reward_model=narrow", steps=3, **settings)
    fit("reward_model=narrow", resume=part, steps=6, **settings)
    assert toy.same(whole, part)
    assert all(torch.equal(x, masters(part)[name]) for name, x in masters(whole).items())


def test_autocast_sees_small_steps(fit: Fit) -> None:
    """Under bf16-mixed the loss is that of the weights as they are, also when they stand on bfloat16's numbers."""
    trainer = "trainer={accelerator: cpu, precision: bf16-mixed}"
    wide, mixed = (fit("reward_model=wide", *more, steps=20, learning_rate=SMALL) for more in ((), (trainer,)))
    start = dict(Wide(toy.Toy.Config()).network.named_parameters())
    expected, found = masters(wide), masters(mixed)
    moved, mine = (torch.cat([(x[n] - start[n].detach()).flatten() for n in start]) for x in (expected, found))
    assert float(mine @ moved / moved.square().sum()) == pytest.approx(1.0, abs=0.1)


def test_running_statistics_that_would_stand_still_are_refused(fit: Fit) -> None:
    class Still(toy.Toy):
        def __init__(self, config: toy.Toy.Config) -> None:
            super().__init__(config)
            self.network.to(torch.bfloat16)

    registries().reward_models.register("still", Still)
    with pytest.raises(ConfigError, match=r"BatchNorm1d '1'.*bfloat16.*float32"):
        fit("reward_model=still")


def policy_fit(strategy: str, output: Path, *more: str) -> list[str]:
    trainer = f"accelerator: cpu, devices: {1 if strategy == 'auto' else 2}, strategy: {strategy}"
    return [
        "fit", f"policy={{name: openvla-oft, args: {{{SIZES}, dtype: bfloat16}}}}", f"episodes={EPISODES}",
        f"validation={EPISODES}", LOOP, "fit.learning_rate=2e-5", "fit.decay=constant", f"trainer={{{trainer}}}",
        f"output={output}", *more,
    ]  # fmt: skip


def copies(run: Path) -> dict[int, Tensor]:
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None
    found: dict[int, Tensor] = state["weights"]["masters"]
    assert found and all(x.dtype is torch.float32 for x in found.values())
    return found


def test_processes_and_shared_weights_take_the_steps_of_one(ranks: Ranks, tmp_path: Path) -> None:
    for strategy, count in (("auto", 1), ("ddp", 2), ("fsdp2", 2)):
        assert ranks(policy_fit(strategy, tmp_path / strategy), count=count) == [0] * count
    expected = copies(tmp_path / "auto")
    for strategy in ("ddp", "fsdp2"):
        found = copies(tmp_path / strategy)
        assert found.keys() == expected.keys()
        far = sum(int(((found[place] - x).abs() > 1e-6).sum()) for place, x in expected.items())
        # Sums in another order turn the sign of gradients that are nearly zero.
        assert far < 0.03 * sum(x.numel() for x in expected.values()), strategy
        saved = load_file(tmp_path / strategy / "checkpoint/model.safetensors")
        assert {x.dtype for x in saved.values()} == {torch.bfloat16}


def test_shared_copies_go_on_where_they_stopped(ranks: Ranks, tmp_path: Path) -> None:
    for name, steps in (("run", 2), ("through", 3)):
        assert ranks(policy_fit("fsdp2", tmp_path / name, f"fit.steps={steps}"), count=2) == [0, 0]
    early = copies(tmp_path / "run")
    assert ranks(["fit", "--resume", str(tmp_path / "run"), "fit.steps=3"], count=2) == [0, 0]
    again, through = copies(tmp_path / "run"), copies(tmp_path / "through")
    assert all(torch.equal(again[place], x) for place, x in through.items())
    assert sum(int((early[place] != x).sum()) for place, x in again.items()) > 1000
