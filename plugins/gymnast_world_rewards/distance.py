"""How different two pictures look, beside the mean absolute error of their pixels.

Shapes: T pairs of frames of V cameras, uint8 RGB (T, V, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_world_rewards.lpips import Lpips

DISTANCES = ("none", "ms-ssim", "lpips")
Distance = Callable[[Tensor, Tensor], Tensor]
"""float32 pictures (M, 3, H, W) in [0, 1], twice -> (M,) distances, 0 for equal pictures."""
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, the finest first (Wang, Simoncelli, Bovik 2003, section 3.2)."""
_KERNEL = 11


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
    """1 - MS-SSIM, over as many of its five scales as the pictures are large enough for."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

    # In float32, the variances of even areas are rounding errors alone.
    found = similarity(
        first_MCHW.double(),
        second_MCHW.double(),
        kernel_size=_KERNEL,
        data_range=1.0,
        betas=scales(min(first_MCHW.shape[2:])),
        reduction="none",
        normalize="relu",
    )
    # Of one pair, it is a single number.
    return (1.0 - found.reshape(len(first_MCHW))).float()


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
