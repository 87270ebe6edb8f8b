"""ManiSkill's digital twins of Bridge: which there are, and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from gymnasium.error import DependencyNotInstalled


@dataclass(frozen=True)
class Twin:
    """One task."""

    maniskill_id: str
    horizon: int
    """Control steps (5 a second) of an episode in SIMPLER (arXiv 2405.05941)."""


TWINS = {
    "spoon-on-towel": Twin("PutSpoonOnTableClothInScene-v1", 60),
    "carrot-on-plate": Twin("PutCarrotOnPlateInScene-v1", 60),
    "stack-cubes": Twin("StackGreenCubeOnYellowCubeBakedTexInScene-v1", 60),
    "eggplant-in-basket": Twin("PutEggplantInBasketScene-v1", 120),
}
ASSETS = ("bridge_v2_real2sim", "widowx250s")
"""What ManiSkill downloads for them: scenes and objects, the robot."""
INSTALL = (
    "ManiSkill is not installed in this interpreter ({missing}). Give it one of its own: python -m venv simpler; "
    "simpler/bin/pip install 'gymnast-simpler[environment]'; and set world_model.args.hosting.python to "
    "simpler/bin/python."
)


def import_maniskill() -> ModuleType:
    """`mani_skill.utils.assets`, with ManiSkill's tasks registered. Raises `DependencyNotInstalled`."""
    try:
        import_module("mani_skill.envs")
        # Not by attributes: mani_skill.utils is another module after `from .envs import *`.
        return import_module("mani_skill.utils.assets")
    except ImportError as error:
        raise DependencyNotInstalled(INSTALL.format(missing=error)) from error


def check_assets() -> None:
    """Raises `FileNotFoundError` with the commands that fetch what is missing: ManiSkill itself would ask at the
    keyboard, and end the process."""
    assets = import_maniskill()
    if missing := [name for name in ASSETS if not assets.is_data_source_downloaded(name)]:
        folder = assets.DATA_SOURCES[missing[0]].output_dir
        commands = "; ".join(f"python -m mani_skill.utils.download_asset {name}" for name in missing)
        raise FileNotFoundError(
            f"{folder} lacks ManiSkill's assets {' and '.join(missing)}. Fetch them with the interpreter that has "
            f"ManiSkill: {commands} (MS_ASSET_DIR names another folder)."
        )
