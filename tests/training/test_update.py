"""A gradient step: the sum over everything it learns from, divided by the weight of all of it, once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import SeeingPolicy, UpReward, task
from torch import Tensor

from gymnast_core.learning import Minibatch
from gymnast_core.seeds import episode_generators, seeded_generator
from gymnast_core.training.update import NonFiniteGradient
from gymnast_core.types import Episode, LossSum, Metric


class Imitating(SeeingPolicy):
    """Pushes its first bias by what each episode names; an episode weighs its length."""

    def imitation_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
        lengths = [len(episode.actions_TA) for episode in episodes]
        chances = [float(torch.rand(1, generator=own)) for own in episode_generators(generator, len(episodes))]
        numbers = [float(episode.actions_TA[0, 0]) for episode in episodes]
        # 1 is pushed by exactly, other numbers by chance.
        wanted = [number if number == 1.0 else number * chance for number, chance in zip(numbers, chances, strict=True)]
        pairs = zip(lengths, wanted, strict=True)
        total = sum((length * -number * self.bias[0] for length, number in pairs), torch.zeros(()))
        return LossSum(total, float(sum(lengths)))


def demonstrations(push: float | None = None) -> list[Episode]:
    """Episodes of different lengths; each pushes by its own number, or all by `push`."""
    frames = task("a", 1).frames_TVHWC[:1]
    found = []
    for n in range(5):
        actions = torch.full((n + 1, 1), float(n) if push is None else push)
        found.append(Episode(f"demo-{n}", "go", frames.repeat(n + 2, 1, 1, 1, 1), actions, ("a", "b", "c")))
    return found


@dataclass
class TokenMean(Learner):
    """Every action that counts weighs the same; finish steps differ, so parts weigh unequally."""

    def loss(self, minibatch: Minibatch) -> LossSum:
        found = super().loss(minibatch)
        loudest = minibatch.log_prob_BSD.detach().abs().max()
        return LossSum(found.total, found.weight, {"loudest": Metric(loudest, combine="max")})


@dataclass
class TrajectoryMean(Learner):
    def loss(self, minibatch: Minibatch) -> LossSum:
        self.seen.append(minibatch)
        gain_BS = minibatch.log_prob_BSD.mean(-1) * minibatch.advantages_BS * minibatch.mask_BS
        return LossSum(-(gain_BS.sum(1) / minibatch.mask_BS.sum(1)).sum(), len(gain_BS))


@dataclass
class SuccessesOnly(Learner):
    """Parts without a success weigh nothing."""

    def loss(self, minibatch: Minibatch) -> LossSum:
        self.seen.append(minibatch)
        success_B = (minibatch.advantages_BS[:, 0] > 0).float()
        return LossSum(-(minibatch.log_prob_BSD.mean((1, 2)) * success_B).sum(), success_B.sum())


def gradients(
    folder: Path, kind: type[Learner], micro: int | None, ratio: float = 0.0, push: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The gradient of one step on a whole iteration, and the step's numbers."""
    config = loop_config(micro_batch_size=micro)
    learner = kind(minibatch_size=99, demonstrations_per_rollout=ratio, rate=1.0)
    policy = Imitating()
    before = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
    parts = replace(parts_of(policy, config, learner, UpReward()), demonstrations=demonstrations(push))
    numbers: dict[str, float] = {}
    loop = train_noting(folder, parts, config, numbers)
    assert loop.updater.updates == 1
    return before - torch.cat([parameter.detach().flatten() for parameter in policy.parameters()]), numbers


def train_noting(folder: Path, parts: Any, config: Any, numbers: dict[str, float]) -> Any:
    from gymnast_core.training.record import RunRecord

    original = RunRecord.iteration_done

    def noting(self: RunRecord, loop: Any, found: dict[str, float]) -> None:
        numbers.update(found)
        original(self, loop, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "iteration_done", noting)
        return train(folder, parts, config)


@pytest.mark.parametrize("kind", [TokenMean, TrajectoryMean, SuccessesOnly])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_parts_do_not_change_the_step(kind: type[Learner], ratio: float, tmp_path: Path) -> None:
    whole, numbers = gradients(tmp_path / "whole", kind, None, ratio)
    assert whole.abs().max() > 1e-3
    for micro in (1, 2, 4):
        split, found = gradients(tmp_path / str(micro), kind, micro, ratio)
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-7)
        compared = {"loss", "entropy", "loudest", "grad_norm", "demonstration_loss"} & numbers.keys()
        assert compared >= {"loss", "entropy", "grad_norm"}
        for name in compared:
            assert found[name] == pytest.approx(numbers[name], rel=1e-5, abs=1e-6), name


def test_the_step_is_the_mean_over_what_weighs(tmp_path: Path) -> None:
    """The same numbers by hand, from what the loss was shown."""
    config = loop_config()
    learner = TokenMean(minibatch_size=99, rate=1.0)
    policy = SeeingPolicy()
    start = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    train(tmp_path, parts_of(policy, config, learner), config)
    (seen,) = learner.seen
    again = SeeingPolicy()
    again.load_state_dict(start)
    found = again.evaluate(seen.observation, seen.chunk, temperature=0.7)
    log_prob_BS = found.log_prob_BLD.reshape(seen.advantages_BS.shape)
    ratio_BS = (log_prob_BS - seen.old_log_prob_BSD[..., 0]).exp()
    counted = [
        -ratio_BS[b, s] * seen.advantages_BS[b, s]
        for b in range(ratio_BS.shape[0])
        for s in range(ratio_BS.shape[1])
        if seen.mask_BS[b, s]
    ]
    (sum(counted) / len(counted)).backward()
    for name, parameter in again.named_parameters():
        moved = start[name] - dict(policy.named_parameters())[name].detach()
        torch.testing.assert_close(moved, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("imitates", "temperature"), [(False, 0.7), (True, 1.0)])
def test_what_is_imitated_is_imitated_at_temperature_1(imitates: bool, temperature: float, tmp_path: Path) -> None:
    """As demonstrations are, though it was sampled at 0.7; a ratio wants the temperature of whoever acted."""
    config = loop_config()
    learner = Learner(minibatch_size=99)
    learner.imitates = imitates
    train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    (seen,) = learner.seen
    wanted = SeeingPolicy().evaluate(seen.observation, seen.chunk, temperature=temperature).log_prob_BLD
    torch.testing.assert_close(seen.log_prob_BSD, wanted.reshape(seen.log_prob_BSD.shape))
    assert {rollout.temperature for rollout in seen.rollouts} == {0.7}


def test_demonstrations_have_their_share_and_no_more(tmp_path: Path) -> None:
    """With a demonstration a rollout, each mean counts one half; with three, the policy's counts one quarter."""
    policy_part, _ = gradients(tmp_path / "alone", TrajectoryMean, None, 0.0)
    for ratio, share in ((1.0, 0.5), (3.0, 0.25)):
        mixed, _ = gradients(tmp_path / f"mixed-{ratio}", TrajectoryMean, 2, ratio, push=1.0)
        # The mean gradient of imitation is -1 in the first bias and 0 elsewhere, whichever episodes are drawn.
        pushed = torch.tensor([0.0, -1.0, 0.0])
        torch.testing.assert_close(mixed, share * policy_part + (1 - share) * pushed, rtol=1e-5, atol=1e-6)


def test_a_step_that_nothing_weighs_in_changes_nothing(tmp_path: Path) -> None:
    @dataclass
    class Nothing(Learner):
        def loss(self, minibatch: Minibatch) -> LossSum:
            return LossSum((minibatch.log_prob_BSD * 0).sum(), 0.0, {"odd": Metric(math.nan, 0.0)})

    config = loop_config()
    policy = SeeingPolicy()
    numbers: dict[str, float] = {}
    train_noting(tmp_path, parts_of(policy, config, Nothing()), config, numbers)
    assert policy.scale.item() == pytest.approx(0.3)
    assert "odd" not in numbers and "loss" not in numbers


def test_no_step_is_taken_with_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    config = loop_config()
    policy = SeeingPolicy()
    policy.scale.register_hook(lambda gradient: gradient / 0.0)
    with pytest.raises(NonFiniteGradient, match=r"gradient step 1; no step was taken.*learning_rate"):
        train(tmp_path, parts_of(policy, config, Learner()), config)
    assert policy.scale.item() == pytest.approx(0.3)


def test_an_optimizer_that_wants_to_stop_is_asked_before_the_step(tmp_path: Path) -> None:
    @dataclass
    class Careful(Learner):
        def should_stop(self, metrics: Any) -> bool:
            return metrics["ratio_max"] > 1.0001

    config = loop_config(tasks_per_iteration=6)
    policy, learner = SeeingPolicy(), Careful(minibatch_size=4, rate=3.0)
    numbers: dict[str, float] = {}
    loop = train_noting(tmp_path, parts_of(policy, config, learner), config, numbers)
    assert loop.updater.updates == 1  # the first step moved the policy, so that the second is not taken
    assert 0 < numbers["stopped_early"] < 1


def test_minibatches_are_drawn_from_named_streams(tmp_path: Path) -> None:
    """A resumed run, and one in several processes, draw the same: the streams' names are part of what a run is."""
    config = loop_config(iterations=2, max_draws=1)
    learner = Learner(minibatch_size=5, epochs=2)
    loop = train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    groups: dict[int, list[int]] = {}
    for minibatch in learner.seen:
        for rollout in minibatch.rollouts:
            iteration = 0 if rollout.group < 4 else 1
            groups.setdefault(iteration, [])
            if rollout.group not in groups[iteration]:
                groups[iteration].append(rollout.group)
    expected = []
    for iteration, labels in groups.items():
        rows = [(label, place) for label in sorted(labels) for place in range(4)]
        for epoch in range(2):
            generator = seeded_generator(config.seed, "update", iteration, epoch)
            order = [rows[index] for index in torch.randperm(len(rows), generator=generator).tolist()]
            expected += [order[first : first + 5] for first in range(0, len(order), 5)]
    found = [[rollout.group for rollout in minibatch.rollouts] for minibatch in learner.seen]
    assert found == [[label for label, _ in chosen] for chosen in expected]
    assert loop.updater.updates == len(expected)


def test_demonstrations_are_drawn_from_named_streams(tmp_path: Path) -> None:
    shown: list[tuple[list[str], list[float]]] = []

    class Noting(SeeingPolicy):
        def imitation_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> LossSum:
            chances = [float(torch.rand(1, generator=own)) for own in episode_generators(generator, len(episodes))]
            shown.append(([episode.id for episode in episodes], chances))
            return LossSum(self.bias.sum() * 0, len(episodes), {})

    config = loop_config(micro_batch_size=2)
    learner = Learner(minibatch_size=6, demonstrations_per_rollout=0.5)
    parts = replace(parts_of(Noting(), config, learner), demonstrations=demonstrations())
    train(tmp_path, parts, config)
    steps = -(-sum(len(minibatch.rollouts) for minibatch in learner.seen) // 6)
    expected = []
    for step in range(steps):
        place = (0, 0, 6 * step)
        chosen = min(6, sum(len(minibatch.rollouts) for minibatch in learner.seen) - 6 * step)
        count = math.ceil(chosen * 0.5)
        indices = torch.randint(5, (count,), generator=seeded_generator(config.seed, "demonstrations", *place)).tolist()
        own = episode_generators(seeded_generator(config.seed, "demonstration", *place), count)
        chances = [float(torch.rand(1, generator=one)) for one in own]
        ids = [f"demo-{index}" for index in indices]
        expected += [(ids[first : first + 2], chances[first : first + 2]) for first in range(0, count, 2)]
    assert shown == expected


def test_each_parameter_group_has_its_rate(tmp_path: Path) -> None:
    @dataclass
    class Rated(Learner):
        def torch_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
            first, *rest = parameters
            self.optimizer = torch.optim.SGD([{"params": [first], "lr_scale": 3.0}, {"params": rest}], lr=0.5)
            return self.optimizer

        def learning_rate(self, update: int) -> float:
            return 0.01 * (update + 1)

    config = loop_config()
    learner = Rated(minibatch_size=5)
    numbers: dict[str, float] = {}
    loop = train_noting(tmp_path, parts_of(SeeingPolicy(), config, learner), config, numbers)
    steps = loop.updater.updates
    assert steps > 1
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.03 * steps, 0.01 * steps])
    assert numbers["learning_rate"] == pytest.approx(0.01 * (steps + 1) / 2)


def test_after_a_stop_nothing_more_is_learned_from_the_batch(tmp_path: Path) -> None:
    @dataclass
    class Stopping(Learner):
        def should_stop(self, metrics: Any) -> bool:
            return len(self.seen) > 1

    config = loop_config()
    learner = Stopping(minibatch_size=4, epochs=3)
    loop = train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    assert (len(learner.seen), loop.updater.updates) == (2, 1)
