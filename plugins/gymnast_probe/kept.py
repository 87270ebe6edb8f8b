"""What providers made, kept in the probe's folder: every policy, and a resumed probe, meets the same picture and words.

A provider may answer the same question in another way, and costs money each time.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import replacing, write_text
from gymnast_core.types import Task
from gymnast_probe.instruction_edits import renamed
from gymnast_probe.interfaces import Edited, reworded


def read_kept(folder: Path, label: str, index: int, task: Task) -> Edited | None:
    """What was made for this trial before, with what that cost then; None if there is nothing, or it is of another
    task."""
    path = folder / "generated" / label / f"{index:06d}.json"
    if not path.exists():
        return None
    about = read_object(path)
    if (about["task"], about["original"]) != (task.id, task.instruction):
        return None
    if about["judged"] != task.instruction:
        task = renamed(task, about["judged"]).task
    if about["image"]:
        with Image.open(path.with_suffix(".png")) as file:
            frame_HWC = np.array(file.convert("RGB"))
        task = replace(task, frames_TVHWC=torch.from_numpy(frame_HWC)[None, None])
    cost = about.number("cost_usd", default=None)
    if about["shown"] != task.instruction:
        task = reworded(task, about["shown"])
    return Edited(task, about["judged"], cost)


def kept_costs(folder: Path) -> dict[tuple[str, int], float | None]:
    """What everything that is kept has cost, by label and index of the trial."""
    paths = sorted((folder / "generated").glob("*/*.json"))
    return {(path.parent.name, int(path.stem)): read_object(path).number("cost_usd", default=None) for path in paths}


def keep(folder: Path, label: str, index: int, task: Task, edited: Edited) -> None:
    """Write it down; the picture first, since the JSON says that it is there."""
    path = folder / "generated" / label / f"{index:06d}.json"
    image = not torch.equal(edited.task.frames_TVHWC, task.frames_TVHWC)
    if image:
        with replacing(path.with_suffix(".png")) as temporary:
            Image.fromarray(edited.task.view()[-1].numpy()).save(temporary, "PNG")
    about = {
        "task": task.id, "original": task.instruction, "shown": edited.task.instruction, "judged": edited.judged,
        "image": image, "cost_usd": edited.cost_usd,
    }  # fmt: skip
    write_text(path, json.dumps(about))
