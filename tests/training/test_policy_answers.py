"""What a policy answers in a run: another form than its contract says ends it, and names the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from seeing import CAMERAS, CountingWorld, SeeingPolicy, task

from gymnast_core.errors import ContractError
from gymnast_core.rollouts.answers import checked_chunk, checked_evaluation
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.seeds import seeded_generator
from gymnast_core.training.saved import difference
from gymnast_core.types import ActionChunk, Evaluation, Observation, Rollout

CHUNKS: dict[str, tuple[Callable[[ActionChunk], Any], str]] = {
    "a tuple": (lambda chunk: (chunk.actions_BLA, chunk.log_prob_BLD), "returned a tuple, not an ActionChunk"),
    "an array": (lambda chunk: replace(chunk, actions_BLA=chunk.actions_BLA.numpy()), "as ndarray, not as a tensor"),
    "half a chunk": (
        lambda chunk: replace(chunk, actions_BLA=chunk.actions_BLA[:, :1], log_prob_BLD=chunk.log_prob_BLD[:, :1]),
        r"actions_BLA torch.float32 \(2, 1, 1\); expected torch.float32 \(2, 2, 1\)",
    ),
    "one of two episodes": (lambda chunk: replace(chunk, actions_BLA=chunk.actions_BLA[:1]), r"\(1, 2, 1\)"),
    "wide actions": (lambda chunk: replace(chunk, actions_BLA=chunk.actions_BLA.repeat(1, 1, 2)), r"\(2, 2, 2\)"),
    "coarse actions": (lambda chunk: replace(chunk, actions_BLA=chunk.actions_BLA.bfloat16()), "torch.bfloat16"),
    "coarse log-probabilities": (
        lambda chunk: replace(chunk, log_prob_BLD=chunk.log_prob_BLD.bfloat16()),
        "log_prob_BLD torch.bfloat16",
    ),
    "log-probabilities of a trajectory": (
        lambda chunk: replace(chunk, log_prob_BLD=chunk.log_prob_BLD.sum((1, 2), keepdim=True)),
        r"log_prob_BLD torch.float32 \(2, 1, 1\)",
    ),
    "tokens that are no integers": (
        lambda chunk: replace(chunk, tokens_BLD=chunk.actions_BLA),
        "tokens_BLD torch.float32",
    ),
}

EVALUATIONS: dict[str, tuple[Callable[[Evaluation], Any], str]] = {
    "None": (lambda found: None, "returned a NoneType, not an Evaluation"),
    "transposed": (
        lambda found: replace(found, log_prob_BLD=found.log_prob_BLD.transpose(1, 2)),
        r"log_prob_BLD torch.float32 \(\d+, 1, 2\); expected torch.float32 \(\d+, 2, 1\)",
    ),
    "one entropy": (lambda found: replace(found, entropy_BLD=found.entropy_BLD.mean()), "entropy_BLD"),
    "double": (lambda found: replace(found, log_prob_BLD=found.log_prob_BLD.double()), "torch.float64"),
    "features of the batch": (lambda found: replace(found, features_BF=torch.zeros(3)), "features_BF"),
}


class Answering(SeeingPolicy):
    """Answers in another form than it should."""

    chunk: Callable[[ActionChunk], Any] = staticmethod(lambda chunk: chunk)
    evaluation: Callable[[Evaluation], Any] = staticmethod(lambda found: found)

    def act(self, observation: Observation, **options: Any) -> ActionChunk:
        answer: ActionChunk = self.chunk(super().act(observation, **options))
        return answer

    def evaluate(self, observation: Observation, chunk: ActionChunk, **options: Any) -> Evaluation:
        answer: Evaluation = self.evaluation(super().evaluate(observation, chunk, **options))
        return answer


def roll_out(policy: SeeingPolicy) -> list[Rollout]:
    tasks = [task("a", 3), task("b", 20)]
    return imagine(policy, CountingWorld(), tasks, horizon=4, temperature=0.7, generator=seeded_generator(5, "answers"))


@pytest.mark.parametrize("fault", CHUNKS)
def test_a_chunk_of_another_form_is_refused(fault: str) -> None:
    policy = Answering()
    policy.chunk, said = CHUNKS[fault]
    with pytest.raises(ContractError, match=rf"^Answering\.act .*{said}.*gymnast check"):
        roll_out(policy)


@pytest.mark.parametrize("fault", EVALUATIONS)
def test_an_evaluation_of_another_form_is_refused_before_a_step(fault: str, tmp_path: Path) -> None:
    policy, config = Answering(), loop_config()
    policy.evaluation, said = EVALUATIONS[fault]
    with pytest.raises(ContractError, match=rf"^Answering\.evaluate .*{said}.*gymnast check"):
        train(tmp_path, parts_of(policy, config, Learner()), config)
    assert policy.scale.item() == pytest.approx(0.3)


def test_the_reference_is_asked_the_same(tmp_path: Path) -> None:
    class Late(Answering):
        """The copy that is held answers in another form."""

        def evaluate(self, observation: Observation, chunk: ActionChunk, **options: Any) -> Evaluation:
            found = super().evaluate(observation, chunk, **options)
            return found if torch.is_grad_enabled() else replace(found, log_prob_BLD=found.log_prob_BLD.sum())

    config = loop_config()
    with pytest.raises(ContractError, match=r"^Late\.evaluate gave log_prob_BLD"):
        train(tmp_path, parts_of(Late(), config, Learner(needs_reference=True)), config)


def test_a_saved_policy_is_asked_the_same() -> None:
    saved = Answering()
    saved.chunk, _ = CHUNKS["half a chunk"]
    policy = SeeingPolicy()
    roll_out(policy)
    with pytest.raises(ContractError, match=r"^Answering\.act gave actions_BLA"):
        difference(policy, saved, policy.shown[0])


def test_a_policy_for_evaluation_only_knows_no_log_probability() -> None:
    policy = Answering()
    policy.chunk = lambda chunk: replace(chunk, log_prob_BLD=chunk.log_prob_BLD * torch.nan)
    assert bool(roll_out(policy)[0].log_prob_NLD.isnan().all())


def test_what_autocast_makes_coarser_passes() -> None:
    policy = SeeingPolicy()
    roll_out(policy)
    chunk = checked_chunk(policy, policy.act(policy.shown[0]), 2)
    found = policy.evaluate(policy.shown[0], chunk)
    coarse = replace(found, entropy_BLD=found.entropy_BLD.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert checked_evaluation(policy, coarse, chunk) is coarse
    with pytest.raises(ContractError, match=r"entropy_BLD torch\.bfloat16"):
        checked_evaluation(policy, coarse, chunk)


def test_what_a_policy_writes_into_its_observation_does_not_become_the_episode() -> None:
    class Scribbling(SeeingPolicy):
        def act(self, observation: Observation, **options: Any) -> ActionChunk:
            chunk = super().act(observation, **options)
            observation.images_BTVHWC.zero_()
            assert observation.proprio_BTP is not None
            observation.proprio_BTP.zero_()
            return chunk

    # With all cameras in their order, nothing between makes a copy.
    kinds = {"cameras": CAMERAS, "history": 3, "chunk_length": 1}
    clean, scribbled = (roll_out(kind(kind.Config(**kinds))) for kind in (SeeingPolicy, Scribbling))
    for mine, other in zip(scribbled, clean, strict=True):
        assert torch.equal(mine.frames_TVHWC, other.frames_TVHWC)
        assert torch.equal(mine.log_prob_NLD, other.log_prob_NLD)
        assert mine.proprio_TP is not None and other.proprio_TP is not None
        assert torch.equal(mine.proprio_TP, other.proprio_TP)
