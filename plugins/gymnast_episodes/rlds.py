"""Episodes of RLDS datasets (Open X-Embodiment, Bridge, DROID, …), read from TFRecord files without TensorFlow."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gymnast_core.config.ranges import Positive
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import Episode
from gymnast_episodes import REPAIR
from gymnast_episodes.checking import Progress
from gymnast_episodes.crops import Selection, frames_tensor, select, stacked, wanted_cameras
from gymnast_episodes.foreign import reading, writable
from gymnast_episodes.pictures import read_picture
from gymnast_episodes.recording import Recording
from gymnast_episodes.rlds_features import choose
from gymnast_episodes.rlds_layout import described, find_folder, find_records
from gymnast_episodes.tf_example import Example, parse_example
from gymnast_episodes.tfrecord import Place, record


class RldsEpisodes(Dataset):
    """Episodes of an RLDS dataset: TFRecord files as TensorFlow Datasets writes them, one episode a record.

    A step pairs an observation with the action chosen at it; the last step's leads to no frame and is dropped. Features
    are named as they are within a step (`observation/image_0`), or by their last part (`image_0`) where only one has
    that name. Actions and readings are in the units in which they are stored (arXiv 2111.02767, 2310.08864).
    """

    api_version = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(Selection):
        path: str
        """Folder with the TFRecord files (NAME/1.0.0), or the folder above it if that has one version."""
        split: str | None = "train"
        """Files to read, by the name in theirs (NAME-SPLIT.tfrecord-…); null: all of them."""
        camera: str | None = None
        """Read this camera alone, e.g. image_0."""
        cameras: list[str] = field(default_factory=list)
        """Cameras to read, the main one first; empty: all colour images of 8 bits within `observation`, by name."""
        action: str = "action"
        """Feature with the actions; several, joined by +, are put side by side:
        world_vector+rotation_delta+gripper_closedness_action."""
        proprio: str | None = "state"
        """Feature with the proprioceptive readings, several joined by +; null reads none, and so does state where the
        dataset has none."""
        instruction_feature: str | None = None
        """Feature with the instructions; null: the first that exists of language_instruction,
        observation/natural_language_instruction and natural_language_instruction."""
        instruction: str | None = None
        """Instruction of the episodes that bring none."""
        fps: Positive | None = None
        """Control steps a second, which RLDS does not store; null: unknown."""

    def __init__(self, config: Config) -> None:
        self.config = config
        wanted_cameras(config.camera, config.cameras)

    def episodes(self) -> Sequence[Episode]:
        return select(_Source(self.config), self.config)


class _Source:
    """The records of a split, by number."""

    def __init__(self, config: RldsEpisodes.Config) -> None:
        self._config, self.root = config, find_folder(config.path)
        self.name = self.root.resolve().parent.name if _is_version(self.root) else self.root.resolve().name
        found = find_records(self.root, config.split, config.skip_bad)
        self._places = [place for _, records in found for place in records]
        if not self._places:
            raise DataError(f"{self.root} has no records in split {config.split!r}.")
        first = self._example(0)
        self._chosen = choose(first, described(self.root), config, str(self.root))
        self._lengths = _lengths(self._places, self._chosen.cameras[0].feature)
        self.recording = Recording(left_out=self._chosen.left_out)

    def __len__(self) -> int:
        return len(self._places)

    def label(self, episode: int) -> str:
        return _label(self._places[episode])

    def frames(self, episode: int) -> int:
        length = self._lengths[episode]
        if isinstance(length, DataError):
            raise length
        return length

    def files(self, episode: int) -> Sequence[Path]:
        return [self._places[episode].path]

    def read(self, episode: int, start: int, stop: int, id: str) -> Episode:
        example, length = self._example(episode), self.frames(episode)
        views = {}
        for camera in self._chosen.cameras:
            pictures = self._strings(example, camera.feature, length)[start:stop]
            views[camera.name] = frames_tensor(
                self._decoded(example, camera.feature, pictures), self._config.image_size
            )
        actions_TA = self._table(example, self._chosen.action, length)[start : stop - 1]
        proprio_TP = self._table(example, self._chosen.proprio, length)[start:stop] if self._chosen.proprio else None
        return Episode(
            id,
            self._instruction(example, start, length),
            stacked(views, example.place),
            torch.from_numpy(actions_TA),
            cameras=tuple(views),
            proprio_TP=None if proprio_TP is None else torch.from_numpy(proprio_TP),
            fps=self._config.fps,
        )

    def _example(self, episode: int) -> Example:
        place = self._places[episode]
        return parse_example(record(place), str(place))

    def _decoded(self, example: Example, feature: str, pictures: Sequence[bytes]) -> NDArray[np.uint8]:
        frames = [read_picture(content, f"a picture of {feature} in {example.place}") for content in pictures]
        if len({frame.shape for frame in frames}) != 1:
            raise DataError(f"The pictures of {feature} in {example.place} differ in size. {REPAIR}")
        return np.stack(frames)

    def _strings(self, example: Example, feature: str, length: int) -> list[bytes]:
        """Byte strings, one a step."""
        values = _there(example, feature)
        if not isinstance(values, list) or len(values) != length:
            kind = "byte strings" if isinstance(values, list) else "numbers"
            raise DataError(f"{feature} of {example.place} has {len(values)} {kind} for {length} steps. {REPAIR}")
        return values

    def _table(self, example: Example, features: Sequence[str], length: int) -> NDArray[np.float32]:
        """Numbers of some features side by side (T, D), float32."""
        columns = []
        for feature in features:
            values, width = _there(example, feature), self._chosen.widths.get(feature)
            if isinstance(values, list) or not len(values) or len(values) % length:
                kind = "byte strings" if isinstance(values, list) else "numbers"
                raise DataError(f"{feature} of {example.place} has {len(values)} {kind} for {length} steps. {REPAIR}")
            table = values.reshape(length, -1).astype(np.float32)
            if width not in (None, table.shape[1]):
                raise DataError(f"{feature} of {example.place} is {table.shape[1]} wide, not {width}. {REPAIR}")
            if not np.isfinite(table).all():
                raise DataError(f"{feature} of {example.place} contains NaN or infinite values. {REPAIR}")
            columns.append(table)
        return np.concatenate(columns, axis=1)

    def _instruction(self, example: Example, step: int, length: int) -> str:
        text = ""
        if self._chosen.instruction is not None:
            values = _there(example, self._chosen.instruction)
            # What is once an episode is not once a step.
            content = values[0 if len(values) == 1 else step] if isinstance(values, list) else None
            if content is None or len(values) not in (1, length):
                raise DataError(
                    f"{self._chosen.instruction} of {example.place} is no text for {length} steps. {REPAIR}"
                )
            with reading(f"{self._chosen.instruction} of {example.place}"):
                text = content.decode()
        text = text.strip() or (self._config.instruction or "").strip()
        if not text or not writable(text):
            raise DataError(
                f"{example.place} has no instruction"
                + (f": {self._chosen.instruction} is empty. " if self._chosen.instruction else ". ")
                + 'Give one for those without: instruction="...", or leave them out with skip_bad=true.'
            )
        return text


def _there(example: Example, feature: str) -> list[bytes] | NDArray[np.float32] | NDArray[np.int64]:
    if feature not in example.spans:
        raise DataError(f"{example.place} lacks {feature}, which the first record has. {REPAIR}")
    return example.values(feature)


def _lengths(places: Sequence[Place], camera: str) -> list[int | DataError]:
    """Steps of each record, or why that cannot be said: the main camera's pictures, counted without reading them."""
    found: list[int | DataError] = []
    progress = Progress(str(places[0].path.parent), len(places), "counted")
    for path, of_file in groupby(places, key=lambda place: place.path):
        with reading(f"the file {path}"), path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            for place in of_file:
                progress.tell(len(found))
                try:
                    example = parse_example(data, str(place), place.start, place.start + place.length)
                    if camera not in example.spans:
                        raise DataError(f"{place} lacks {camera}, which the first record has. {REPAIR}")
                    found.append(example.count_bytes(camera))
                except DataError as error:
                    found.append(error)
    progress.end()
    return found


def _label(place: Place) -> str:
    """File and record, which stay as they are when other files come or go."""
    name, _, shard = place.path.name.partition(".tfrecord")
    return f"{name}{shard.removeprefix('s').partition('-of-')[0]}/{place.number:05d}"


def _is_version(folder: Path) -> bool:
    return all(part.isdigit() for part in folder.resolve().name.split("."))
