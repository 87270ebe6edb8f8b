"""What a gradient step makes of weights that are small or nothing, and of decisions of several factors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of
from seeing import SeeingPolicy
from test_update import TokenMean, gradients, train_noting
from torch import Tensor

from gymnast_core.learning import Minibatch
from gymnast_core.processes import Processes
from gymnast_core.training import run
from gymnast_core.training.update import Updater
from gymnast_core.types import ActionChunk, Evaluation, LossSum, Observation


@dataclass
class Light(TokenMean):
    """The same mean with a thousandth of the weight."""

    def loss(self, minibatch: Minibatch) -> LossSum:
        found = super().loss(minibatch)
        return LossSum(found.total / 1000, found.weight / 1000, found.metrics)


def test_a_weight_below_one_divides_as_others_do(tmp_path: Path) -> None:
    full, _ = gradients(tmp_path / "full", TokenMean, None)
    light, _ = gradients(tmp_path / "light", Light, 2)
    assert full.abs().max() > 1e-3
    torch.testing.assert_close(light, full, rtol=1e-4, atol=1e-6)


def test_what_weighs_nothing_pushes_nothing(tmp_path: Path) -> None:
    @dataclass
    class Nothing(Learner):
        def loss(self, minibatch: Minibatch) -> LossSum:
            log_prob = minibatch.log_prob_BSD.sum()
            return LossSum(log_prob - log_prob.detach(), 0.0)

    moved, _ = gradients(tmp_path, Nothing, None)
    assert moved.tolist() == [0.0, 0.0, 0.0]


def test_imitation_has_a_number_of_its_own(tmp_path: Path) -> None:
    _, numbers = gradients(tmp_path / "with", TokenMean, None, 1.0, push=1.0)
    # An episode pushes its bias, which begins at 0, by its length: the mean is minus the bias.
    assert numbers["demonstration_loss"] == 0.0
    _, numbers = gradients(tmp_path / "without", TokenMean, None)
    assert "demonstration_loss" not in numbers


class Twofold(SeeingPolicy):
    """Each action has two components, decided in a factor each: one of half the odds of the seeing policy, and one
    like it."""

    def __init__(self) -> None:
        super().__init__()
        self.action_dim = 2

    def _twice(self, log_prob_BL1: Tensor) -> Tensor:
        return torch.cat([log_prob_BL1 / 2, log_prob_BL1], dim=-1)

    def act(self, observation: Observation, **rest: Any) -> ActionChunk:
        chunk = super().act(observation, **rest)
        assert chunk.tokens_BLD is not None
        return replace(
            chunk,
            actions_BLA=chunk.actions_BLA.expand(-1, -1, 2),
            log_prob_BLD=self._twice(chunk.log_prob_BLD),
            tokens_BLD=chunk.tokens_BLD.expand(-1, -1, 2),
        )

    def evaluate(self, observation: Observation, chunk: ActionChunk, **rest: Any) -> Evaluation:
        assert chunk.tokens_BLD is not None
        found = super().evaluate(observation, replace(chunk, tokens_BLD=chunk.tokens_BLD[..., :1]), **rest)
        entropy_BL1 = torch.ones_like(found.entropy_BLD)
        return replace(
            found,
            log_prob_BLD=self._twice(found.log_prob_BLD),
            entropy_BLD=torch.cat([entropy_BL1, 4 * entropy_BL1], dim=-1),
        )


def test_factors_stay_apart_and_entropy_is_their_mean_over_what_counts(tmp_path: Path) -> None:
    config, learner = loop_config(), Learner(minibatch_size=5, needs_reference=True, rate=0.0)
    numbers: dict[str, float] = {}
    train_noting(tmp_path, parts_of(Twofold(), config, learner), config, numbers)
    for minibatch in learner.seen:
        count, horizon = len(minibatch.rollouts), 6
        expected = torch.stack([rollout.log_prob_NLD.reshape(horizon, 2) for rollout in minibatch.rollouts])
        for found in (minibatch.log_prob_BSD, minibatch.old_log_prob_BSD, minibatch.reference_log_prob_BSD):
            assert found is not None and torch.equal(found, expected)
        assert minibatch.entropy_BSD.shape == (count, horizon, 2)
        assert not bool(minibatch.mask_BS.all())
    assert numbers["entropy"] == pytest.approx(2.5)


def test_autocast_is_to_bfloat16_whatever_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_autocast_dtype("cpu")
    updater = Updater(
        SeeingPolicy(), {}, Learner(), (), seed=0, micro_batch_size=None, precision="bf16-mixed", processes=Processes()
    )
    try:
        torch.set_autocast_dtype("cpu", torch.float16)
        with updater.autocast():
            assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    finally:
        torch.set_autocast_dtype("cpu", before)


def test_who_was_killed_for_memory_is_told_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        pass

    def together(trainer: Any, advice: str) -> Any:
        raise Seen(advice)

    monkeypatch.setattr(run, "together", together)
    monkeypatch.setattr(run, "build_trainer", lambda *_, **__: SimpleNamespace())
    with pytest.raises(Seen, match=r"loop\.micro_batch_size lower.*gymnast train --resume"):
        run.train(loop_config())
