"""Episodes with fewer actions than a chunk: refused, or padded with a mask that lets the padding weigh nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oft_cases import episodes, small_config
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Episode, Needs
from gymnast_openvla_oft.imitation import Imitation, draw_decisions, joined, recorded_mean
from gymnast_openvla_oft.policy import OpenVLAOFT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cut(episode: Episode, actions: int) -> Episode:
    points = None if episode.points_TJ2 is None else episode.points_TJ2[: actions + 1]
    return replace(
        episode,
        frames_TVHWC=episode.frames_TVHWC[: actions + 1],
        actions_TA=episode.actions_TA[:actions],
        points_TJ2=points,
    )


def policy(action_head: str = "tokens", chunk_length: int = 4, **imitation: object) -> OpenVLAOFT:
    config = small_config(**imitation)  # type: ignore[arg-type]
    return OpenVLAOFT(replace(config, chunk_length=chunk_length, action_head=action_head))


def test_they_are_named_unless_they_are_padded() -> None:
    short = cut(episodes(1)[0], 2)
    with pytest.raises(DataError, match=r"has 2 actions; a chunk needs 4\. .*short_episodes=pad"):
        policy().training_loss([short], generator=seeded())
    with pytest.raises(DataError, match="has 0 actions"):
        policy(short_episodes="pad").training_loss([cut(short, 0)], generator=seeded())
    assert policy().least_actions == 4 and policy(short_episodes="pad").least_actions == 1


def test_the_mask_says_what_was_recorded() -> None:
    long, short = episodes(2)
    settings = Imitation(decisions_per_episode=3, short_episodes="pad")
    drawn = [draw_decisions(episode, 4, settings, Needs(), seeded()) for episode in (long, cut(short, 2))]
    assert drawn[0].recorded_BL is None
    both = joined(drawn)
    assert both.recorded_BL is not None
    assert both.recorded_BL.tolist() == [[True] * 4] * 3 + [[True, True, False, False]] * 3
    assert torch.equal(both.actions_BLA[3:], short.actions_TA[[0, 1, 1, 1]].expand(3, 4, 2))
    assert joined(drawn[:1]).recorded_BL is None


@pytest.mark.parametrize("head", ["tokens", "l1"])
def test_a_padded_chunk_teaches_what_was_recorded_of_it(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, the same frame: the loss of 2 recorded actions is the mean over these 2 of the chunk's 4."""
    padded = policy(head, short_episodes="pad")
    long = episodes(1)[0]
    seen: list[Tensor] = []

    def noting(x_BLA: Tensor, recorded_BL: Tensor | None) -> Tensor:
        seen.append(x_BLA.detach())
        return recorded_mean(x_BLA, recorded_BL)

    monkeypatch.setattr("gymnast_openvla_oft.policy.recorded_mean", noting)
    first = replace(long, frames_TVHWC=long.frames_TVHWC[:5], actions_TA=long.actions_TA[:4], points_TJ2=None)
    whole = padded.training_loss([first], generator=seeded())
    short = padded.training_loss([cut(first, 2)], generator=seeded())
    assert whole.total.item() == pytest.approx(seen[0].mean().item(), rel=1e-6)
    assert short.total.item() == pytest.approx(seen[0][:, :2].mean().item(), rel=1e-5)
    assert short.weight == whole.weight == 1


def test_what_fills_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, short = policy(short_episodes="pad"), cut(episodes(1)[0], 2)
    decisions = learner.training_decisions([short], seeded())
    other = decisions.actions_BLA.clone()
    other[:, 2:] = -other[:, 2:]
    losses = [learner._imitation(each) for each in (decisions, replace(decisions, actions_BLA=other))]
    assert losses[0].total.item() == losses[1].total.item()
    for name, metric in losses[0].metrics.items():
        assert float(metric.value) == float(losses[1].metrics[name].value), name
    assert losses[0].metrics["token_accuracy"].weight == 2 * 2
    unmasked = learner._imitation(replace(decisions, actions_BLA=other, recorded_BL=None))
    assert unmasked.total.item() != losses[0].total.item()


def test_a_batch_of_both_is_the_sum_of_its_parts() -> None:
    learner = policy(short_episodes="pad")
    long, short = episodes(2)
    g = seeded(1)
    alone = [learner.training_loss([episode], generator=g).total.item() for episode in (long, cut(short, 3))]
    both = learner.training_loss([long, cut(short, 3)], generator=seeded(1))
    assert both.total.item() == pytest.approx(sum(alone), rel=1e-5) and both.weight == 2
