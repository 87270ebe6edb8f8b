"""Supervised training learns, and its options do what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oft_cases import episodes, small_config

from gymnast_core.errors import DataError
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.augmentation import jitter_color, shift
from gymnast_openvla_oft.auxiliary import PointHeads
from gymnast_openvla_oft.imitation import Imitation, draw_decisions, token_loss
from gymnast_openvla_oft.model import Hidden
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.prompt import PromptEncoder, prompt, train_tokenizer


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
        loss.value.backward()
        optimizer.step()
    after = policy.validate(episodes(), generator=seeded(1))
    assert after["token_loss"] < before["token_loss"] - 1.0
    assert after["action_l1"] < 0.1 < before["action_l1"]
    assert {"token_accuracy", "points_l1", "patch_loss", "patch_accuracy"} <= set(after)


def test_the_same_seed_gives_the_same_loss() -> None:
    policy = OpenVLAOFT(small_config(shift_pixels=2, color_jitter=0.2))
    first, again, other = (policy.training_loss(episodes(), generator=seeded(s)).value for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_trained_parameter_gets_a_gradient() -> None:
    settings = {"auxiliary_points": 1, "auxiliary_points_weight": 1.0, "auxiliary_patches_weight": 1.0}
    policy = OpenVLAOFT(small_config(**settings))
    policy.training_loss(episodes(), generator=seeded()).value.backward()
    for name, parameter in policy.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_decisions_are_whole_chunks() -> None:
    episode = episodes(1, length=6)[0]
    numbered = replace(episode, actions_TA=torch.arange(5.0)[:, None].expand(5, 2))
    drawn = draw_decisions([numbered], 3, Imitation(decisions_per_episode=200), seeded())
    starts = drawn.actions_BLA[:, 0, 0]
    assert set(starts.tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(drawn.actions_BLA[:, :, 0], starts[:, None] + torch.arange(3.0))
    frames = episode.frames_THWC[starts.long()]
    assert torch.equal(drawn.observation.images_BVHWC[:, 0], frames)


def test_short_episodes_and_missing_points_are_refused() -> None:
    with pytest.raises(DataError, match="a chunk needs 9"):
        draw_decisions(episodes(1), 9, Imitation(), seeded())
    blind = [replace(episodes(1)[0], points_TJ2=None)]
    with pytest.raises(DataError, match="has 0 points a frame"):
        draw_decisions(blind, 2, Imitation(auxiliary_points=1), seeded())


def test_soft_labels_approach_hard_ones_and_prefer_neighbours() -> None:
    statistics = {"q01": [-1.0], "q99": [1.0]}
    codec = ActionCodec(statistics, bounds="q99", vocabulary=448, bins=256)
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


def test_point_heads_ignore_what_is_out_of_view() -> None:
    heads = PointHeads(4, points=2, patches=4, generator=seeded())
    hidden = Hidden(torch.randn(2, 3, 4, generator=seeded()), torch.randn(2, 4, 4, generator=seeded(1)))
    nan = math.nan
    seen = torch.tensor([[[0.1, 0.9], [nan, nan]], [[nan, nan], [nan, nan]]])
    losses = heads(hidden, seen)
    logits = heads.classification(hidden.patches_BPE)[0, :, 0]
    wanted = -logits.log_softmax(-1)[2]
    torch.testing.assert_close(losses.classification, wanted)
    losses.regression.backward()
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
