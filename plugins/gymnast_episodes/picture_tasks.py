"""Tasks that begin with pictures of the user's own: a photograph of the scene and what is to be done in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import ONE_CAMERA, Task, one_camera
from gymnast_episodes.crops import Lazy
from gymnast_episodes.images import Pixels, check_size, resize
from gymnast_episodes.pictures import read_picture


class PictureTasks(Dataset):
    """A task for each picture, all with the same instruction.

    >>> PictureTasks(PictureTasks.Config(files=["scene.png"], instruction="open the drawer")).tasks()[0].id
    'scene.png'
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        files: list[str] = field(default_factory=list)
        """PNG or JPEG files, each the start of a task; a path is its id, or its name where no two are alike."""
        instruction: str = ""
        """What is to be done."""
        image_size: list[Pixels] | None = None
        """Height and width to which pictures are resized; null keeps their own."""
        partial_credit_criteria: str | None = None
        """What counts as half a success, for judges that give partial credit."""

    def __init__(self, config: Config) -> None:
        check_size(config.image_size)
        if not config.files:
            raise ConfigError("files is empty. Give pictures of the scene: files=[scene.png].")
        if not config.instruction.strip():
            raise ConfigError("instruction is empty. Say what is to be done: instruction='open the drawer'.")
        repeated = sorted({name for name in config.files if config.files.count(name) > 1})
        if repeated:
            raise ConfigError(f"files names a picture twice: {', '.join(repeated)}.")
        self.config = config
        names = [Path(name).name for name in config.files]
        self._ids = names if len(set(names)) == len(names) else list(config.files)

    def tasks(self) -> Sequence[Task]:
        tasks = Lazy(len(self._ids), self._task)
        tasks.ids = self._ids
        return tasks

    def _task(self, index: int) -> Task:
        path = Path(self.config.files[index]).expanduser()
        if not path.is_file():
            raise DataError(f"There is no picture {path}. Give the path of a PNG or JPEG file.")
        frame_HWC = torch.from_numpy(read_picture(path, str(path), "Give a PNG or JPEG file."))
        if self.config.image_size is not None:
            frame_HWC = resize(frame_HWC, self.config.image_size)
        return Task(
            self._ids[index], self.config.instruction, one_camera(frame_HWC[None]), ONE_CAMERA,
            partial_credit_criteria=self.config.partial_credit_criteria,
        )  # fmt: skip
