"""Distortions of training frames."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from gymnast_success_classifier.augmentation import AugmentationConfig, augment

OFF = {field.name: 0.0 for field in fields(AugmentationConfig)}


def pairs(seed: int = 0) -> Tensor:
    return torch.rand(4, 2, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


def distort(pairs_B2CHW: Tensor, seed: int = 0, **strengths: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(pairs_B2CHW, AugmentationConfig(**(OFF | strengths)), generator)


def test_without_strength_nothing_changes() -> None:
    torch.testing.assert_close(distort(pairs()), pairs(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(OFF))
def test_every_distortion_does_something_repeatable_within_range(name: str) -> None:
    strength = getattr(AugmentationConfig(), name)
    distorted = distort(pairs(), **{name: strength})
    assert not torch.allclose(distorted, pairs(), atol=1e-3)
    assert torch.equal(distorted, distort(pairs(), **{name: strength}))
    assert not torch.equal(distorted, distort(pairs(), seed=1, **{name: strength}))
    assert distorted.min() >= 0 and distorted.max() <= 1


def test_both_frames_shift_together() -> None:
    same = pairs()[:, :1].repeat(1, 2, 1, 1, 1)
    first, last = distort(same, shift=0.1).unbind(1)
    assert torch.equal(first, last) and not torch.allclose(first, same[:, 0], atol=1e-3)


@pytest.mark.parametrize("name", ["blur", "blotches", "colour"])
def test_artefacts_of_imagination_spare_the_first_frame(name: str) -> None:
    distorted = distort(pairs(), **{name: getattr(AugmentationConfig(), name)})
    torch.testing.assert_close(distorted[:, 0], pairs()[:, 0], atol=1e-5, rtol=0)


def test_blur_keeps_the_mean_of_a_flat_picture() -> None:
    flat = torch.full((3, 2, 3, 24, 24), 0.4)
    torch.testing.assert_close(distort(flat, blur=1.0), flat, atol=1e-5, rtol=0)
