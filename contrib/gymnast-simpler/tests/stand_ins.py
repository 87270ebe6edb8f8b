"""Boxes in place of ManiSkill's assets, in the files and names that it looks for.

The assets themselves are a download. With these, ManiSkill's own tasks run as they are: placement, control, grasping,
success. Only what they look like and weigh is made up: an arm of WidowX's proportions, bars, plates and cubes, a table.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

SIZES_M = {
    "bridge_spoon_generated_modified": (0.11, 0.022, 0.018),
    "table_cloth_generated_shorter": (0.10, 0.10, 0.006),
    "bridge_carrot_generated_modified": (0.10, 0.024, 0.024),
    "bridge_plate_objaverse_larger": (0.13, 0.13, 0.012),
    "baked_green_cube_3cm": (0.03, 0.03, 0.03),
    "baked_yellow_cube_3cm": (0.03, 0.03, 0.03),
    "eggplant": (0.09, 0.03, 0.03),
    "dummy_sink_target_plane": (0.20, 0.20, 0.01),
    "sink": (0.30, 0.30, 0.02),
}
TABLE_M = 0.86
"""Height of the table's top."""
LINKS = (
    # name, joint, kind, axis, origin from the link before, box that is seen and felt (or none)
    ("shoulder_link", "waist", "revolute", (0, 0, 1), (0, 0, 0.072), (0.06, 0.06, 0.05)),
    ("upper_arm_link", "shoulder", "revolute", (0, 1, 0), (0, 0, 0.039), (0.04, 0.04, 0.2)),
    ("upper_forearm_link", "elbow", "revolute", (0, -1, 0), (0.05, 0, 0.25), (0.12, 0.04, 0.04)),
    ("lower_forearm_link", "forearm_roll", "revolute", (1, 0, 0), (0.175, 0, 0), (0.06, 0.03, 0.03)),
    ("wrist_link", "wrist_angle", "revolute", (0, 1, 0), (0.075, 0, 0), (0.04, 0.03, 0.03)),
    ("gripper_link", "wrist_rotate", "revolute", (1, 0, 0), (0.065, 0, 0), (0.03, 0.05, 0.03)),
)
FINGERS = (("left_finger_link", "left_finger", 1), ("right_finger_link", "right_finger", -1))


def write_stand_ins(folder: Path) -> Path:
    """Fill the folder that the variable MS_ASSET_DIR is to name."""
    bridge = folder / "data" / "tasks" / "bridge_v2_real2sim_dataset"
    robot = folder / "data" / "robots" / "widowx"
    for name in ("real_inpainting", "custom", "stages"):
        (bridge / name).mkdir(parents=True, exist_ok=True)
    robot.mkdir(parents=True, exist_ok=True)
    (robot / "wx250s.urdf").write_text(_urdf())
    for name, level in (("bridge_real_eval_1", 120), ("bridge_sink", 160)):
        Image.fromarray(np.full((480, 640, 3), level, np.uint8)).save(bridge / "real_inpainting" / f"{name}.png")
    models = {name: _model(bridge, name, size) for name, size in SIZES_M.items()}
    for name in ("info_bridge_custom_v0", "info_bridge_custom_baked_tex_v0"):
        (bridge / "custom" / f"{name}.json").write_text(json.dumps(models))
    # ManiSkill turns the scene's y up and moves it under the robot.
    table = trimesh.creation.box((3, 0.2, 3), trimesh.transformations.translation_matrix([-2.2, TABLE_M - 0.1, 2.83]))
    for name in ("bridge_table_1_v1", "bridge_table_1_v2"):
        table.export(bridge / "stages" / f"{name}.glb")
    return folder


def _model(bridge: Path, name: str, size: tuple[float, float, float]) -> dict[str, object]:
    place = bridge / "custom" / "models" / name
    place.mkdir(parents=True)
    box = trimesh.creation.box(size)
    for file in ("collision", "textured"):
        box.export(place / f"{file}.obj")
    half = [side / 2 for side in size]
    return {"bbox": {"min": [-side for side in half], "max": half}, "scales": [1.0], "density": 400}


def _urdf() -> str:
    parts = ['<robot name="wx250s">', _link("base_link", (0.08, 0.08, 0.06), (0, 0, 0.03))]
    before = "base_link"
    for name, joint, kind, axis, origin, box in LINKS:
        center = (0, 0, box[2] / 2) if box[2] > box[0] else (box[0] / 2, 0, 0)
        parts += [_link(name, box, center), _joint(joint, kind, before, name, origin, axis, (-3.14, 3.14))]
        before = name
    for name, joint, side in FINGERS:
        parts += [
            _link(name, (0.06, 0.006, 0.02), (0.06, 0, 0)),
            _joint(joint, "prismatic", before, name, (0.03, 0, 0), (0, side, 0), (0.0, 0.04)),
        ]
    parts += ['<link name="ee_gripper_link"/>', _joint("ee_gripper", "fixed", before, "ee_gripper_link", (0.11, 0, 0))]
    return "\n".join([*parts, "</robot>"])


def _link(name: str, box: tuple[float, ...], center: tuple[float, ...]) -> str:
    shape = f'<origin xyz="{_text(center)}"/><geometry><box size="{_text(box)}"/></geometry>'
    inertia = '<inertia ixx="1e-3" ixy="0" ixz="0" iyy="1e-3" iyz="0" izz="1e-3"/>'
    return (
        f'<link name="{name}"><inertial><origin xyz="{_text(center)}"/><mass value="0.3"/>{inertia}</inertial>'
        f"<visual>{shape}</visual><collision>{shape}</collision></link>"
    )


def _joint(
    name: str,
    kind: str,
    parent: str,
    child: str,
    origin: tuple[float, ...],
    axis: tuple[int, ...] = (1, 0, 0),
    limits: tuple[float, float] | None = None,
) -> str:
    limit = "" if limits is None else f'<limit lower="{limits[0]}" upper="{limits[1]}" effort="100" velocity="3"/>'
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{_text(origin)}"/><axis xyz="{_text(axis)}"/>{limit}</joint>'
    )


def _text(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
