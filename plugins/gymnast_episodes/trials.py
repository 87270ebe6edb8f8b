"""Start images with instructions on disk: a folder of `NAME.png` files, each with a `NAME.json` beside it."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.reading import read_object
from gymnast_core.types import Task, one_camera
from gymnast_episodes.foreign import data_files, folder, writable
from gymnast_episodes.images import Pixels, check_size, resize
from gymnast_episodes.pictures import read_picture

log = logging.getLogger(__name__)

_FAULTS = 5
"""Faults that are told one by one."""


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
        image_size: list[Pixels] | None = None
        """Resize images to this height and width, pixels (bilinear, antialiased); null keeps their own."""

        def __post_init__(self) -> None:
            check_size(self.image_size)

    def __init__(self, config: Config) -> None:
        self.config = config
        root = folder(config.path, "Give the folder with the trials: tasks.args.path=FOLDER.")
        images, faults = data_files(root.rglob("*.png")), []
        self.trials: list[Trial] = []
        for image in images:
            # As the published evaluation does: an image without a usable instruction is no trial. But it is told.
            try:
                self.trials.append(_read_trial(image, root))
            except DataError as error:
                faults.append(str(error))
        listed = " ".join(faults[:_FAULTS]) + (f" … and {len(faults) - _FAULTS} more." if len(faults) > _FAULTS else "")
        if not self.trials:
            raise DataError(
                f"No trials under {root}: found {len(images)} .png files, none with a .json of the same name "
                f'that holds {{"instruction": "..."}}. {listed}'.rstrip()
            )
        if faults:
            log.warning("%d of %d images under %s are left out: %s", len(faults), len(images), root, listed)
        self.image_size = None if config.image_size is None else list(config.image_size)

    def tasks(self) -> Sequence[Task]:
        return _LazyTasks(self.trials, self.image_size)


class _LazyTasks(Sequence[Task]):
    """Reads an image when its task is asked for."""

    def __init__(self, trials: Sequence[Trial], image_size: list[int] | None) -> None:
        self._trials, self._image_size = trials, image_size
        self.ids = [trial.id for trial in trials]

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


def _read_trial(image: Path, root: Path) -> Trial:
    """Raises `DataError` where there is no usable instruction."""
    path = image.with_suffix(".json")
    if not path.exists():
        raise DataError(f"{image.name} has no {path.name}.")
    about = read_object(path, allow_nan=True)
    instruction = about.text("instruction")
    partial = about.text("partial_credit_criteria", default=None)
    if not instruction.strip() or not writable(instruction + (partial or "")):
        about.refuse("instruction", f"is {instruction!r}; it must say something")
    name = image.relative_to(root).with_suffix("").as_posix()
    return Trial(image, name, instruction, partial if partial and partial.strip() else None)


def _read_image(path: Path, size: list[int] | None) -> torch.Tensor:
    """uint8 (H, W, 3)."""
    try:
        pixels = torch.from_numpy(read_picture(path, f"the image {path}", "Replace it."))
    except FileNotFoundError:
        raise DataError(f"The image {path} is gone.") from None
    return pixels if size is None else resize(pixels, size)
