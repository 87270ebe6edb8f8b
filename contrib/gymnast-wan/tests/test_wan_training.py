"""The flow-matching loss, and what it is computed on."""

import dataclasses

import pytest
import torch
from gymnast_core.errors import DataError
from gymnast_core.testing.trainable import make_episodes
from gymnast_core.types import Needs
from wan_checkpoints import SIZE, TINY, WIDTH

from gymnast_wan.flow import add_noise
from gymnast_wan.training import draw_clips
from gymnast_wan.world_model import Wan


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_levels_are_shifted_and_the_context_stays_nearly_clean():
    clean = torch.randn(400, 2, 3, 2, 2, generator=seeded(1))
    noised = add_noise(clean, 2, 5.0, 0.2, [seeded(index) for index in range(400)])
    uniform = torch.stack([torch.rand(1, generator=seeded(index)) for index in range(400)])[:, 0]
    levels = 5 * uniform / (1 + 4 * uniform)
    torch.testing.assert_close(noised.times_B, 1000 * levels)
    noise = noised.target_BCFhw + clean
    assert torch.equal(noised.latents_BCFhw[:, :, 0], clean[:, :, 0])
    torch.testing.assert_close(noised.latents_BCFhw[:, :, 1], 0.8 * clean[:, :, 1] + 0.2 * noise[:, :, 1])
    level = levels[:, None, None, None]
    torch.testing.assert_close(noised.latents_BCFhw[:, :, 2], (1 - level) * clean[:, :, 2] + level * noise[:, :, 2])
    assert abs(float(noise.std()) - 1) < 0.02 and abs(float(noise.mean())) < 0.02


def test_clips_show_what_a_rollout_shows():
    world = Wan(Wan.Config(**{**TINY, "rest_action": [9.0] * 7}))
    (episode,) = make_episodes(Needs(), WIDTH, 8, SIZE)[:1]
    starts = set()
    for seed in range(40):
        (clips,) = draw_clips(world, [episode], [seeded(seed)])
        frames, moves = clips.frames_BTHWc[0], clips.actions_BTA[0]
        every = episode.view().flatten(1)
        places = [int((every == frame).all(1).nonzero()[0]) for frame in frames.flatten(1)]
        start = places[4]
        starts.add(start)
        assert places == [0, *(max(start - back, 0) for back in (3, 2, 1)), *range(start, start + 5)]
        wanted = [torch.full((7,), 9.0) if i == 0 else episode.actions_TA[i - 1] for i in (0, *places[1:])]
        torch.testing.assert_close(moves, torch.stack(wanted))
    assert starts == set(range(len(episode.actions_TA) - 3))
    still = Wan(Wan.Config(**{**TINY, "rest_action": [9.0] * 7, "static_share": 1.0}))
    (clips,) = draw_clips(still, [episode], [seeded(0)])
    assert (clips.frames_BTHWc == clips.frames_BTHWc[:, :1]).all() and (clips.actions_BTA == 9.0).all()


def test_it_learns(tmp_path):
    world = Wan(Wan.Config(**TINY, gradient_checkpointing=True))
    episodes = make_episodes(Needs(), WIDTH, 8, SIZE)
    optimizer = torch.optim.Adam(world.module().parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = world.training_loss(episodes, generator=seeded(0)).mean
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in world.module().parameters())
    quality = world.validate(episodes[:2], generator=seeded(0))
    assert quality["psnr"] > 0
    world.save(tmp_path / "fitted")
    again = Wan(Wan.Config(checkpoint=str(tmp_path / "fitted"), dtype="float32", device="cpu"))
    for first, second in zip(world.module().parameters(), again.module().parameters(), strict=True):
        assert torch.equal(first, second)


class Counting(Wan):
    """Remembers how many actions it was given at once."""

    def step(self, state, actions_BLA):
        self.__dict__.setdefault("given", []).append(actions_BLA.shape[1])
        return super().step(state, actions_BLA)


@pytest.mark.parametrize("chunk", [4, 8])
def test_it_is_validated_in_the_chunks_that_it_was_trained_on(chunk, tmp_path):
    world = Counting(Wan.Config(**{**TINY, "chunk": chunk}))
    episodes = [episode for episode in make_episodes(Needs(), WIDTH, 16, SIZE) if len(episode.actions_TA) >= 10]
    assert len(episodes) > 1
    quality = world.validate(episodes, generator=seeded(0))
    assert set(world.given) == {chunk} and quality.keys() >= {"psnr", "psnr_8", "psnr_shuffled"}
    world.given.clear()
    world.illustrate(episodes[:1], tmp_path, generator=seeded(0))
    assert set(world.given) == {chunk} and (tmp_path / "curves.svg").exists()


def test_short_episodes_are_trained_on_as_far_as_they_go_and_left_out_below_four_actions(caplog):
    world = Wan(Wan.Config(**{**TINY, "chunk": 8}))
    episodes = make_episodes(Needs(), WIDTH, 6, SIZE)
    lengths = [len(e.actions_TA) for e in episodes]
    assert world.training_loss(episodes, generator=seeded(0)).weight == 4 and min(lengths) < 8 < max(lengths)
    short = dataclasses.replace(
        episodes[0], frames_TVHWC=episodes[0].frames_TVHWC[:4], actions_TA=episodes[0].actions_TA[:3], points_TJ2=None
    )
    assert world.training_loss([short], generator=seeded(0)).weight == 0 and "left out" in caplog.text
    with pytest.raises(DataError, match="No episodes"):
        world.training_loss([], generator=seeded(0))
