"""Steps that are rounded away are counted, and somebody is told once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy
from test_masters import Narrow
from test_update import train_noting
from torch import nn

from gymnast_core.training.masters import MasterWeights
from gymnast_core.training.movement import Movement, MovementWatch
from gymnast_core.types import Metric


def stepped(parameters: Sequence[nn.Parameter], rate: float) -> Metric:
    movement = Movement(parameters)
    torch.optim.SGD(parameters, lr=rate).step()
    return movement.unmoved()


def with_gradient(values: torch.Tensor, gradient: torch.Tensor) -> nn.Parameter:
    parameter = nn.Parameter(values)
    parameter.grad = gradient.to(values.dtype)
    return parameter


def test_the_share_is_that_of_values_with_a_gradient() -> None:
    """Near 1, bfloat16 holds steps of 2**-8; near 2**-6, of 2**-14."""
    values = torch.tensor([1.0, 1.0, 2.0**-6, 1.0]).bfloat16()
    found = stepped([with_gradient(values, torch.tensor([1.0, 1.0, 1.0, 0.0]))], 2.0**-12)
    assert (float(found.value), float(found.weight)) == (pytest.approx(2 / 3), 1.0)


def test_large_and_small_parameters_weigh_what_they_are() -> None:
    # Of a million values, a sample is looked at; the other parameter has ten.
    large = with_gradient(torch.ones(1_000_000).bfloat16(), torch.ones(1_000_000))
    small = with_gradient(torch.zeros(10), torch.ones(10))
    assert float(stepped([large, small], 1e-5).value) == pytest.approx(1_000_000 / 1_000_010, rel=1e-3)


def test_what_has_no_gradient_weighs_nothing() -> None:
    still = with_gradient(torch.ones(3), torch.zeros(3))
    assert float(stepped([still], 0.1).weight) == 0
    assert float(Movement([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0))]).unmoved().weight) == 0


@pytest.mark.parametrize(
    ("dtype", "share", "rate", "told"),
    [
        (torch.bfloat16, 0.6, 1e-5, True),
        (torch.bfloat16, 0.4, 1e-5, False),
        (torch.float32, 0.6, 1e-5, False),
        (torch.float32, 1.0, 1e-5, True),
        (torch.bfloat16, 1.0, 0.0, False),
    ],
)
def test_somebody_is_told_once(
    dtype: torch.dtype, share: float, rate: float, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    watch = MovementWatch("Raise it.")
    movement = Movement([with_gradient(torch.ones(2, dtype=dtype), torch.ones(2))])
    for step in (7, 8):
        watch.see(movement, Metric(share), rate, step)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == told
    if told:
        name = str(dtype).removeprefix("torch.")
        assert f"step 7 left {share:.0%}".replace("%", " %") in messages[0]
        assert name in messages[0] and "Raise it." in messages[0]


def test_a_run_says_what_its_weights_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = loop_config()
    numbers: dict[str, float] = {}
    with caplog.at_level(logging.INFO, logger="gymnast_core"):
        train_noting(tmp_path, parts_of(Narrow(), config, Learner(rate=1e-5)), config, numbers)
    (message,) = [record.getMessage() for record in caplog.records if "bfloat16" in record.getMessage()]
    assert message.startswith("3 trained values are bfloat16") and "float32 copies" in message
    assert 0.0 <= numbers["unmoved"] < 0.5


class Hiding(torch.optim.SGD):
    """Steps parameters of its own list, whatever its groups say."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.own = list(parameters)

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.own:
            if parameter.grad is not None:
                parameter -= self.param_groups[0]["lr"] * parameter.grad


def test_an_optimizer_that_steps_what_it_hides_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Learner):
        def torch_optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return Hiding(parameters, lr=self.rate)

    config = loop_config()
    train(tmp_path / "narrow", parts_of(Narrow(), config, Odd()), config)
    (message,) = [record.getMessage() for record in caplog.records if "left 100 %" in record.getMessage()]
    assert "policy.args.dtype=float32" in message
    caplog.clear()
    train(tmp_path / "wide", parts_of(SeeingPolicy(), config, Odd()), config)
    assert not caplog.records


def test_coarse_weights_without_copies_are_named(caplog: pytest.LogCaptureFixture) -> None:
    MasterWeights([nn.Parameter(torch.ones(5).half())]).announce()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("5 trained values are float16 without a float32 copy") and "float32" in message
