"""Where the pictures are taken from, and an off-screen renderer that shares its process with others of its kind.

World frame, Meta-World's own: metres, the robot stands at the origin and looks along y, x is to its right, z is up,
and the table's top is at z = 0.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")  # Before MuJoCo is imported, which reads it once.

import mujoco
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that stands still and looks at a point; its image's top is up (z)."""

    position: tuple[float, float, float] = (0.60, 0.30, 0.75)
    """Metres."""
    target: tuple[float, float, float] = (0.0, 0.69, 0.12)
    """The point in the middle of the image, metres."""
    fov: float = 50.0
    """Vertical field of view, degrees, in (0, 180)."""

    def __post_init__(self) -> None:
        for name, point in (("position", self.position), ("target", self.target)):
            if len(point) != 3 or not np.isfinite(point).all():
                raise ValueError(f"camera.{name} is {point!r}; it needs three finite numbers, metres.")
        if not 0 < self.fov < 180:
            raise ValueError(f"camera.fov is {self.fov}; it must be above 0 and below 180 degrees.")
        if np.allclose(self.position[:2], self.target[:2]):
            raise ValueError("The camera looks straight down or up, so its image has no top; move it a little.")

    def project(self, points_P3: NDArray[np.floating]) -> NDArray[np.float32]:
        """Where the points appear, float32 (P, 2): x to the right, y down, [0, 1] inside of the square image.

        Points behind the camera are NaN. What hides a point is not considered.
        """
        forward = np.subtract(self.target, self.position)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        down = np.cross(forward, right)
        offsets = np.asarray(points_P3, np.float64) - self.position
        depth = offsets @ forward
        depth = np.where(depth > 0, depth, np.nan)
        scale = 2 * np.tan(np.radians(self.fov) / 2)
        return np.stack([0.5 + offsets @ axis / depth / scale for axis in (right, down)], axis=-1).astype(np.float32)

    def mujoco_camera(self) -> mujoco.MjvCamera:
        """The same as a free camera of MuJoCo's; the field of view belongs to the model there."""
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        direction = np.subtract(self.target, self.position)
        camera.lookat = self.target
        camera.distance = float(np.linalg.norm(direction))
        camera.azimuth = float(np.degrees(np.arctan2(direction[1], direction[0])))
        camera.elevation = float(np.degrees(np.arcsin(direction[2] / camera.distance)))
        return camera


CAMERAS: dict[str, Camera] = {
    "front": Camera(),
    "front-wide": Camera(position=(0.85, 0.10, 0.95), target=(0.0, 0.65, 0.12)),
    "left": Camera(position=(-0.60, 0.30, 0.75)),
    "close": Camera(position=(0.55, 0.25, 0.75), target=(0.0, 0.66, 0.15), fov=42.0),
}
"""Named views. In "front", chosen among several, the arm hides the object least; "close" is nearer, and of seven views
shows most pixels of what moves where it is a door, a window or a drawer."""


def read_camera(camera: str | Camera | Mapping[str, Any]) -> Camera:
    """A camera by its name, or by `position`, `target` and `fov` of which each may be left out. Raises `ValueError`."""
    if isinstance(camera, Camera):
        return camera
    if isinstance(camera, str):
        if camera not in CAMERAS:
            raise ValueError(
                f"There is no camera {camera!r}; choose from {', '.join(CAMERAS)}, or give position and target."
            )
        return CAMERAS[camera]
    unknown = set(camera) - {"position", "target", "fov"}
    if unknown:
        raise ValueError(f"A camera has no {', '.join(sorted(unknown))}; it has position, target and fov.")
    return Camera(**{name: tuple(value) if name != "fov" else float(value) for name, value in camera.items()})


def _gl_context(size: int) -> Any:
    """An OpenGL context. Without a display EGL, even if MuJoCo was imported before `MUJOCO_GL` was set."""
    if os.environ.get("MUJOCO_GL") == "egl":
        from mujoco.egl import GLContext

    else:
        from mujoco.gl_context import GLContext
    return GLContext(size, size)


_open_renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()


@cache
def _close_at_exit() -> None:
    # Called once a context exists: registered after MuJoCo's own farewell to OpenGL, hence called before it.
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_open_renderers):
        renderer.close()


class Renderer:
    """Square pictures of one model, off screen.

    MuJoCo draws into whatever OpenGL context is current. Gymnasium's viewer leaves that to chance, and in a process
    with several environments each shows the textures of another; here the own context is current at each use, and
    when it is freed, too.
    """

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model = model
        self._context = _gl_context(size)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._options = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        _close_at_exit()
        _open_renderers.add(self)

    def render(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> NDArray[np.uint8]:
        """What the camera sees now, uint8 (size, size, 3)."""
        self._context.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._options, self._perturb, camera, everything, self._scene)
        mujoco.mjr_render(self._viewport, self._scene, self._drawing)
        image = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._viewport, self._drawing)
        return image[::-1].copy()  # OpenGL's first row is the lowest.

    def close(self) -> None:
        """Free the graphics memory, of this renderer and of no other."""
        if self._context is None:
            return
        _open_renderers.discard(self)
        self._context.make_current()
        self._drawing.free()
        self._context.free()
        self._context = None
