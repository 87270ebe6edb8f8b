"""Training, validation, saving."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import worlds

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.seeds import episode_generators
from gymnast_core.short_episodes import long_enough
from gymnast_core.types import Episode, one_camera
from gymnast_worldgym.training import PixelWeights, TrainingConfig, draw_clips, draw_times, pixel_weights
from gymnast_worldgym.world_model import WorldGym


@pytest.mark.parametrize("prediction", ["v", "x0", "flow", "change"])
def test_the_loss_falls(prediction: str) -> None:
    model = WorldGym(WorldGym.Config(**worlds.SIZE, prediction=prediction, pixel_weights=PixelWeights()))
    optimizer = torch.optim.Adam(model.module().parameters(), lr=3e-3)
    episodes, losses = worlds.moving_dot(2, length=5), []
    for _ in range(25):
        loss = model.training_loss(episodes, generator=worlds.generator()).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.85 * losses[0]


def test_the_loss_is_reproducible_and_reaches_every_parameter() -> None:
    model = worlds.world(action_dropout=0.5, pixel_weights=PixelWeights())
    episodes = worlds.moving_dot(4)
    losses = [model.training_loss(episodes, generator=worlds.generator(2)).mean for _ in range(2)]
    assert torch.equal(losses[0], losses[1])
    losses[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.module().parameters())


def test_dropping_every_action_hides_them() -> None:
    model = worlds.world(action_dropout=1.0)
    episodes = worlds.moving_dot(4)
    others = [Episode(e.id, "", e.frames_TVHWC, e.actions_TA + 1) for e in episodes]
    losses = [model.training_loss(e, generator=worlds.generator(2)).mean.item() for e in (episodes, others)]
    assert losses[0] == losses[1]


def test_clips_start_anywhere_and_keep_frames_and_actions_together() -> None:
    model, g = worlds.world(), worlds.generator()
    frames = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 16, 16, 3)
    actions = torch.arange(1.0, 12.0)[:, None].expand(11, 3)
    starts = set()
    for _ in range(60):
        (clips,) = draw_clips([Episode("e", "", one_camera(frames), actions)], 5, model.actions, [g])
        seen = clips.frames_BTHWC[0, :, 0, 0, 0].tolist()
        starts.add(seen[0])
        assert clips.actions_BTA[0, :, 0].tolist() == seen
    assert starts == set(range(8))


def test_windows_pair_every_frame_with_the_action_chosen_at_it_where_there_is_one() -> None:
    model, g = worlds.world(action_alignment="same"), worlds.generator()
    frames = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 16, 16, 3)
    actions = torch.arange(1.0, 12.0)[:, None].expand(11, 3)
    starts = set()
    for _ in range(60):
        (clips,) = draw_clips([Episode("long", "", one_camera(frames), actions)], 5, model.actions, [g])
        seen = clips.frames_BTHWC[0, :, 0, 0, 0].tolist()
        starts.add(seen[0])
        assert clips.actions_BTA[0, :, 0].tolist() == [i + 1 for i in seen]
    assert starts == set(range(7))
    (short,) = draw_clips([Episode("short", "", one_camera(frames[:5]), actions[:4])], 5, model.actions, [g])
    assert short.actions_BTA[0, :, 0].tolist() == [1, 2, 3, 4, 0]


def test_an_episode_of_one_frame_weighs_nothing_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model, (one, two, three) = worlds.world(), worlds.moving_dot(3)
    short = Episode("short", "", two.frames_TVHWC[:1], two.actions_TA[:0])
    with caplog.at_level(logging.WARNING):
        loss = model.training_loss([one, short, three], generator=worlds.generator())
    assert "'short' has 1 frame" in caplog.text
    assert loss.weight == 2
    alone = model.training_loss([short], generator=worlds.generator())
    assert (float(alone.total), float(alone.weight)) == (0.0, 0.0)
    # The others keep the randomness that they have beside any episode.
    whole = model.training_loss([one, two, three], generator=worlds.generator())
    g = worlds.generator()
    second = [model.training_loss([episode], generator=g).total.item() for episode in (one, two, three)][1]
    assert loss.total.item() == pytest.approx(whole.total.item() - second, rel=1e-4)
    with pytest.raises(DataError, match="No episodes"):
        worlds.world().training_loss([], generator=worlds.generator())


def test_short_episodes_are_trained_on_as_far_as_they_go_or_left_out() -> None:
    assert worlds.world().least_actions == 1
    assert worlds.world(short_episodes="leave_out").least_actions == worlds.SIZE["window"] - 1
    kept = long_enough(
        [*worlds.moving_dot(2, length=4), *worlds.moving_dot(2, length=5)],
        worlds.world(short_episodes="leave_out"),
        "episodes",
    )
    assert [len(episode.frames_TVHWC) for episode in kept] == [5, 5]


def test_the_mixture_of_noise_levels() -> None:
    model = worlds.world()
    config = TrainingConfig(clean_fraction=0.5, pure_noise_fraction=0.5)
    t = draw_times(model.process, 100, config, episode_generators(worlds.generator(), 200))
    assert abs((t <= 28).float().mean() - 0.5 - 0.25 * 0.029) < 0.01
    assert abs((t == 999).float().mean() - 0.25) < 0.01


def test_pixel_weights_find_objects_and_motion() -> None:
    frames = torch.full((5, 2, 16, 16, 3), 100, dtype=torch.uint8)
    frames[0, 0, 2, 2] = frames[0, 1, 2, 2] = 200
    frames[0, 1, 10, 10] = 200
    w = pixel_weights(frames, PixelWeights(base=1.0, object=10.0, motion=100.0))[..., 0]
    assert w[0, 0, 2, 2] == w[0, 1, 2, 2] == 11
    assert w[0, 1, 10, 10] == 111
    assert w[0, 1, 9, 9] == w[0, 1, 11, 10] == 101
    assert w[1].eq(1).all()


def test_pixel_weights_of_a_clip_are_its_own() -> None:
    clips = torch.stack([episode.view() for episode in worlds.moving_dot(3)])
    clips[1:] = 255 - clips[1:]
    config = PixelWeights()
    together = pixel_weights(clips, config)
    for row in range(3):
        assert torch.equal(pixel_weights(clips[row : row + 1], config)[0], together[row])
    # A dot of 4 x 4 pixels on a table of one colour: what is no table is an object, in every frame and picture.
    moving = replace(config, base=0.0, motion=0.0)
    assert pixel_weights(clips, moving).count_nonzero((2, 3, 4)).eq(16).all()


@pytest.mark.parametrize("alignment", ["previous", "same"])
@pytest.mark.parametrize("prediction", ["v", "x0", "flow"])
def test_gradients_do_not_depend_on_the_microbatches(prediction: str, alignment: str) -> None:
    model = worlds.world(
        prediction=prediction,
        action_alignment=alignment,
        action_dropout=0.5,
        pure_noise_fraction=0.5,
        pixel_weights=PixelWeights(),
    )
    episodes = [*worlds.moving_dot(6), *worlds.moving_dot(2, length=4)]
    mean, gradient = _learn(model, episodes, len(episodes))
    assert gradient.norm() > 0
    for size in (1, 2, 4):
        again, found = _learn(model, episodes, size)
        assert again == pytest.approx(mean, rel=1e-5)
        assert (found - gradient).norm() <= 1e-5 * gradient.norm()


def _learn(model: WorldGym, episodes: Sequence[Episode], size: int) -> tuple[float, torch.Tensor]:
    """Mean loss and gradient of one step in microbatches of that size, all fed from one generator."""
    model.module().zero_grad()
    generator, parts = worlds.generator(4), []
    for first in range(0, len(episodes), size):
        part = model.training_loss(episodes[first : first + size], generator=generator)
        part.total.backward()
        parts.append(part)
    weight = sum(float(part.weight) for part in parts)
    gradients = [p.grad.flatten() for p in model.module().parameters() if p.grad is not None]
    return sum(part.total.item() for part in parts) / weight, torch.cat(gradients) / weight


def test_a_clip_adds_the_same_beside_any_other() -> None:
    model, (one, two, three) = worlds.world(pixel_weights=PixelWeights()), worlds.moving_dot(3)
    changed = Episode(three.id, "", 255 - three.frames_TVHWC[:4], three.actions_TA[:3])

    def total(*episodes: Episode) -> float:
        return model.training_loss(episodes, generator=worlds.generator(6)).total.item()

    added = [total(first, one) - total(first) for first in (two, three, changed)]
    assert added[0] > 0
    assert added == pytest.approx([added[0]] * 3, rel=1e-5)


def test_the_loss_is_the_mean_over_clips_frames_and_pixels() -> None:
    model, episodes = worlds.world(), worlds.moving_dot(5)
    loss = model.training_loss(episodes, generator=worlds.generator())
    assert loss.weight == 5
    assert loss.metrics["mse"].weight == 5
    assert float(loss.metrics["mse"].value) == pytest.approx(loss.mean.item(), rel=1e-6)
    weighted = worlds.world(pixel_weights=PixelWeights(base=3.0, object=0.0, motion=0.0))
    tripled = weighted.training_loss(episodes, generator=worlds.generator())
    assert tripled.mean.item() == pytest.approx(3 * loss.mean.item(), rel=1e-6)


def test_validation_names_its_controls_and_prefers_a_perfect_world() -> None:
    model, episodes = worlds.world(), worlds.moving_dot(6)
    quality = model.validate(episodes, generator=worlds.generator())
    assert {
        "psnr",
        "psnr_1",
        "psnr_4",
        "psnr_copy",
        "psnr_copy_4",
        "psnr_copy_previous",
        "psnr_shuffled",
    } <= set(quality)
    still = [Episode(e.id, "", e.frames_TVHWC[:1].expand(5, -1, -1, -1, -1), e.actions_TA[:4]) for e in episodes]
    assert model.validate(still, generator=worlds.generator())["psnr_copy"] == pytest.approx(60.0)


def test_a_saved_world_imagines_the_same_frames(tmp_path: Path) -> None:
    model = worlds.world(denoising_steps=2, prediction="v", action_scale=[2.0])
    model.save(tmp_path / "world")
    again = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world")))
    assert again.architecture == model.architecture
    assert again.sampling == model.sampling
    actions = torch.randn(2, 6, 3, generator=worlds.generator())
    starts = [m.reset(worlds.tasks(2), generator=worlds.generator(1)) for m in (model, again)]
    frames = [m.step(state, actions).frames_BLVHWC for m, state in zip((model, again), starts, strict=True)]
    assert torch.equal(frames[0], frames[1])


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_own_previous_frames_are_the_models_own_predictions(own: float) -> None:
    """A network that repaints everything white has seen white before each frame but the first, or what was recorded."""
    args = {"image_size": [16, 16], "dim": 32, "heads": 2, "layers": 1, "action_dim": 3, "prediction": "change"}
    model = WorldGym(WorldGym.Config(**args, denoising_steps=1, window=4, own_previous=own, clean_fraction=0.0))
    network = model.network
    with torch.no_grad():
        network.final_layer.linear.bias.fill_(1.0).view(8, 8, 6)[..., 3] = 1e4
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][..., 3:].clone()))
    frames = torch.randint(0, 200, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    episode = Episode("e", "", one_camera(frames), torch.zeros(3, 2))
    model.training_loss([episode], generator=torch.Generator().manual_seed(1))
    recorded = frames.float() / 127.5 - 1
    expected = torch.cat([recorded[:1], torch.ones(3, 16, 16, 3) if own else recorded[:-1]])
    torch.testing.assert_close(seen[-1][0], expected)


def test_own_previous_is_of_predicted_changes() -> None:
    with pytest.raises(ConfigError, match="own_previous is of prediction: change"):
        WorldGym(WorldGym.Config(own_previous=0.5))


@pytest.mark.parametrize(("length", "told"), [(worlds.SIZE["window"], 1), (worlds.SIZE["window"] + 1, 0)])
def test_clips_that_are_beginnings_alone_are_told(length: int, told: int, caplog: pytest.LogCaptureFixture) -> None:
    """As from crops that are as long as the window."""
    model = worlds.world()
    for _ in range(5):
        model.training_loss(worlds.moving_dot(32, length=length), generator=worlds.generator())
    assert caplog.text.count("begins where its episode does") == told


def test_one_longer_episode_is_enough_to_see_the_midst(caplog: pytest.LogCaptureFixture) -> None:
    model, window = worlds.world(), int(worlds.SIZE["window"])
    model.training_loss(worlds.moving_dot(31, window) + worlds.moving_dot(1, window + 3), generator=worlds.generator())
    for _ in range(3):
        model.training_loss(worlds.moving_dot(32, window), generator=worlds.generator())
    assert "begins where its episode does" not in caplog.text
