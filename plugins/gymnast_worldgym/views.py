"""Several cameras as one tall picture: view below view, so that a frame's tokens are those of all its views.

A frame of V views (V, H, W, C) becomes (V·H, W, C), tokens row-major and hence view by view. Only what must not reach
across the seams knows of the views: positions, the autoencoder, what moves pixels or looks around them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_worldgym.codec import Codec
from gymnast_worldgym.noise import Noise


def tall(frames_VHWC: Tensor) -> Tensor:
    """(..., V·H, W, C) from (..., V, H, W, C)."""
    return frames_VHWC.flatten(-4, -3)


def apart(frames_HWC: Tensor, views: int) -> Tensor:
    """(..., V, H, W, C) from (..., V·H, W, C)."""
    return frames_HWC.unflatten(-3, (views, -1))


def chosen(frames_TVHWC: Tensor, shown: Sequence[str], wanted: Sequence[str], owner: str) -> Tensor:
    """The frames (T, V', H, W, C) of the cameras that a model imagines, in its order.

    None wanted: of the only one that there is. Raises `DataError` that names `owner` where they are not shown.
    """
    if not wanted:
        if len(shown) != 1:
            raise DataError(
                f"{owner}: the world model imagines one camera, got {len(shown)}. Choose one of them where the "
                "dataset lets you: cameras=[…]."
            )
        return frames_TVHWC
    missing = [name for name in wanted if name not in shown]
    if missing:
        raise DataError(
            f"{owner}: the world model imagines the cameras {', '.join(wanted)}; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not among those that are shown: {', '.join(shown)}."
        )
    places = [list(shown).index(name) for name in wanted]
    return frames_TVHWC if places == list(range(len(shown))) else frames_TVHWC[:, places]


class TallCodec:
    """A codec of tall pictures whose views do not see each other."""

    def __init__(self, codec: Codec, views: int) -> None:
        self._codec, self._views = codec, views
        self.channels, self.factor, self.clip = codec.channels, codec.factor, codec.clip

    def encode(self, frames: Tensor, noise: Noise) -> Tensor:
        return tall(self._codec.encode(apart(frames, self._views), noise))

    def decode(self, latents: Tensor) -> Tensor:
        return tall(self._codec.decode(apart(latents, self._views)))
