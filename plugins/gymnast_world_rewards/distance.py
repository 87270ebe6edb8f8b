"""How different two pictures look, beside the mean absolute error of their pixels.

Shapes: T pairs of frames of V cameras, uint8 RGB (T, V, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_world_rewards.lpips import Lpips

DISTANCES = ("none", "ms-ssim", "lpips")
Distance = Callable[[Tensor, Tensor], Tensor]
"""float32 pictures (M, 3, H, W) in [0, 1], twice -> (M,) distances, 0 for equal pictures."""
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, the finest first (Wang, Simoncelli, Bovik 2003, section 3.2)."""
_KERNEL, _SIGMA = 11, 1.5
_K1, _K2 = 0.01**2, 0.03**2
"""Of SSIM, for pictures in [0, 1]."""


def absolute_error(first_TVHWC: Tensor, second_TVHWC: Tensor) -> Tensor:
    """Mean over a frame's pixels, of full scale, (T,)."""
    return (first_TVHWC.float() - second_TVHWC.float()).abs().flatten(1).mean(1) / 255


def perceptual(first_TVHWC: Tensor, second_TVHWC: Tensor, distance: Distance) -> Tensor:
    """Mean over cameras, (T,)."""
    cameras = first_TVHWC.shape[1]
    found = distance(_pictures(first_TVHWC), _pictures(second_TVHWC))
    return found.reshape(-1, cameras).mean(1)


def find_distance(name: str, weights: str | None) -> Distance | None:
    """One of `DISTANCES`. Raises `ConfigError` or `CheckpointError` if its weights are not there."""
    if name == "lpips":
        if weights is None:
            raise ConfigError(
                "reward_model.args.distance=lpips needs weights: set reward_model.args.lpips to a .safetensors file "
                "that holds the state dict of lpips.LPIPS(net='alex'), or choose distance=ms-ssim, which needs none."
            )
        return Lpips.load(weights)
    return multiscale_dissimilarity if name == "ms-ssim" else None


def multiscale_dissimilarity(first_MCHW: Tensor, second_MCHW: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang, Simoncelli, Bovik 2003, eq. 7), over as many of its five scales as the pictures are large
    enough for, each picture's channels averaged at each scale."""
    # In float32, the variances of even areas are rounding errors alone.
    first, second = first_MCHW.double(), second_MCHW.double()
    weights = scales(min(first.shape[2:]))
    product_M = torch.ones(len(first), dtype=torch.float64, device=first.device)
    for place, weight in enumerate(weights):
        structure_M, whole_M = _similarities(first, second)
        seen_M = whole_M if place == len(weights) - 1 else structure_M
        product_M = product_M * seen_M.clamp(min=0) ** weight
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return (1.0 - product_M).float()


def _similarities(first_MCHW: Tensor, second_MCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast and structure, and with them luminance (SSIM, eq. 1-3), each averaged over places and channels, (M,)."""
    means = _blurred(torch.stack([first_MCHW, second_MCHW]))
    mean_x, mean_y = means.unbind()
    squares = torch.stack([first_MCHW.square(), second_MCHW.square(), first_MCHW * second_MCHW])
    square_x, square_y, product = _blurred(squares).unbind()
    variances = (square_x - mean_x.square()) + (square_y - mean_y.square())
    structure = (2 * (product - mean_x * mean_y) + _K2) / (variances + _K2)
    luminance = (2 * mean_x * mean_y + _K1) / (mean_x.square() + mean_y.square() + _K1)
    return structure.mean((1, 2, 3)), (luminance * structure).mean((1, 2, 3))


def _blurred(values: Tensor) -> Tensor:
    """Gaussian-weighted means of windows that lie in the picture, (…, H, W) -> (…, H - 10, W - 10)."""
    offsets = torch.arange(_KERNEL, dtype=values.dtype, device=values.device) - _KERNEL // 2
    window = torch.exp(-0.5 * (offsets / _SIGMA).square())
    window = window / window.sum()
    # One direction after the other: sums of shifted pictures, which is faster than a convolution of few channels.
    for dim in (-1, -2):
        length = values.shape[dim] - _KERNEL + 1
        values = sum(weight * values.narrow(dim, place, length) for place, weight in enumerate(window))  # type: ignore[assignment]
    return values


def scales(side: int) -> tuple[float, ...]:
    """The weights of the scales that pictures of that side have, adding up to 1: each halves the side, and the window
    of 11 pixels must fit. Raises `ConfigError` for pictures that are too small for one."""
    count = next((n for n in range(len(_WEIGHTS), 0, -1) if side > (_KERNEL - 1) * 2 ** (n - 1)), 0)
    if not count:
        raise ConfigError(
            f"distance=ms-ssim looks through a window of {_KERNEL} pixels, and frames have a side of {side}. Choose "
            "distance=none, or larger frames."
        )
    return _normalised(_WEIGHTS[:count])


def _normalised(weights: Sequence[float]) -> tuple[float, ...]:
    return tuple(weight / sum(weights) for weight in weights)


def _pictures(frames_TVHWC: Tensor) -> Tensor:
    return (frames_TVHWC.flatten(0, 1).float() / 255).movedim(-1, 1).contiguous()


def at_most(distance: Distance, together: int) -> Distance:
    """The same, of so many pairs at once."""

    def split(first_MCHW: Tensor, second_MCHW: Tensor) -> Tensor:
        pairs = zip(first_MCHW.split(together), second_MCHW.split(together), strict=True)
        return torch.cat([distance(first, second) for first, second in pairs])

    return split
