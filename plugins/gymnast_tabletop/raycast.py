"""What the camera's rays hit, with every MuJoCo from 3.2 to 4.

MuJoCo's `mj_multiRay` tells the normals, too, since 3.5. Before, it lacks that argument and misses parts of a geometry
that lies straight below the camera, so there the rays are intersected here, exactly: the pictures are the same.

Shapes: N x N rays, W of them in a geometry's window, H that hit something.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MUJOCO_CASTS = tuple(int(part) for part in mujoco.__version__.split(".")[:2]) >= (3, 5)
"""Whether the installed MuJoCo's own ray casting is used."""

_VISIBLE_GROUP = np.array([1, 0, 0, 0, 0, 0], dtype=np.uint8)
_FARTHEST = 10.0
"""Metres."""


class Rays:
    """N x N rays of a camera that looks straight down, and scratch memory for what they hit.

    Ray (row, column) goes along `(offsets_N[column], -offsets_N[row], -1)`, so that its distance is the depth.
    """

    def __init__(self, offsets_N: Array) -> None:
        """`offsets_N` ascend, metres to the side a metre down."""
        self.offsets_N = offsets_N
        x_NN, y_NN = np.meshgrid(offsets_N, -offsets_N)
        self.directions_NN3 = np.stack([x_NN, y_NN, np.full_like(x_NN, -1.0)], axis=-1)
        self.geom = np.empty(x_NN.size, np.int32)
        self.distance = np.empty(x_NN.size)
        self.normal = np.empty(3 * x_NN.size)


@dataclass(frozen=True)
class Hits:
    """The rays that hit something."""

    ray_H: NDArray[np.int64]
    """Their indices, row by row."""
    geom_H: NDArray[np.int32]
    """The geometry that each hits first."""
    normal_H3: Array
    """Unit vectors out of its surface, world frame."""


def cast(model: mujoco.MjModel, data: mujoco.MjData, origin_3: Array, rays: Rays) -> Hits:
    """Cast the rays from one point at the geometries of group 0: boxes and cylinders, all of them below it."""
    return (_cast_by_mujoco if MUJOCO_CASTS else cast_by_numpy)(model, data, origin_3, rays)


def _cast_by_mujoco(model: mujoco.MjModel, data: mujoco.MjData, origin_3: Array, rays: Rays) -> Hits:
    mujoco.mj_multiRay(
        model,
        data,
        origin_3,
        rays.directions_NN3.reshape(-1),
        _VISIBLE_GROUP,
        True,
        -1,
        rays.geom,
        rays.distance,
        rays.normal,
        len(rays.geom),
        _FARTHEST,
    )
    ray_H = np.flatnonzero(rays.geom >= 0)
    return Hits(ray_H, rays.geom[ray_H], rays.normal.reshape(-1, 3)[ray_H])


def cast_by_numpy(model: mujoco.MjModel, data: mujoco.MjData, origin_3: Array, rays: Rays) -> Hits:
    """The same as `cast`, whatever the installed MuJoCo; about twice as slow."""
    n = len(rays.offsets_N)
    depth_NN, geom_NN, normal_NN3 = rays.distance.reshape(n, n), rays.geom.reshape(n, n), rays.normal.reshape(n, n, 3)
    depth_NN[:], geom_NN[:] = np.inf, -1
    for geom in np.flatnonzero(model.geom_group == 0).tolist():
        window = _window(model, data, geom, origin_3, rays.offsets_N)
        directions_WW3 = rays.directions_NN3[window]
        entry_WW, surface_WW = _intersect(model, data, geom, origin_3, directions_WW3)
        nearer_WW = entry_WW < depth_NN[window]
        depth_NN[window][nearer_WW] = entry_WW[nearer_WW]
        geom_NN[window][nearer_WW] = geom
        points_H3 = origin_3 + directions_WW3[nearer_WW] * entry_WW[nearer_WW, None]
        normal_NN3[window][nearer_WW] = _normals(model, data, geom, points_H3, surface_WW[nearer_WW])
    ray_H = np.flatnonzero(rays.geom >= 0)
    return Hits(ray_H, rays.geom[ray_H], rays.normal.reshape(-1, 3)[ray_H])


def _window(
    model: mujoco.MjModel, data: mujoco.MjData, geom: int, origin_3: Array, offsets_N: Array
) -> tuple[slice, slice]:
    """Rows and columns of the rays that may hit the geometry: those through the cube around its bounding sphere."""
    radius = model.geom_rbound[geom]
    x, y, below = (data.geom_xpos[geom] - origin_3) * (1, -1, -1)
    slices = []
    for centre in (y, x):
        edges = [(centre + side) / (below + height) for side in (-radius, radius) for height in (-radius, radius)]
        slices.append(slice(*np.searchsorted(offsets_N, [min(edges), max(edges)]).tolist()))
    return slices[0], slices[1]


def _intersect(
    model: mujoco.MjModel, data: mujoco.MjData, geom: int, origin_3: Array, directions_WW3: Array
) -> tuple[Array, NDArray[np.int64]]:
    """How far along each ray is the surface, infinite where it misses, and which of the body's surfaces it is.

    A convex body is what its slabs have in common (and, of a cylinder, its infinite tube): a ray is inside from the
    last entry to the first exit. Surfaces are counted as axes: x, y, z of a box; 0 is a cylinder's tube, 2 its caps.
    """
    rotation_33, size = data.geom_xmat[geom].reshape(3, 3), model.geom_size[geom]
    start_3, along_WW3 = (origin_3 - data.geom_xpos[geom]) @ rotation_33, directions_WW3 @ rotation_33
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        spans = {axis: _slab(start_3[axis], along_WW3[..., axis], size[axis]) for axis in range(3)}
    else:
        spans = {0: _tube(start_3, along_WW3, size[0]), 2: _slab(start_3[2], along_WW3[..., 2], size[1])}
    entries_KWW, exits_KWW = (np.stack(ends) for ends in zip(*spans.values(), strict=True))
    entry_WW, surface_WW = entries_KWW.max(axis=0), np.array(list(spans))[entries_KWW.argmax(axis=0)]
    hit_WW = (entry_WW <= exits_KWW.min(axis=0)) & (entry_WW > 0)
    return np.where(hit_WW, entry_WW, np.inf), surface_WW


def _normals(
    model: mujoco.MjModel, data: mujoco.MjData, geom: int, points_H3: Array, surface_H: NDArray[np.int64]
) -> Array:
    """Outward unit normals (H, 3), world frame, at points on the surfaces that `_intersect` counted."""
    rotation_33 = data.geom_xmat[geom].reshape(3, 3)
    local_H3 = (points_H3 - data.geom_xpos[geom]) @ rotation_33
    normal_H3 = np.eye(3)[surface_H] * np.sign(local_H3)
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER:
        tube_H = surface_H == 0
        normal_H3[tube_H] = local_H3[tube_H] * (1, 1, 0) / model.geom_size[geom, 0]
    return normal_H3 @ rotation_33.T


def _slab(start: float, along_WW: Array, half: float) -> tuple[Array, Array]:
    """Where rays enter and leave the space between two parallel planes; a ray along them is in it always or never."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-half - start) / along_WW, (half - start) / along_WW
    entry, leaving = np.minimum(one, other), np.maximum(one, other)
    inside = np.inf if abs(start) <= half else -np.inf
    parallel = along_WW == 0
    return np.where(parallel, -inside, entry), np.where(parallel, inside, leaving)


def _tube(start_3: Array, along_WW3: Array, radius: float) -> tuple[Array, Array]:
    """Where rays enter and leave the infinite cylinder around the z axis."""
    a = (along_WW3[..., :2] ** 2).sum(axis=-1)
    b = along_WW3[..., :2] @ start_3[:2]
    c = start_3[:2] @ start_3[:2] - radius**2
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        entry, leaving = (-b - root) / a, (-b + root) / a
    inside = np.inf if c <= 0 else -np.inf
    entry, leaving = np.where(a == 0, -inside, entry), np.where(a == 0, inside, leaving)
    missed = b**2 < a * c
    return np.where(missed, np.inf, entry), np.where(missed, -np.inf, leaving)
