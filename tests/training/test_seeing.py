"""What the policy was shown when it acted is what its decisions are scored on, at the temperature they had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import CAMERAS, CountingWorld, SeeingPolicy, UpReward, frames, readings, task
from torch import Tensor, nn

from gymnast_core.errors import ConfigError
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.sight import Names, find_sight
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Needs, Observation, Offers, Rollout


def roll_out(policy: SeeingPolicy, *, context: int = 2, horizon: int = 6, temperature: float = 0.7) -> list[Rollout]:
    tasks = [task("a", 3, context), task("b", 20, context)]
    generator = seeded_generator(5, "noise")
    return imagine(
        policy, CountingWorld(), tasks, horizon=horizon, temperature=temperature, generator=generator, version=9
    )


def places(rollout: Rollout) -> list[int]:
    """Where the episode was after each action, the start first."""
    return [int(value) - 100 for value in rollout.view("front")[:, 0, 0, 2]]


def test_act_is_shown_the_last_frames_of_its_cameras_in_its_order() -> None:
    policy = SeeingPolicy()
    rollouts = roll_out(policy)
    assert len(policy.shown) == 3
    for decision, observation in enumerate(policy.shown):
        assert observation.cameras == ("wrist", "front")
        for row, rollout in enumerate(rollouts):
            now = 2 * decision
            walked = places(rollout)
            before = walked[now - 1] if now else walked[0]
            expected = torch.stack([frames(now - 1, before), frames(now, walked[now])])[:, [2, 0]]
            assert torch.equal(observation.images_BTVHWC[row], expected)
            assert observation.proprio_BTP is not None
            felt = torch.stack([readings(now - 1, before), readings(now, walked[now])])
            assert torch.equal(observation.proprio_BTP[row], felt)
        assert observation.instructions == ("go to 3", "go to 20")


def test_before_the_first_frame_that_frame_is_repeated() -> None:
    policy = SeeingPolicy(SeeingPolicy.Config(history=4))
    roll_out(policy, context=2)
    steps = policy.shown[0].images_BTVHWC[0, :, 0, 0, 0, 1].long() - 10
    assert steps.tolist() == [-1, -1, -1, 0]
    steps = policy.shown[1].images_BTVHWC[0, :, 0, 0, 0, 1].long() - 10
    assert steps.tolist() == [-1, 0, 1, 2]


def test_a_rollout_begins_at_the_last_context_frame_and_holds_one_frame_an_action() -> None:
    rollout = roll_out(SeeingPolicy(), context=3)[1]
    assert rollout.cameras == CAMERAS
    assert rollout.frames_TVHWC.shape[:2] == (7, 3)
    assert (rollout.view("left")[:, 0, 0, 1].long() - 10).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rollout.proprio_TP is not None
    assert rollout.proprio_TP[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rollout.proprio_TP[:, 1].tolist() == [float(place) for place in places(rollout)]
    assert rollout.version == 9


@pytest.mark.parametrize("history", [1, 2, 5])
@pytest.mark.parametrize("context", [1, 2, 4])
def test_decisions_are_what_act_was_shown_and_made(history: int, context: int) -> None:
    policy = SeeingPolicy(SeeingPolicy.Config(history=history))
    rollouts = roll_out(policy, context=context)
    observation, chunk = decisions(rollouts, policy.needed, torch.device("cpu"))
    for row in range(2):
        for decision, shown in enumerate(policy.shown):
            place = row * 3 + decision
            assert torch.equal(observation.images_BTVHWC[place], shown.images_BTVHWC[row])
            assert observation.proprio_BTP is not None and shown.proprio_BTP is not None
            assert torch.equal(observation.proprio_BTP[place], shown.proprio_BTP[row])
            assert observation.instructions[place] == shown.instructions[row]
            assert torch.equal(chunk.actions_BLA[place], rollouts[row].actions_NLA[decision])
    found = policy.evaluate(observation, chunk, temperature=temperatures(rollouts, torch.device("cpu")))
    assert torch.equal(found.log_prob_BLD, chunk.log_prob_BLD)


def test_rollouts_of_one_batch_are_scored_at_their_own_temperature() -> None:
    policy = SeeingPolicy()
    cold, warm = roll_out(policy, temperature=0.5)[0], roll_out(policy, temperature=2.0)[1]
    observation, chunk = decisions([cold, warm], policy.needed, torch.device("cpu"))
    heat_B = temperatures([cold, warm], torch.device("cpu"))
    assert heat_B.tolist() == [0.5] * 3 + [2.0] * 3
    found = policy.evaluate(observation, chunk, temperature=heat_B)
    assert torch.equal(found.log_prob_BLD, chunk.log_prob_BLD)


def test_at_the_first_gradient_step_every_ratio_is_one(tmp_path: Path) -> None:
    config = loop_config(micro_batch_size=2)
    learner = Learner(minibatch_size=99, needs_reference=True)
    train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    assert len(learner.seen) > 1
    for minibatch in learner.seen:
        assert torch.equal(minibatch.log_prob_BSD, minibatch.old_log_prob_BSD)
        # The frozen initial policy is, so far, the policy: scored at the same temperature.
        assert minibatch.reference_log_prob_BSD is not None
        assert torch.equal(minibatch.reference_log_prob_BSD, minibatch.old_log_prob_BSD)


class Weighted(SeeingPolicy):
    """Its odds also depend on a matrix whose numbers bfloat16 does not have."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        self.weights = nn.Parameter(1 + 0.01 * drawn)

    def _log_probs(self, observation: Observation, temperature: float | Tensor) -> Tensor:
        factor = (torch.eye(64) @ self.weights).float().mean()
        return super()._log_probs(observation, temperature) * factor


def test_in_bfloat16_nothing_lies_between_a_policy_and_its_frozen_copy_before_it_moves(tmp_path: Path) -> None:
    config = loop_config(micro_batch_size=2)
    learner = Learner(minibatch_size=99, needs_reference=True)
    train(tmp_path, parts_of(Weighted(), config, learner), config, precision="bf16-mixed")
    for minibatch in learner.seen:
        assert minibatch.reference_log_prob_BSD is not None
        assert torch.equal(minibatch.log_prob_BSD, minibatch.reference_log_prob_BSD)
        assert not torch.equal(minibatch.log_prob_BSD, minibatch.old_log_prob_BSD)  # made without autocast


def test_later_the_policy_has_moved_and_the_reference_has_not(tmp_path: Path) -> None:
    config = loop_config()
    learner = Learner(minibatch_size=6, epochs=2, needs_reference=True, rate=5.0)
    train(tmp_path, parts_of(SeeingPolicy(), config, learner), config)
    last = learner.seen[-1]
    assert not torch.equal(last.log_prob_BSD, last.old_log_prob_BSD)
    assert last.reference_log_prob_BSD is not None
    assert torch.equal(last.reference_log_prob_BSD, last.old_log_prob_BSD)


def test_a_loss_gets_the_rows_that_belong_together(tmp_path: Path) -> None:
    config = loop_config()
    judge, learner = UpReward(), Learner(minibatch_size=5)
    train(tmp_path, parts_of(SeeingPolicy(), config, learner, judge), config)
    for minibatch in learner.seen:
        assert minibatch.features_BNF is not None
        for row, rollout in enumerate(minibatch.rollouts):
            reward = judge._score(rollout)
            finish = reward.finish_step or rollout.horizon
            assert minibatch.mask_BS[row].tolist() == [True] * finish + [False] * (rollout.horizon - finish)
            assert bool(minibatch.advantages_BS[row, 0] > 0) == (reward.value == 1.0)
            assert torch.equal(minibatch.old_log_prob_BSD[row].flatten(), rollout.log_prob_NLD.flatten())
            assert rollout.proprio_TP is not None
            assert torch.equal(minibatch.features_BNF[row], rollout.proprio_TP[:-1:2])


class TestNeedsAndOffers:
    """What does not fit is refused with both sides' names, before anything runs."""

    names = Names("The policy 'a'", "the world model 'b'", "the tasks of 'c'")

    @pytest.mark.parametrize(
        ("needs", "offers", "said"),
        [
            (Needs(("wrist", "hand")), Offers(CAMERAS), "needs the cameras wrist, hand, .*front, left, wrist: hand is"),
            (
                Needs(2),
                Offers(CAMERAS),
                "needs 2 cameras, but the world model 'b' shows the cameras front, left, wrist",
            ),
            (Needs(3), Offers(1), "The world model 'b' imagines 1 camera, but the tasks of 'c' show the cameras front"),
            (
                Needs(3),
                Offers(("front", "top")),
                "'b' shows the cameras front, top, but the tasks of 'c' .*without top",
            ),
            (Needs(3, proprio=2), Offers(CAMERAS), "'a' needs 2 proprioceptive readings.*'b' offers no proprioception"),
            (Needs(3, proprio=2), Offers(CAMERAS, 8), "needs 2 prop.*'b' offers 8 proprioceptive readings"),
            (
                Needs(3, proprio=8),
                Offers(CAMERAS, 8),
                "needs 8 prop.*tasks of 'c' begin with 2 proprioceptive readings",
            ),
            (
                Needs(3, actions=7),
                Offers(CAMERAS, actions=14),
                "'a' decides actions of width 7, but the world model 'b' takes actions of width 14. Choose parts",
            ),
        ],
    )
    def test_what_is_lacking_is_named(self, needs: Needs, offers: Offers, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            find_sight(needs, offers, task("a", 1), self.names)

    @pytest.mark.parametrize(("decided", "taken"), [(7, 7), (7, None), (None, 14)])
    def test_only_known_widths_of_actions_are_compared(self, decided: int | None, taken: int | None) -> None:
        sight = find_sight(Needs(3, actions=decided), Offers(CAMERAS, actions=taken), task("a", 1), self.names)
        assert sight.cameras == CAMERAS and sight.chosen == (0, 1, 2)

    def test_a_built_policy_knows_the_width_of_its_actions(self) -> None:
        assert SeeingPolicy().needed.actions == 1

    def test_what_is_offered_beyond_the_needs_is_left_out(self) -> None:
        sight = find_sight(Needs(("wrist",)), Offers(CAMERAS, 2), task("a", 1), self.names)
        assert (sight.cameras, sight.chosen, sight.proprio) == (CAMERAS, (2,), None)
