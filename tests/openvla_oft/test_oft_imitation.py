"""Supervised training learns, and its options do what they say."""

from __future__ import annotations

import colorsys
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import episodes, seeing, small_config
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.seeds import episode_generators
from gymnast_core.training.tally import Tally
from gymnast_core.types import Episode, Needs
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.augmentation import jitter_color, oft_recipe, shift, shift_hsv
from gymnast_openvla_oft.auxiliary import PointHeads
from gymnast_openvla_oft.images import crop_center
from gymnast_openvla_oft.imitation import Decisions, Imitation, augment, draw_decisions, token_loss
from gymnast_openvla_oft.model import Hidden
from gymnast_openvla_oft.openvla import OpenVLA
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.prompt import PromptEncoder, prompt, train_tokenizer
from gymnast_openvla_oft.tuning import Tuning


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_few_steps_teach_what_the_instruction_asks() -> None:
    policy = OpenVLAOFT(
        small_config(
            decisions_per_episode=2,
            label_smoothing_sigma=0.05,
            shift_pixels=1,
            color_jitter=0.1,
            auxiliary_points=2,
            auxiliary_points_weight=1.0,
            auxiliary_patches_weight=1.0,
        )
    )
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    generator = seeded()
    before = policy.validate(episodes(), generator=seeded(1))
    for _ in range(30):
        loss = policy.training_loss(episodes(), generator=generator)
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
    after = policy.validate(episodes(), generator=seeded(1))
    assert after["token_loss"] < before["token_loss"] - 1.0
    assert after["action_l1"] < 0.1 < before["action_l1"]
    assert {"token_accuracy", "points_l1", "patch_loss", "patch_accuracy"} <= set(after)


def test_a_regression_head_learns_from_its_l1_loss() -> None:
    policy = OpenVLAOFT(replace(small_config(decisions_per_episode=2), action_head="l1"))
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    generator = seeded()
    before = policy.validate(episodes(), generator=seeded(1))
    for _ in range(40):
        loss = policy.training_loss(episodes(), generator=generator)
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
    after = policy.validate(episodes(), generator=seeded(1))
    assert set(after) == {"loss", "action_l1"}
    assert after["action_l1"] < 0.15 < before["action_l1"]
    frames = torch.stack([episode.frames_TVHWC[0] for episode in episodes()])
    chunk = policy.act(seeing(frames, tuple(e.instruction for e in episodes())), temperature=0.0)
    wanted = torch.stack([episode.actions_TA[:2] for episode in episodes()])
    # Robot units: ranges of 0.04 and 0.08.
    assert ((chunk.actions_BLA - wanted).abs().mean(dim=(0, 1)) < torch.tensor([0.004, 0.008])).all()


def test_the_l1_loss_is_the_mean_absolute_error_of_normalised_actions() -> None:
    policy = OpenVLAOFT(replace(small_config(), action_head="l1"))
    batch = episodes(2, length=3)  # one decision an episode is possible
    loss = policy.training_loss(batch, generator=seeded())
    seen = seeing(torch.stack([episode.frames_TVHWC[0] for episode in batch]), tuple(e.instruction for e in batch))
    predicted = policy.act(seen, temperature=0.0).actions_BLA
    wanted = torch.stack([episode.actions_TA for episode in batch])
    by_hand = ((predicted - wanted) / torch.tensor([0.02, 0.04])).abs().mean()
    torch.testing.assert_close(loss.mean.detach(), by_hand, atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_loss() -> None:
    policy = OpenVLAOFT(small_config(shift_pixels=2, color_jitter=0.2))
    first, again, other = (policy.training_loss(episodes(), generator=seeded(s)).mean for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def uneven(count: int = 6) -> list[Episode]:
    """Episodes of unequal length, prompts of unequal length (so that there is padding), and points that are in view
    twice, once or never."""
    made = []
    for i, episode in enumerate(episodes(count, length=8)):
        points = episode.points_TJ2.clone()
        points[:, : i % 3] = math.nan
        stop = 4 + i % 4
        text = ("open it", "push the red block to the left", "push the blue block right")[i % 3]
        cut = replace(episode, frames_TVHWC=episode.frames_TVHWC[: stop + 1], actions_TA=episode.actions_TA[:stop])
        made.append(replace(cut, instruction=text, points_TJ2=points[: stop + 1]))
    return made


POINTS = {"auxiliary_points": 2, "auxiliary_points_weight": 1.0, "auxiliary_patches_weight": 0.5}
AUGMENTED = {"oft_augmentation": True, "shift_pixels": 2, "color_jitter": 0.2}


@pytest.mark.parametrize(
    ("kind", "options", "imitation"),
    [
        (OpenVLAOFT, {}, {"decisions_per_episode": 2, **POINTS, **AUGMENTED, "label_smoothing_sigma": 0.05}),
        (OpenVLAOFT, {"action_head": "l1"}, {**POINTS, **AUGMENTED}),
        (OpenVLAOFT, {"film": True}, {"decisions_per_episode": 3}),
        (OpenVLAOFT, {"train": Tuning(vision="frozen")}, POINTS),
        (OpenVLA, {"chunk_length": None}, {"decisions_per_episode": 2, **AUGMENTED}),
    ],
    ids=["tokens", "l1", "film", "frozen", "openvla"],
)
def test_microbatches_change_neither_loss_nor_gradient(
    kind: type[Any], options: dict[str, Any], imitation: dict[str, Any]
) -> None:
    """Whole, and in parts of 1, 2 and 4 episodes: sums and weights add up, and so do the metrics."""
    config = replace(small_config(**imitation), **options)
    names = {item.name for item in fields(kind.Config)}
    policy = kind(kind.Config(**{name: value for name, value in vars(config).items() if name in names}))
    batch = uneven()

    def learned(size: int) -> tuple[float, float, dict[str, float], Tensor]:
        generator, metrics = seeded(4), Tally()
        total = weight = 0.0
        policy.zero_grad()
        for first in range(0, len(batch), size):
            loss = policy.imitation_loss(batch[first : first + size], generator=generator)
            loss.total.backward()
            total, weight = total + loss.total.item(), weight + float(loss.weight)
            metrics.add(loss.metrics)
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        return total, weight, metrics.numbers(), gradient

    total, weight, numbers, gradient = learned(len(batch))
    assert weight == len(batch) * imitation.get("decisions_per_episode", 1)
    assert gradient.norm() > 0
    for size in (1, 2, 4):
        found = learned(size)
        assert found[0] == pytest.approx(total, rel=1e-5) and found[1] == weight
        assert found[2] == pytest.approx(numbers, rel=1e-5)
        assert (found[3] - gradient).norm() <= 1e-5 * gradient.norm()


def test_an_episode_is_drawn_and_changed_alike_in_any_company() -> None:
    policy = OpenVLAOFT(small_config(decisions_per_episode=2, **POINTS, **AUGMENTED))
    whole = policy.training_decisions(uneven(), seeded(1))
    generator = seeded(1)
    parts = [policy.training_decisions(uneven()[first:stop], generator) for first, stop in ((0, 1), (1, 4), (4, 6))]
    assert torch.equal(torch.cat([part.observation.images_BTVHWC for part in parts]), whole.observation.images_BTVHWC)
    assert torch.equal(torch.cat([part.actions_BLA for part in parts]), whole.actions_BLA)
    points = torch.cat([part.points_BJ2 for part in parts if part.points_BJ2 is not None])
    torch.testing.assert_close(points, whole.points_BJ2, equal_nan=True, rtol=0, atol=0)


def test_decisions_show_the_policy_s_cameras_and_readings() -> None:
    episode = episodes(1, length=6)[0]
    front = episode.frames_TVHWC[:, 0]
    seen = replace(
        episode,
        frames_TVHWC=torch.stack([front, 255 - front], dim=1),
        cameras=("front", "wrist"),
        proprio_TP=torch.arange(6.0)[:, None],
    )
    needs, settings = Needs(("wrist",), proprio=1), Imitation(decisions_per_episode=20)
    drawn = draw_decisions(seen, 2, settings, needs, seeded()).observation
    assert drawn.cameras == ("wrist",) and drawn.latest_proprio_BP is not None
    times = drawn.latest_proprio_BP[:, 0].long()
    assert len(times.unique()) == 4
    assert torch.equal(drawn.latest_BVHWC[:, 0], 255 - front[times])
    with pytest.raises(ConfigError, match=r"the episode '0' shows the cameras front, wrist: above is lacking"):
        draw_decisions(seen, 2, settings, Needs(("above",)), seeded())
    with pytest.raises(ConfigError, match=r"needs 2 proprioceptive readings .* the episode '0' offers 1"):
        draw_decisions(seen, 2, settings, Needs(("front",), proprio=2), seeded())
    with pytest.raises(DataError, match=r"main camera 'front', but the policy's first camera is 'wrist'"):
        draw_decisions(seen, 2, Imitation(auxiliary_points=1), needs, seeded())


@pytest.mark.parametrize("options", [{}, {"action_head": "l1"}, {"film": True}])
def test_every_trained_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    settings = {"auxiliary_points": 1, "auxiliary_points_weight": 1.0, "auxiliary_patches_weight": 1.0}
    policy = OpenVLAOFT(replace(small_config(**settings), **options))
    policy.training_loss(episodes(), generator=seeded()).mean.backward()
    for name, parameter in policy.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_decisions_are_whole_chunks() -> None:
    episode = episodes(1, length=6)[0]
    numbered = replace(episode, actions_TA=torch.arange(5.0)[:, None].expand(5, 2))
    drawn = draw_decisions(numbered, 3, Imitation(decisions_per_episode=200), Needs(), seeded())
    starts = drawn.actions_BLA[:, 0, 0]
    assert set(starts.tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(drawn.actions_BLA[:, :, 0], starts[:, None] + torch.arange(3.0))
    frames = episode.frames_TVHWC[starts.long()]
    assert torch.equal(drawn.observation.latest_BVHWC, frames)


def test_short_episodes_and_missing_points_are_refused() -> None:
    with pytest.raises(DataError, match="a chunk needs 9"):
        draw_decisions(episodes(1)[0], 9, Imitation(), Needs(), seeded())
    blind = replace(episodes(1)[0], points_TJ2=None)
    with pytest.raises(DataError, match="has 0 points a frame"):
        draw_decisions(blind, 2, Imitation(auxiliary_points=1), Needs(), seeded())


def test_soft_labels_approach_hard_ones_and_prefer_neighbours() -> None:
    codec = ActionCodec(vocabulary=448, bins=256)
    value = torch.tensor([[0.5]], dtype=torch.float64)
    label = int(codec.encode(value)) - codec.first_token
    near, far = (torch.zeros(1, 1, 256).index_fill(-1, torch.tensor(i), 5.0) for i in (label + 1, label - 90))
    assert token_loss(near, value, codec, 0.05) < token_loss(far, value, codec, 0.05)
    hard, soft = (token_loss(near, codec.decode(codec.encode(value)), codec, s) for s in (0.0, 1e-4))
    torch.testing.assert_close(hard, soft)


def test_shift_moves_content_and_reports_it() -> None:
    images = torch.zeros(8, 1, 10, 20, 3, dtype=torch.uint8)
    images[:, :, 5, 10] = 255
    moved, moves = shift(images, 2, seeded())
    assert len(moves.unique(dim=0)) > 1
    for image, (dx, dy) in zip(moved, moves.tolist(), strict=True):
        assert image[0, 5 + round(dy * 10), 10 + round(dx * 20), 0] == 255
        assert image.sum() == 3 * 255


def test_colour_jitter_keeps_grey_grey() -> None:
    images = torch.randint(0, 256, (4, 1, 6, 6, 1), generator=seeded(), dtype=torch.uint8).expand(4, 1, 6, 6, 3)
    jittered = jitter_color(images, 0.3, seeded())
    assert jittered.dtype == torch.uint8
    assert not torch.equal(jittered, images)
    assert torch.equal(jittered[..., 0], jittered[..., 2])


def test_the_oft_recipe_crops_ninety_percent_of_the_area() -> None:
    """A ramp stays a ramp: its slope says the crop's side, its start the crop's place, where the result says it is."""
    ramp = (torch.arange(64) * 2 + 60).to(torch.uint8)
    images = ramp[None, None, None, :, None].expand(16, 1, 64, 64, 3)
    augmented, crops = oft_recipe(images, seeded())
    assert augmented.dtype == torch.uint8 and augmented.shape == images.shape
    assert len(augmented.flatten(1).unique(dim=0)) == 16
    left, top, side = crops.unbind(1)
    torch.testing.assert_close(side**2, torch.full((16,), 0.9))
    assert (crops[:, :2] >= 0).all() and (crops[:, :2] + side[:, None] <= 1 + 1e-6).all()
    assert left.std() > 0.005 and top.std() > 0.005
    # Colours change slope and level, not where the column of mean brightness is: solve for the crop's place.
    inner = augmented[:, 0, 32, 8:56, 0].float()
    slope, level = (inner[:, -1] - inner[:, 0]) / 47, inner.mean(1)
    contrast = slope / (2 * side)
    assert (contrast > 0.75).all() and (contrast < 1.25).all()
    assert level.std() > 5.0


def test_the_oft_recipe_moves_points_with_the_image() -> None:
    generator = seeded(3)
    images = torch.full((8, 1, 100, 100, 3), 40, dtype=torch.uint8)
    images[:, :, 58:63, 38:43] = 220
    points = torch.tensor([0.405, 0.605]).expand(8, 1, 2)
    decisions = Decisions(seeing(images, ("touch it",) * 8), torch.zeros(8, 2, 2), points)
    moved = augment(decisions, Imitation(oft_augmentation=True), generator)
    for image, (x, y) in zip(moved.observation.latest_BVHWC[:, 0], moved.points_BJ2[:, 0].tolist(), strict=True):
        bright = (image.float().mean(-1) > 100).nonzero().float().mean(0)
        assert abs(bright[1] - x * 100) < 1.5 and abs(bright[0] - y * 100) < 1.5


def test_hue_and_saturation_equal_the_standard_library_s() -> None:
    pixels = torch.rand(1, 3, 6, 7, generator=seeded())
    pixels[0, :, 0, 0], pixels[0, :, 0, 1], pixels[0, :, 0, 2] = 0.0, 1.0, torch.tensor([0.5, 0.5, 0.2])
    found = shift_hsv(pixels, torch.tensor(-0.3), torch.tensor(1.2))
    for row in range(6):
        for column in range(7):
            h, s, v = colorsys.rgb_to_hsv(*pixels[0, :, row, column].tolist())
            wanted = colorsys.hsv_to_rgb((h - 0.3) % 1.0, min(s * 1.2, 1.0), v)
            torch.testing.assert_close(found[0, :, row, column], torch.tensor(wanted), atol=1e-5, rtol=0)


def test_training_with_the_oft_recipe_crops_once_and_validation_in_the_centre() -> None:
    """The policy's own centre crop is left out of training, where the random one has taken its place."""
    config = replace(small_config(), center_crop=True, imitation=Imitation(oft_augmentation=True))
    policy = OpenVLAOFT(config)
    seen: list[Tensor] = []
    finish = policy.processor.images.finish
    object.__setattr__(policy.processor.images, "finish", lambda images: (seen.append(images), finish(images))[1])
    policy.training_loss(episodes(2), generator=seeded())
    policy.validate(episodes(2), generator=seeded())
    for row, (episode, generator) in enumerate(zip(episodes(2), episode_generators(seeded(), 2), strict=True)):
        drawn = draw_decisions(episode, 2, config.imitation, Needs(), generator).observation.latest_BVHWC
        wanted, _ = oft_recipe(drawn, generator)
        assert torch.equal(seen[0][row], wanted[0])
        assert torch.equal(seen[1][row], crop_center(drawn, 16)[0])


@pytest.mark.parametrize("augmented", [False, True])
def test_points_follow_the_central_crop(augmented: bool) -> None:
    """A spot of light is where the points say, in what the network is shown: in training, and in validation."""
    side = 100
    frames = torch.full((4, 1, side, side, 3), 40, dtype=torch.uint8)
    frames[:, :, 73:78, 28:33] = 220
    points = torch.tensor([0.305, 0.755]).expand(4, 1, 2)
    episode = replace(episodes(1, length=4)[0], frames_TVHWC=frames, actions_TA=torch.zeros(3, 2), points_TJ2=points)
    config = small_config(auxiliary_points=1, oft_augmentation=augmented)
    architecture = replace(config.architecture, image_size=96)
    policy = OpenVLAOFT(replace(config, center_crop=None if augmented else True, architecture=architecture))
    for draw, prepared in ((policy.training_decisions, augmented), (policy.plain_decisions, False)):
        decisions = draw([episode], seeded(3))
        assert decisions.points_BJ2 is not None
        x, y = decisions.points_BJ2[0, 0].tolist()
        pixels = policy.processor.pixels(decisions.observation.latest_BVHWC, prepared=prepared)[0, 0, 0]
        rows, columns = (pixels > (pixels.max() + pixels.min()) / 2).nonzero().float().mean(0).tolist()
        assert abs(columns + 0.5 - x * 96) < 1 and abs(rows + 0.5 - y * 96) < 1
        if not prepared:
            assert (x, y) == pytest.approx([0.5 + (value - 0.5) / 0.9**0.5 for value in (0.305, 0.755)], abs=1e-6)


def test_what_is_trained_on_crops_acts_on_crops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`oft_augmentation` is what was asked for, and center_crop of config.json what was done: one record."""
    policy = OpenVLAOFT(small_config(oft_augmentation=True))
    assert policy.processor.images.center_crop
    policy.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["center_crop"] is True
    again = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "saved")))
    assert again.processor.images.center_crop and not policy.facts.contradicted
    OpenVLAOFT(small_config()).save(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["center_crop"] is False
    caplog.clear()
    go_on = OpenVLAOFT.Config(checkpoint=str(tmp_path / "whole"), imitation=Imitation(oft_augmentation=True))
    OpenVLAOFT(go_on).save(tmp_path / "went on")
    assert "says center_crop=false; the option is used instead" in caplog.text
    assert json.loads((tmp_path / "went on" / "config.json").read_text())["center_crop"] is True


@pytest.mark.parametrize("kind", [OpenVLAOFT, OpenVLA])
def test_acting_on_whole_images_after_crops_is_refused(kind: type[Any]) -> None:
    config = kind.Config(
        architecture=small_config().architecture, center_crop=False, imitation=Imitation(oft_augmentation=True)
    )
    with pytest.raises(ConfigError, match=r"oft_augmentation trains on random crops .*Leave center_crop out"):
        kind.needs(config)
    assert not kind(replace(config, imitation=Imitation())).processor.images.center_crop


def test_point_heads_ignore_what_is_out_of_view() -> None:
    heads = PointHeads(4, points=2, patches=4, generator=seeded())
    hidden = Hidden(torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 4, 4, generator=seeded(1)))
    nan = math.nan
    seen = torch.tensor([[[0.1, 0.9], [nan, nan]], [[nan, nan], [nan, nan]]])
    losses = heads(hidden, seen)
    logits = heads.classification(hidden.patches_BPE)[0, :, 0]
    wanted = -logits.log_softmax(-1)[2]
    # One of the two points is out of view: it adds nothing, and the other one counts as it always does.
    torch.testing.assert_close(losses.classification_B, torch.stack([wanted / 2, torch.zeros(())]))
    torch.testing.assert_close(losses.metrics["patch_loss"].value, wanted.detach())
    assert losses.metrics["patch_loss"].weight == losses.metrics["patch_accuracy"].weight == 1
    losses.regression_B.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in heads.parameters())


def test_prompts_end_with_the_lone_space_and_spell_unknown_words() -> None:
    tokenizer = train_tokenizer(["Push the red block", "open it"])
    encoder = PromptEncoder(tokenizer, pad_token=512)
    ids = encoder.ids("push the red block")
    assert ids[0] == 1 and ids[-1] == tokenizer.token_to_id("▁")
    assert [tokenizer.id_to_token(i) for i in ids[2:6]] == ["▁push", "▁the", "▁red", "▁block"]
    assert 0 not in encoder.ids("qualm é 東")
    text = prompt("juggle ééé")
    assert tokenizer.decode(tokenizer.encode(text).ids).removeprefix("<s>").strip() == text
    padded = encoder(["open it", "push the red block"])
    assert padded.lengths_B.tolist() == [len(encoder.ids("open it")), len(ids)]
    assert (padded.ids_BS[0, padded.lengths_B[0] :] == 512).all()


def test_the_tokenizer_does_not_depend_on_the_order_of_instructions() -> None:
    corpus = ["push the red block", "open it"]
    assert train_tokenizer(corpus).to_str() == train_tokenizer(corpus[::-1]).to_str()
