"""A world driven action by action, with undo; what was done can be saved and replayed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.config import to_yaml
from gymnast_core.errors import GymnastError
from gymnast_core.interfaces import WorldModel
from gymnast_core.runs.atomic import atomic_directory, write_text
from gymnast_core.types import Task
from gymnast_imagine.action_sources import Space, write_actions
from gymnast_imagine.config import ImagineConfig
from gymnast_imagine.filming import IMAGINED, PAIR_PIXELS, noise
from gymnast_imagine.panels import Cell, Row, compose
from gymnast_imagine.rolling import blaming, cameras_of, picture, step
from gymnast_pages.video import write_video

REPLAYED_AS = "actions"
"""Name of the shot of `actions: file`, which therefore meets the same noise."""
DEFAULT_LIMIT = 1000


class SessionError(GymnastError):
    """A wish of the driver that cannot be fulfilled; the session goes on."""


@dataclass(frozen=True)
class Moment:
    """What the worlds show now."""

    step: int
    """Actions so far."""
    limit: int
    """Actions there can be."""
    unsaved: bool
    frames: Mapping[str, Tensor]
    """World -> uint8 (L, H, V·W, C): the frames since the last moment, at least one, its cameras side by side."""


class Session:
    """One episode in the world called IMAGINED, and in another one beside if there is one. Safe to use from several
    threads."""

    def __init__(self, config: ImagineConfig, worlds: Mapping[str, WorldModel], task: Task, space: Space) -> None:
        """Raises `DataError` if the worlds do not take the start frame or the actions."""
        self.config, self.task, self.space = config, task, space
        self.limit = config.horizon or DEFAULT_LIMIT
        self._worlds = worlds
        self._cameras = cameras_of(worlds[IMAGINED], task)
        self._lock = threading.Lock()
        self._actions: list[Tensor] = []
        """One action (A,) a chunk."""
        self._chunks: list[Mapping[str, Tensor]] = []
        """The frames that each chunk brought, by world."""
        self._saves, self._unsaved = 0, False
        self._states: dict[str, Any] | None = None
        # A first action that is not kept: what does not fit must show before the page opens, not on a key press.
        self._advance(space.rest_A)
        self._states = None

    def now(self) -> Moment:
        with self._lock:
            return self._moment()

    def step(self, action_A: Tensor) -> Moment:
        """Hold the action for one chunk. Raises `SessionError` when the episode is as long as it may be."""
        with self._lock:
            if self._steps() + self.config.chunk > self.limit:
                raise SessionError(f"The session has reached {self.limit} actions. Undo, reset, or save it.")
            frames = self._advance(action_A)
            self._actions.append(action_A)
            self._chunks.append(frames)
            self._unsaved = True
            return self._moment(frames)

    def undo(self) -> Moment:
        """Take the last chunk back; the world is driven to that point again when the next action comes."""
        with self._lock:
            if not self._actions:
                raise SessionError("There is nothing to undo.")
            self._actions.pop()
            self._chunks.pop()
            self._states, self._unsaved = None, bool(self._actions)
            return self._moment()

    def reset(self) -> Moment:
        """Back to the start frame; what was not saved is gone."""
        with self._lock:
            self._actions.clear()
            self._chunks.clear()
            self._states, self._unsaved = None, False
            return self._moment()

    def save(self) -> Path:
        """Write video, actions and a config that replays them into a new folder, and return it."""
        with self._lock:
            if not self._actions:
                raise SessionError("There is nothing to save yet.")
            folder = self._next_folder()
            with atomic_directory(folder) as directory:
                self._write(directory)
            self._unsaved = False
            return folder

    @property
    def saved(self) -> int:
        """Number of folders written."""
        return self._saves

    def _steps(self) -> int:
        return len(self._actions) * self.config.chunk

    def _moment(self, frames: Mapping[str, Tensor] | None = None) -> Moment:
        if frames is None:
            frames = self._chunks[-1] if self._chunks else dict.fromkeys(self._worlds, self._start())
            frames = {name: frames_LHWC[-1:] for name, frames_LHWC in frames.items()}
        return Moment(self._steps(), self.limit, self._unsaved, frames)

    @torch.no_grad()
    def _advance(self, action_A: Tensor) -> dict[str, Tensor]:
        """Step every world; if one fails, all begin anew at the next step, so that they never part."""
        states, self._states = self._states or self._rebuild(), None
        frames = self._step(states, action_A)
        self._states = states
        return frames

    def _rebuild(self) -> dict[str, Any]:
        """The states after all actions so far. The noise depends on the seed alone, so they are what they were."""
        states = {}
        for name, world in self._worlds.items():
            with blaming(name, name != IMAGINED):
                states[name] = world.reset([self.task], generator=noise(self.config.seed, name, REPLAYED_AS))
        for action_A in self._actions:
            self._step(states, action_A)
        return states

    def _step(self, states: Mapping[str, Any], action_A: Tensor) -> dict[str, Tensor]:
        chunk_BLA = action_A.repeat(1, self.config.chunk, 1)
        frames = {}
        for name, world in self._worlds.items():
            with blaming(name, name != IMAGINED):
                frames[name] = step(world, states[name], chunk_BLA, self.task, self._cameras)[0]
        return frames

    def _start(self) -> Tensor:
        """The frame from which the worlds are driven, (1, H, V·W, C)."""
        return picture(self.task.frames_TVHWC[-1:], self.task.cameras, self._cameras)

    def _next_folder(self) -> Path:
        self._saves += 1
        while (folder := Path(str(self.config.output)) / f"session-{self._saves:02d}").exists():
            self._saves += 1
        return folder

    def _write(self, directory: Path) -> None:
        cells = [
            Cell(name, torch.cat([self._start(), *(frames[name] for frames in self._chunks)])) for name in self._worlds
        ]
        title = self.task.instruction or self.task.id
        picture_THWC = compose([Row(title, cells)], min_pixels=PAIR_PIXELS)
        write_video(picture_THWC, directory / "video.mp4", fps=self.config.fps, min_pixels=1)
        chunk = self.config.chunk
        actions_TA = torch.stack(self._actions).repeat_interleave(chunk, dim=0)
        about = {"start": self.task.id, "names": list(self.space.names)}
        write_actions(directory / "actions.json", actions_TA, self._chunk_lengths(), about)
        replayed = replace(self.config, actions="file", file="actions.json", horizon=None, output=None)
        write_text(directory / "replay.yaml", to_yaml(replayed, {"file": "${preset_dir}/actions.json"}))

    def _chunk_lengths(self) -> Sequence[int]:
        return [self.config.chunk] * len(self._actions)
