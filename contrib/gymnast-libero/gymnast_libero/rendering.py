"""LIBERO's two cameras through MuJoCo's own renderer, pixel for pixel what robosuite renders."""

from __future__ import annotations

from typing import Any

import numpy as np

QUALITIES = ("published", "fast")
"""See `Cameras`."""
FAST_TEXTURE = 512
"""Pixels a side of the largest texture, where rendering is fast."""


class Cameras:
    """Renders one simulation.

    "published": LIBERO's settings, four samples a pixel and textures as they come (up to 4096 pixels a side). "fast":
    one sample a pixel and textures of 512 pixels at most, in under two thirds of the time and with less memory;
    other pixels, so another task for a policy that was trained on the former.
    """

    def __init__(self, model: Any, data: Any, size: int, quality: str) -> None:
        """`model` and `data` of the `mujoco` package. The model's textures are of no use to anyone afterwards."""
        import mujoco

        if quality == "fast":
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
            shrink_textures(model, FAST_TEXTURE)
        # The buffer must hold the picture; robosuite sets its size in the same way.
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
        model.vis.global_.offheight = max(model.vis.global_.offheight, size)
        self._data, self._size = data, size
        self._renderer = mujoco.Renderer(model, size, size)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision shapes, as robosuite hides them

    def picture(self, camera: str) -> np.ndarray:
        """uint8 RGB (H, W, 3), its first row at the top."""
        self._renderer.update_scene(self._data, camera, self._options)
        return self._renderer.render()

    def close(self) -> None:
        if hasattr(self._renderer, "close"):  # MuJoCo 2's closes itself as garbage
            self._renderer.close()


def shrink_textures(model: Any, side: int) -> None:
    """Average the plane textures of a model that are larger than `side` down to it, by whole factors, in place."""
    import mujoco

    plane, stored = int(mujoco.mjtTexture.mjTEXTURE_2D), texture_pixels(model)
    for i in range(model.ntex):
        height, width = int(model.tex_height[i]), int(model.tex_width[i])
        channels = int(model.tex_nchannel[i]) if hasattr(model, "tex_nchannel") else 3
        factor = -(-max(height, width) // side)
        if int(model.tex_type[i]) != plane or factor < 2 or height % factor or width % factor:
            continue
        start, length = int(model.tex_adr[i]), height * width * channels
        pixels = stored[start : start + length].reshape(height // factor, factor, width // factor, factor, -1)
        small = pixels.mean((1, 3), dtype=np.float32).round().astype(np.uint8).reshape(-1)
        stored[start : start + len(small)] = small
        model.tex_height[i], model.tex_width[i] = height // factor, width // factor


def texture_pixels(model: Any) -> np.ndarray:
    """All textures of a model, one after the other; MuJoCo 2 calls them otherwise."""
    pixels = model.tex_data if hasattr(model, "tex_data") else model.tex_rgb
    return pixels.reshape(-1)
