"""Start frames of probes beside the originals, kept for the page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from gymnast_core.reading import as_record, read_json
from gymnast_core.runs.atomic import replacing, write_text
from gymnast_core.types import Task
from gymnast_pages.video import side_by_side
from gymnast_probe.interfaces import Edited


@dataclass(frozen=True)
class Picture:
    """One edited start."""

    label: str
    file: str
    """Below pictures/."""
    original: str
    """The frame without the edit, below pictures/."""
    task: str
    instruction: str
    """Of the original."""
    shown: str
    """Instruction that the policy is given."""
    judged: str
    """Instruction that success is judged by."""


def keep_picture(folder: Path, label: str, index: int, task: Task, edited: Edited) -> None:
    """Write both frames and what was asked for."""
    files = {}
    for name, frames in ((label, edited.task.frames_TVHWC), ("original", task.frames_TVHWC)):
        files[name] = f"{name}/{index:06d}.png"
        with replacing(folder / "pictures" / files[name]) as temporary:
            Image.fromarray(side_by_side(frames)[-1].numpy()).save(temporary, "PNG")
    about = Picture(
        label, files[label], files["original"], task.id, task.instruction, edited.task.instruction, edited.judged
    )
    write_text(folder / "pictures" / label / f"{index:06d}.json", json.dumps(asdict(about)))


def read_pictures(folder: Path) -> list[Picture]:
    """Those that were kept, by label and index."""
    return [as_record(Picture, read_json(path), str(path)) for path in sorted((folder / "pictures").glob("*/*.json"))]
