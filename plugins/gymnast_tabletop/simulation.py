"""A table seen from above: a cylinder pushes coloured blocks. MuJoCo physics, ray casting, no OpenGL.

World frame: metres, x to the right of the image, y to its top, origin at the centre of the table. A state is
a flat float vector `[ee_x, ee_y, block0_x, block0_y, block0_yaw, block1_x, ...]` (metres, radians).
"""

from __future__ import annotations

from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray

from gymnast_tabletop.gap import STANDARD, Gap
from gymnast_tabletop.geometry import CAMERA_HEIGHT, CAMERAS, EFFECTOR_HEIGHT, WRIST_ZOOM, scale
from gymnast_tabletop.raycast import Rays, cast
from gymnast_tabletop.scene import (
    BLOCK_LIMIT,
    BLOCK_SIZE,
    EFFECTOR_LIMIT,
    EFFECTOR_RADIUS,
    MAX_DELTA,
    Scene,
)

SUBSTEPS = 10
"""Physics steps of 10 ms a control step."""
SUPERSAMPLING = 2
"""Rays a pixel and axis."""

_TABLE_RGB = (0.80, 0.77, 0.71)
_EFFECTOR_RGB = (0.10, 0.10, 0.13)
_COLOUR_RGB = {
    "red": (0.86, 0.13, 0.13),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.28, 0.85),
    "yellow": (0.98, 0.83, 0.08),
}
_LIGHT = np.array([-0.32, 0.42, 0.85]) / np.linalg.norm([-0.32, 0.42, 0.85])
_AMBIENT = 0.35


@cache
def _model(n_blocks: int, friction: float) -> mujoco.MjModel:
    half = BLOCK_SIZE / 2
    slide, turn = 0.6 * friction, 0.012 * friction
    blocks = "".join(
        f"""<body name="block{i}" pos="0 0 {half}">
          <joint type="slide" axis="1 0 0" frictionloss="{slide!r}" range="-{BLOCK_LIMIT} {BLOCK_LIMIT}"/>
          <joint type="slide" axis="0 1 0" frictionloss="{slide!r}" range="-{BLOCK_LIMIT} {BLOCK_LIMIT}"/>
          <joint type="hinge" axis="0 0 1" frictionloss="{turn!r}" limited="false"/>
          <geom type="box" size="{half} {half} {half}" mass=".01"/>
        </body>"""
        for i in range(n_blocks)
    )
    # Blocks are light against their friction (0.6 N on 10 g), so that they stop when the push does.
    # What collides is a sphere inside the visible cylinder: in a planar world both touch alike, and
    # sphere-box contacts are exact and cheap where cylinder-box ones are iterative.
    return mujoco.MjModel.from_xml_string(f"""<mujoco>
      <compiler autolimits="true" angle="radian"/>
      <size memory="1M"/>
      <option timestep=".01" integrator="implicitfast" gravity="0 0 0" iterations="20"/>
      <default><geom friction=".5 .005 .0001" solref=".02 1"/></default>
      <worldbody>
        {blocks}
        <body name="effector" pos="0 0 {half}">
          <joint name="x" type="slide" axis="1 0 0"/><joint name="y" type="slide" axis="0 1 0"/>
          <geom type="sphere" size="{EFFECTOR_RADIUS}" mass="1" group="3"/>
          <geom type="cylinder" size="{EFFECTOR_RADIUS} {EFFECTOR_HEIGHT / 2}" mass="0"
                pos="0 0 {EFFECTOR_HEIGHT / 2 - half}" contype="0" conaffinity="0"/>
        </body>
      </worldbody>
      <actuator>
        <position joint="x" kp="6000" dampratio="1"/><position joint="y" kp="6000" dampratio="1"/>
      </actuator>
    </mujoco>""")


@cache
def _rays(image_size: int, zoom: float) -> Rays:
    """The rays of all samples, shared by all simulations of a process."""
    n = image_size * SUPERSAMPLING
    return Rays(((np.arange(n) + 0.5) / n - 0.5) / scale(0.0) / CAMERA_HEIGHT / zoom)


class Tabletop:
    """One table. Cheap to have by the hundreds: the compiled model is shared, only MuJoCo's data is its own.

    >>> table = Tabletop(n_blocks=2, image_size=64)
    >>> table.reset(start_scene(seed=7, n_blocks=2))
    >>> table.step(np.array([0.02, 0.0]))
    >>> frame_HWC = table.render()
    """

    def __init__(self, *, n_blocks: int = 2, image_size: int = 64, gap: Gap = STANDARD) -> None:
        self.n_blocks = n_blocks
        self.image_size = image_size
        self.gap = gap
        self._camera = np.array([*gap.camera_shift, CAMERA_HEIGHT])
        self._model = _model(n_blocks, gap.friction)
        self._data = mujoco.MjData(self._model)
        self._palette = np.zeros((self._model.ngeom + 1, 3), np.float32)

    def reset(self, scene: Scene) -> None:
        """Put the blocks and the end-effector where the scene says, at rest."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:-2] = scene.state[2:]
        self._data.qpos[-2:] = scene.state[:2]
        self._data.ctrl[:] = scene.state[:2]
        mujoco.mj_kinematics(self._model, self._data)
        # Geometries: the blocks, the colliding sphere (never drawn), the cylinder; index -1 is the bare
        # table.
        colours = [self.gap.colour(_COLOUR_RGB[colour]) for colour in scene.colours]
        light = 255 * self.gap.brightness
        self._palette[:] = light * np.array([*colours, _EFFECTOR_RGB, _EFFECTOR_RGB, _TABLE_RGB])

    def views(self, wrist: bool) -> NDArray[np.uint8]:
        """What the cameras see, uint8 (V, image_size, image_size, 3): the front camera, and with `wrist` both."""
        return np.stack([self.render(camera) for camera in (CAMERAS if wrist else CAMERAS[:1])])

    def step(self, action_A: NDArray[np.floating]) -> None:
        """One control step of 0.1 s: move the end-effector by (dx, dy) metres, each limited to ±MAX_DELTA."""
        here = self._data.qpos[-2:]
        target = here + np.clip(action_A, -MAX_DELTA, MAX_DELTA)
        self._data.ctrl[:] = np.clip(target, -EFFECTOR_LIMIT, EFFECTOR_LIMIT)
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        mujoco.mj_kinematics(self._model, self._data)

    @property
    def state(self) -> NDArray[np.float64]:
        """The current state vector, a copy."""
        qpos = self._data.qpos
        return np.concatenate([qpos[-2:], qpos[:-2]])

    def render(self, camera: str = "front") -> NDArray[np.uint8]:
        """A camera's view, uint8 (image_size, image_size, 3); `geometry.CAMERAS` says which there are."""
        size, samples = self.image_size, SUPERSAMPLING
        place, zoom = self._camera, self.gap.camera_zoom
        if camera != CAMERAS[0]:
            place, zoom = place + np.append(self._data.qpos[-2:], 0.0), zoom * WRIST_ZOOM
        # Only the rays that hit something are shaded: most of the picture is table.
        hits = cast(self._model, self._data, place, _rays(size, zoom))
        lambert = np.maximum(hits.normal_H3 @ _LIGHT, 0.0)
        shade = (_AMBIENT + (1 - _AMBIENT) * lambert / _LIGHT[2]).astype(np.float32)
        samples_R3 = np.empty(((size * samples) ** 2, 3), np.float32)
        samples_R3[:] = self._palette[-1]
        samples_R3[hits.ray_H] = self._palette[hits.geom_H] * np.minimum(shade, 1.1)[:, None]
        rows = samples_R3.reshape(size, samples, size, samples, 3)
        image = (rows[:, 0, :, 0] + rows[:, 0, :, 1] + rows[:, 1, :, 0] + rows[:, 1, :, 1]) / samples**2
        return np.clip(image + 0.5, 0, 255).astype(np.uint8)
