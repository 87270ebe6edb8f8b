"""Tasks drawn from seeds, and recorded episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from gymnast_core.config.ranges import Choices, Count, Range, Seed, ZeroOrMore
from gymnast_core.errors import DataError
from gymnast_core.interfaces import Dataset
from gymnast_core.types import ONE_CAMERA, EnvironmentStart, Episode, Task
from gymnast_episodes.crops import Lazy, partition
from gymnast_tabletop.experts import BEHAVIOURS, behaviour
from gymnast_tabletop.gap import STANDARD, Gap
from gymnast_tabletop.geometry import CAMERAS
from gymnast_tabletop.instructions import (
    PAIRS,
    TEMPLATES,
    draw_instruction,
    feasible_goals,
    pairs,
    parse,
    start_scene,
    success,
)
from gymnast_tabletop.scene import MAX_DELTA, Scene
from gymnast_tabletop.splits import SPLITS, split_seed

ENVIRONMENT = "gymnast/Tabletop-v0"

_PARTIAL_CREDIT = (
    "The named block was moved in the named direction, but less than required, too far to the side, "
    "or another block was moved as well."
)
_EXPERT = 1234
"""Names the chance of a behaviour, beside the task's seed; recordings draw theirs so, too."""
_TRIES = 64
"""Seeds a task may look through for a feasible held-out instruction."""


@lru_cache(maxsize=8)
def _table(n_blocks: int, image_size: int, gap: str = "{}"):
    """One table a process for the first frames of all tasks."""
    from gymnast_tabletop.simulation import Tabletop

    return Tabletop(n_blocks=n_blocks, image_size=image_size, gap=Gap(**json.loads(gap)))


class TabletopTasks(Dataset):
    """Starts: a rendered scene, a feasible instruction, and the environment that shows it again."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        split: Annotated[str, Choices(*SPLITS)] = "training"
        """Range of seeds: training, choosing or reporting."""
        count: Count = 1024
        """Number of tasks."""
        first: ZeroOrMore = 0
        """Index of the first task within the split."""
        image_size: Count = 64
        """Pixels a side."""
        n_blocks: Annotated[int, Range(least=2, most=3)] = 2
        """Blocks on the table, 2 or 3."""
        horizon: Count = 16
        """Control steps an episode of the environment has."""
        pairs: Annotated[str, Choices(*PAIRS)] = "training"
        """Colour-direction pairs that instructions are drawn from: training, held-out or all; or one held-out pair,
        blue-left or yellow-top."""
        template: Annotated[int, Range(least=0, most=len(TEMPLATES) - 1)] = 0
        """Wording: 0 as in training, 1 to 4 are paraphrases."""
        gap: Gap = field(default_factory=Gap)
        """How camera, colours and friction differ from the standard table: a simulator that is not quite the robot."""
        wrist: bool = False
        """Two cameras, front and wrist: also what a camera sees that moves with the end-effector."""
        expert: Annotated[str, Choices(*BEHAVIOURS)] | None = None
        """Behaviour whose episode from its start a task carries, for rewards that compare with it (`verified`):
        demonstrations (19 of 20 tasks are fulfilled within 16 steps, the others carry none), slow-demonstrations or
        play; null: none."""

    def __init__(self, config: Config) -> None:
        pairs(config.pairs)
        self.config = config
        # Some training instruction is always feasible; for a held-out one several seeds may have to be
        # looked at.
        self._stride = 1 if {*PAIRS["training"]} <= {*PAIRS[config.pairs]} else _TRIES
        split_seed(config.split, config.first * self._stride)
        split_seed(config.split, (config.first + config.count) * self._stride - 1)

    def tasks(self) -> Sequence[Task]:
        return Lazy(self.config.count, self._task)

    @property
    def _cameras(self) -> tuple[str, ...]:
        return CAMERAS if self.config.wrist else ONE_CAMERA

    def _task(self, index: int) -> Task:
        config = self.config
        position = (config.first + index) * self._stride
        for seed in (split_seed(config.split, position + k) for k in range(self._stride)):
            scene = start_scene(seed, config.n_blocks)
            if feasible_goals(scene, config.pairs):
                break
        else:
            raise DataError(f"Task {index} found no feasible {config.pairs} instruction. Choose another `first`.")
        goal = parse(draw_instruction(seed, scene, config.pairs))
        instruction = TEMPLATES[config.template].format(colour=goal.colour, direction=goal.direction)
        table = _table(config.n_blocks, config.image_size, json.dumps(config.gap.changes()))
        table.reset(scene)
        return Task(
            id=f"tabletop/{config.n_blocks}/{seed}/{instruction}",
            instruction=instruction,
            frames_TVHWC=torch.from_numpy(table.views(config.wrist)[None]),
            cameras=self._cameras,
            start=EnvironmentStart(
                ENVIRONMENT,
                seed,
                options={"instruction": instruction},
                args={
                    "image_size": config.image_size,
                    "n_blocks": config.n_blocks,
                    "horizon": config.horizon,
                    **({"gap": config.gap.changes()} if config.gap != STANDARD else {}),
                    **({"wrist": True} if config.wrist else {}),
                },
            ),
            partial_credit_criteria=_PARTIAL_CREDIT,
            expert=None if config.expert is None else self._expert(seed, scene, instruction),
        )

    def _expert(self, seed: int, scene: Scene, instruction: str) -> Episode | None:
        """What the chosen behaviour does from the task's start on; None if it does not fulfil the task."""
        config = self.config
        table = _table(config.n_blocks, config.image_size, json.dumps(config.gap.changes()))
        act = behaviour(config.expert or "", scene, instruction, np.random.default_rng([seed, _EXPERT]))
        table.reset(scene)
        states, frames, actions = [table.state], [table.views(config.wrist)], []
        for _ in range(config.horizon):
            actions.append(np.clip(act(table.state), -MAX_DELTA, MAX_DELTA).astype(np.float32))
            table.step(actions[-1])
            states.append(table.state)
            frames.append(table.views(config.wrist))
        if not success(parse(instruction), scene.colours, states[0], states[-1]):
            return None
        return Episode(
            id=f"tabletop/{seed}/{config.expert}",
            frames_TVHWC=torch.from_numpy(np.stack(frames)),
            cameras=self._cameras,
            actions_TA=torch.from_numpy(np.stack(actions)),
            instruction=instruction,
            success=True,
        )


class TabletopEpisodes(Dataset):
    """Recorded episodes, whole or in crops.

    `points_TJ2` holds the named block, the other block(s), the end-effector.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        path: str
        """Folder that `python -m gymnast_tabletop.record` wrote."""
        also: list[str] = field(default_factory=list)
        """Further recordings of the same image size, appended."""
        window: Annotated[int, Range(least=2)] | None = None
        """Frames a crop; None for whole episodes."""
        crops: Annotated[str, Choices("all", "one", "first")] = "all"
        """Which crops of an episode: all, one (at an offset drawn by the seed) or first."""
        part: Annotated[str, Choices("train", "validation", "all")] = "all"
        """train, validation or all; whole episodes fall into one of the two."""
        validation_fraction: Annotated[float, Range(least=0, below=1)] = 0.05
        """Fraction of the episodes that are validation."""
        instructions: Annotated[str, Choices("own", "hindsight")] = "own"
        """own: as recorded. hindsight: any feasible one, in half of the crops one that came true if any
        did."""
        pairs: Annotated[str, Choices("all", "training")] = "all"
        """Colour-direction pairs that hindsight and outcomes may name: all or training."""
        seed: Seed = 0
        """Of the partition, the offsets and the hindsight."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._goals = pairs(config.pairs)

    @property
    def paths(self) -> list[Path]:
        return [Path(path).expanduser() for path in (self.config.path, *self.config.also)]

    def episodes(self) -> Sequence[Episode]:
        from gymnast_tabletop.recordings import Crops, Folder

        config, parts = self.config, []
        for number, path in enumerate(self.paths):
            folder = Folder(path)
            rng = np.random.default_rng([config.seed, number])
            chosen = partition(len(folder.seeds), config.part, config.validation_fraction, rng)
            parts.append(
                Crops(
                    folder,
                    chosen,
                    window=config.window,
                    crops=config.crops,
                    own=config.instructions == "own",
                    goals=self._goals,
                    rng=rng,
                )
            )
        starts = np.cumsum([0] + [len(part) for part in parts])
        episodes = Lazy(int(starts[-1]), partial(_item, parts, starts))
        episodes.frames = [part.frames for part in parts for _ in range(len(part))]
        return episodes


def _item(parts: Sequence[Sequence[Episode]], starts: np.ndarray, index: int) -> Episode:
    number = int(np.searchsorted(starts, index, side="right")) - 1
    return parts[number][index - int(starts[number])]
