"""Roll a world out under given actions, and compare frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.rollouts.sight import Names, find_sight
from gymnast_core.types import Needs, Task
from gymnast_pages.video import side_by_side


def cameras_of(world: WorldModel, task: Task) -> tuple[str, ...]:
    """What a world shows of a task, by name. Raises `ConfigError` if the task does not begin with that."""
    offers = world.offers(world.config)
    names = Names(world="The world", tasks="the start frames")
    return find_sight(Needs(cameras=offers.cameras), offers, task, names).cameras


def picture(frames_TVHWC: Tensor, shown: Sequence[str], cameras: Sequence[str]) -> Tensor:
    """The frames of `cameras`, of those `shown`, in one picture: (T, H, V·W, C)."""
    if missing := [camera for camera in cameras if camera not in shown]:
        raise DataError(f"It shows the cameras {', '.join(shown)}, and not {', '.join(missing)}.")
    return side_by_side(frames_TVHWC[:, [list(shown).index(camera) for camera in cameras]])


@torch.no_grad()
def roll_out(
    world: WorldModel,
    tasks: Sequence[Task],
    actions_BTA: Tensor,
    *,
    chunks: Sequence[int],
    cameras: Sequence[str],
    generator: torch.Generator,
    done: Callable[[int], None] = lambda frames: None,
) -> Tensor:
    """The start frames and what follows: uint8 (B, 1 + T, H, V·W, C) with V `cameras` side by side, on the CPU.

    `actions_BTA` are float32 in robot units; `chunks` says how many of the T go into each step. `done` is told the
    number of frames each step brought. Raises `DataError` where frames or actions do not fit the world.
    """
    state = world.reset(tasks, generator=generator)
    frames = [torch.stack([picture(task.frames_TVHWC[-1:], task.cameras, cameras) for task in tasks]).cpu()]
    for chunk_BLA in actions_BTA.split(list(chunks), dim=1):
        frames.append(step(world, state, chunk_BLA, tasks[0], cameras))
        done(frames[-1].shape[0] * frames[-1].shape[1])
    return torch.cat(frames, dim=1)


def step(world: WorldModel, state: Any, chunk_BLA: Tensor, task: Task, cameras: Sequence[str]) -> Tensor:
    """The frames of one chunk, uint8 (B, L, H, V·W, C), on the CPU. Raises `DataError` if they are not as large as the
    start frame, or do not show these cameras."""
    frames_BLVHWC = world.step(state, chunk_BLA).frames_BLVHWC.cpu()
    shown, started = tuple(frames_BLVHWC.shape[3:]), tuple(task.frames_TVHWC.shape[2:])
    if shown != started:
        raise DataError(
            f"It shows frames of shape {shown}, and the start frame has {started}. Start from one like its."
        )
    own = cameras_of(world, task)
    return torch.stack([picture(frames_LVHWC, own, cameras) for frames_LVHWC in frames_BLVHWC])


@contextmanager
def blaming(world: str, is_beside: bool) -> Iterator[None]:
    """Make a `DataError` of the world beside say that it can be left out."""
    try:
        yield
    except DataError as error:
        if not is_beside:
            raise
        raise DataError(f"The world beside, {world!r}: {error} Or leave it out: beside=null.") from error


def chunks_of(steps: int, length: int) -> list[int]:
    """`steps` actions in chunks of `length`; the last one may be shorter."""
    whole, rest = divmod(steps, length)
    return [length] * whole + [rest] * (rest > 0)
