"""How alike frames are: MSE, PSNR and SSIM of uint8 frames.

Shapes: B episodes, L frames, H W C pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MEASURES = {"mse": "8-bit grey levels squared", "psnr": "dB", "ssim": "at most 1"}
"""Each measure's unit."""


def compare(imagined_BLHWC: Tensor, recorded_BLHWC: Tensor) -> dict[str, Tensor]:
    """Each measure (B, L) of uint8 frames, which may be broadcast; episode by episode, to keep it in memory."""
    pairs = list(zip(imagined_BLHWC.expand_as(recorded_BLHWC), recorded_BLHWC, strict=True))
    functions = {"mse": mse, "psnr": psnr, "ssim": ssim}
    return {name: torch.stack([function(*pair) for pair in pairs]) for name, function in functions.items()}


def mse(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Mean squared error (...) of uint8 frames (..., H, W, C), 8-bit grey levels squared."""
    return (imagined.float() - recorded.float()).square().mean(dim=(-3, -2, -1))


def psnr(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (...) of uint8 frames (..., H, W, C), dB, at most 60."""
    return 10 * torch.log10(255.0**2 / mse(imagined, recorded).clamp(min=255.0**2 / 1e6))


def ssim(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Structural similarity (...) of uint8 frames (..., H, W, C): at most 1, mean over channels and window positions.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861), eq. 13, with its 11×11 Gaussian window of standard deviation 1.5
    pixels at every position where it lies inside the frame; a frame of less than 11 pixels has a smaller window.
    """
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    x, y = (frames.movedim(-1, -3).flatten(0, -3)[:, None].float() for frames in (imagined, recorded))
    radius = (min(11, *x.shape[-2:]) - 1) // 2
    weights = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * 1.5**2))
    weights = (weights / weights.sum()).to(x.device)

    def local_mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x.square()
    variance_y = local_mean(y * y) - mean_y.square()
    covariance = local_mean(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + low) * (2 * covariance + high)
    similar = similar / ((mean_x.square() + mean_y.square() + low) * (variance_x + variance_y + high))
    return similar.mean(dim=(-3, -2, -1)).view(*imagined.shape[:-3], -1).mean(-1)
