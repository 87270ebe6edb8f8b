"""Labelled clips of the tabletop, made from seeds."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from gymnast_core.errors import DataError
from gymnast_tabletop.clips import TabletopClips


def clips(**config: object) -> TabletopClips:
    return TabletopClips(TabletopClips.Config(**{"count": 10, "image_size": 32, **config}))  # type: ignore[arg-type]


def test_outcomes_are_balanced_and_true_of_what_the_environment_does() -> None:
    episodes = clips().episodes()
    assert len(episodes) == 10 and sum(bool(episode.success) for episode in episodes) == 5
    assert len({episode.id for episode in episodes}) == 10
    environment = gymnasium.make("gymnast/Tabletop-v0", image_size=32, horizon=16)
    for episode in episodes[:6]:
        seed = int(episode.id.rpartition("/")[2])
        first, info = environment.reset(seed=seed, options={"instruction": episode.instruction})
        assert np.array_equal(first["image"], episode.view()[0].numpy())
        for action, frame in zip(episode.actions_TA.numpy(), episode.view()[1:].numpy(), strict=True):
            seen, _, _, _, info = environment.step(action)
            assert np.array_equal(seen["image"], frame)
        assert info["success"] == episode.success
    environment.close()


def test_the_same_seed_gives_the_same_clips_and_another_gives_others() -> None:
    first, again, other = (clips(count=4, seed=seed).episodes() for seed in (0, 0, 1))
    assert all((a.frames_TVHWC == b.frames_TVHWC).all() and a.id == b.id for a, b in zip(first, again, strict=True))
    assert not {episode.id for episode in first} & {episode.id for episode in other}


def test_the_share_of_successes_is_chosen() -> None:
    assert [bool(e.success) for e in clips(count=4, success_share=1.0).episodes()] == [True] * 4
    assert sum(bool(e.success) for e in clips(count=8, success_share=0.25).episodes()) == 2


def test_outcomes_out_of_reach_are_named() -> None:
    with pytest.raises(DataError, match=r"1 successes and 0 failures are missing after 200 attempts of play"):
        clips(count=1, success_share=1.0, behaviours=["play"], actions=1).episodes()[0]
