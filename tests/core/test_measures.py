"""Measures of frames, against the paper, torchmetrics and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from gymnast_core.measures import mse, psnr, ssim


def pictures(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def noisy(frames: Tensor, seed: int) -> Tensor:
    noise = torch.randint(-40, 41, frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames.int() + noise).clamp(0, 255).to(torch.uint8)


def ssim_by_definition(x_HW: np.ndarray, y_HW: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13 to 17, window by window."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for top in range(x_HW.shape[0] - 10):
        for left in range(x_HW.shape[1] - 10):
            x, y = (image[top : top + 11, left : left + 11].astype(np.float64) for image in (x_HW, y_HW))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            variance_x, variance_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
            covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            found.append(luminance * (2 * covariance + c2) / (variance_x + variance_y + c2))
    return float(np.mean(found))


def test_ssim_is_that_of_the_paper() -> None:
    x = pictures((2, 14, 17, 3), 0)
    x[1] = torch.linspace(0, 255, 17)[None, :, None].to(torch.uint8)
    y = noisy(x, 1)
    expected = [
        np.mean([ssim_by_definition(a[..., c].numpy(), b[..., c].numpy()) for c in range(3)])
        for a, b in zip(x, y, strict=True)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=2e-5)
    assert expected[1] < 0.8 < expected[0] < 0.99


def test_ssim_is_that_of_torchmetrics() -> None:
    x = pictures((3, 32, 24, 3), 2)
    y = noisy(x, 3)
    a, b = (frames.movedim(-1, 1).double() for frames in (y, x))
    _, theirs = structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_full_image=True)
    # They reflect the frame at its border, where the window does not fit.
    expected = theirs[:, :, 5:-5, 5:-5].mean((1, 2, 3))
    assert ssim(y, x).tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def test_measures_of_grey_frames_can_be_worked_out_by_hand() -> None:
    x, y = torch.full((2, 5, 16, 16, 3), 100, dtype=torch.uint8), torch.full((2, 5, 16, 16, 3), 150, dtype=torch.uint8)
    luminance = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert torch.allclose(ssim(x, y), torch.full((2, 5), luminance), atol=1e-4)
    assert torch.equal(mse(x, y), torch.full((2, 5), 2500.0))
    assert psnr(x, y)[0, 0].item() == pytest.approx(10 * np.log10(65025 / 2500))
    assert torch.allclose(ssim(x, x), torch.ones(2, 5)) and psnr(x, x).eq(60).all() and mse(x, x).eq(0).all()
    assert ssim(x[..., :8, :8, :], y[..., :8, :8, :])[0, 0].item() == pytest.approx(luminance, abs=1e-4)
