"""Start images with instructions on disk: a folder of `NAME.png` files, each with a `NAME.json` beside it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Task, one_camera
from gymnast_episodes.images import resize

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One image and what to do from there."""

    image: Path
    id: str
    instruction: str
    partial_credit_criteria: str | None

    @property
    def folder(self) -> str:
        """The folder of the image inside the searched one, "." at its top: what results are grouped by."""
        return Path(self.id).parent.as_posix()

    @property
    def title(self) -> str:
        """The folder's name as a heading: "put_carrot_on_plate" is "Put Carrot On Plate"."""
        words = re.split("[_-]+", self.image.resolve().parent.name.replace("--", " "))
        return " ".join(word.capitalize() for word in words)


class Trials(Dataset):
    """Tasks from `*.png` images, each with a same-stem `.json`: instruction, partial_credit_criteria.

    Images are found as WorldGym's evaluation harness finds them (arXiv 2506.00613). `trials` lists them.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        path: str = "trials"
        """Folder, searched recursively."""
        image_size: list[int] | None = None
        """Resize images to this height and width, pixels (bilinear, antialiased); null keeps their own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        root = Path(config.path).expanduser()
        if not root.is_dir():
            raise DataError(f"No folder {root}. Give the folder with the trials: tasks.args.path=FOLDER.")
        images = sorted(root.rglob("*.png"))
        self.trials = [trial for image in images if (trial := _read_trial(image, root)) is not None]
        if not self.trials:
            raise DataError(
                f"No trials under {root}: found {len(images)} .png files, none with a .json of the same name "
                'that holds {"instruction": "..."}.'
            )
        if len(self.trials) < len(images):
            skipped = len(images) - len(self.trials)
            log.warning("%d of %d images under %s have no instruction.", skipped, len(images), root)
        self.image_size = None if config.image_size is None else list(config.image_size)

    def tasks(self) -> Sequence[Task]:
        return _LazyTasks(self.trials, self.image_size)


class _LazyTasks(Sequence[Task]):
    """Reads an image when its task is asked for."""

    def __init__(self, trials: Sequence[Trial], image_size: list[int] | None) -> None:
        self._trials, self._image_size = trials, image_size

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        trial = self._trials[index]
        frame = _read_image(trial.image, self._image_size)
        frames_TVHWC = one_camera(frame[None])
        criteria = trial.partial_credit_criteria
        return Task(trial.id, trial.instruction, frames_TVHWC, partial_credit_criteria=criteria)


def _read_trial(image: Path, root: Path) -> Trial | None:
    """None where there is no usable instruction, as in the published evaluation."""
    try:
        about = json.loads(image.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    instruction = about.get("instruction") if isinstance(about, dict) else None
    if not isinstance(instruction, str) or not instruction.strip():
        return None
    partial = about.get("partial_credit_criteria")
    name = image.relative_to(root).with_suffix("").as_posix()
    return Trial(image, name, instruction, partial if isinstance(partial, str) and partial.strip() else None)


def _read_image(path: Path, size: list[int] | None) -> torch.Tensor:
    """uint8 (H, W, 3)."""
    try:
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except FileNotFoundError:
        raise DataError(f"The image {path} is gone.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"Cannot read the image {path}: {error}") from None
    return pixels if size is None else resize(pixels, size)
