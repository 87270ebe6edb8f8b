"""Rounding to a coarser dtype so that small changes are not lost on the whole.

To the nearest, a change of less than half of the distance between two numbers vanishes, in every place alike: of
weights that stand on bfloat16's numbers, a step of 1e-5 moves nearly none. Here each place has a threshold of its own,
drawn once: a number is rounded up where the part of the distance that it has covered exceeds the threshold. So a tenth
of a distance moves a tenth of the places, and sums over many places, which are what a network computes, change as they
should. It is stochastic rounding (arXiv 1502.02551, section 3.1) whose chances stay the same: a number that the dtype
holds is kept as it is, the same number always becomes the same one, and nothing flickers.
"""

import torch
from torch import Tensor

FINE = torch.float32
_DROPPED = 16
"""Bits that bfloat16 drops of a float32 number."""
_LEVELS = 1 << _DROPPED


def is_coarse(dtype: torch.dtype) -> bool:
    """Whether numbers of this dtype are further apart than float32's: bfloat16, float16 and the eight-bit ones."""
    return dtype.is_floating_point and torch.finfo(dtype).eps > torch.finfo(FINE).eps


def thresholds(count: int, device: torch.device, seed: int = 0) -> Tensor:
    """Of `count` places, as int32 in [0, 65536): the same ones for the same seed and kind of device."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randint(_LEVELS, (count,), generator=generator, device=device, dtype=torch.int32)


def rounded(x: Tensor, dtype: torch.dtype, thresholds: Tensor) -> Tensor:
    """float32 numbers in a coarser dtype, by thresholds that broadcast to them."""
    if dtype is torch.bfloat16:
        # What the sixteen dropped bits of the magnitude say, carried over if it reaches the threshold.
        bits = (x.contiguous().view(torch.int32) + thresholds) >> _DROPPED << _DROPPED
        return torch.where(x.isfinite(), bits.view(FINE), x).to(dtype)
    whole = torch.int16 if dtype.itemsize == 2 else torch.int8
    nearest = x.to(dtype)
    # Numbers of one sign are in the order of their bits: the neighbours below and above in magnitude.
    low = (nearest.view(whole) - (nearest.to(FINE).abs() > x.abs()).to(whole)).view(dtype)
    high = (low.view(whole) + 1).view(dtype)
    start, end = low.to(FINE).abs(), high.to(FINE).abs()
    covered = (x.abs() - start) / (end - start) + thresholds / _LEVELS
    found = torch.where((covered >= 1) & end.isfinite(), high, low)
    return torch.where(x.isfinite(), found, nearest)


class RoundedSum(torch.autograd.Function):
    """x + y in the sixteen-bit dtype of x, where y may be far below the distances between x's numbers. Its gradient is
    that of the sum.

    `thresholds` are of x's last dimension. What x itself is shifts them: few places would be few thresholds, and a
    place in a batch, or among tokens, is not the same when a policy acts and when it is evaluated.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, y: Tensor, thresholds: Tensor) -> Tensor:
        ctx.fine = y.dtype  # type: ignore[attr-defined]
        # Multiplied by 2**16 over the golden ratio, neighbours end far apart.
        shifted = (x.contiguous().view(torch.int16).to(torch.int32) * 40503 + thresholds) & (_LEVELS - 1)
        return rounded(x.to(FINE) + y, x.dtype, shifted)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        return gradient, gradient.to(ctx.fine), None  # type: ignore[attr-defined]
