"""Imagine actions that are known already: the same ones again from other noise, or an expert's from the same noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_core.interfaces import WorldModel
from gymnast_core.rollouts.steps import ended_after, most_episodes
from gymnast_core.types import Rollout, Step, Task


@dataclass(frozen=True)
class Course:
    """What to do in one episode, and which noise it is imagined from."""

    task: Task
    chunks: tuple[Tensor, ...]
    """float32 actions (L, A) of each decision, in robot units. The same noise means the same frames only where actions
    are given to the world in chunks of the same lengths."""
    generator: torch.Generator
    """Where this episode's noise comes from, and no other's."""


@torch.no_grad()
def replay(world_model: WorldModel, courses: Sequence[Course], *, together: int = 256) -> list[Step]:
    """What the world shows in each course, in order: `Step`s of one episode (B = 1) and all of its actions, on the CPU.

    Episodes are imagined in batches of at most `together`, and of what the world takes, yet each as if it were alone:
    its frames depend on its task, its actions and its generator, within the rounding of a batch of another size.
    """
    found: list[Step | None] = [None] * len(courses)
    for rows in _batches(world_model, courses, together):
        tasks = [courses[row].task for row in rows]
        state = world_model.reset_apart(tasks, generators=[courses[row].generator for row in rows])
        steps = [
            world_model.step(state, torch.stack([courses[row].chunks[n] for row in rows]))
            for n in range(len(courses[rows[0]].chunks))
        ]
        del state  # a simulator's memory, before the next batch begins
        for place, row in enumerate(rows):
            found[row] = _joined(steps, place)
    return [step for step in found if step is not None]


def shown_again(rollout: Rollout, step: Step) -> Rollout:
    """The rollout as if it had gone like that: what `replay` showed instead of what it held.

    Raises `ConfigError` if that is of other cameras or another size.
    """
    start_VHWC, frames_LVHWC = rollout.frames_at([0])[0], step.frames_BLVHWC[0]
    if start_VHWC.shape != frames_LVHWC.shape[1:]:
        raise ConfigError(
            f"The world model in which rollouts are imagined again shows frames {tuple(frames_LVHWC.shape[1:])} "
            f"(cameras, height, width, colours), and the rollouts hold {tuple(start_VHWC.shape)}. Choose one that "
            "shows the same cameras in the same size."
        )
    proprio_TP = None
    if rollout.proprio_TP is not None and step.proprio_BLP is not None:
        proprio_TP = torch.cat([rollout.proprio_TP[:1], step.proprio_BLP[0]])
    return replace(
        rollout,
        frames_TVHWC=torch.cat([start_VHWC[None], frames_LVHWC]),
        proprio_TP=proprio_TP,
        outcome_S=None if step.outcome_BL is None else step.outcome_BL[0],
        error=None if step.errors is None else step.errors[0],
        ended_after=None if step.ended_BL is None else ended_after(step.ended_BL[0]),
    )


def _batches(world_model: WorldModel, courses: Sequence[Course], together: int) -> Iterator[list[int]]:
    """Rows that can be imagined together: chunks and contexts of one shape."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for row, course in enumerate(courses):
        shapes = (course.task.frames_TVHWC.shape, tuple(chunk.shape for chunk in course.chunks))
        alike.setdefault((*shapes, course.task.cameras, course.task.actions_TA is None), []).append(row)
    if not world_model.takes_several_apart:
        together = 1
    for rows in alike.values():
        first = 0
        while first < len(rows):
            some = rows[first : first + together]
            some = some[: most_episodes(world_model, [courses[row].task for row in some])]
            yield some
            first += len(some)


def _joined(steps: Sequence[Step], place: int) -> Step:
    """One episode's part of what was shown."""

    def own(parts: Sequence[Tensor | None]) -> Tensor | None:
        known = [part[place, None].cpu() for part in parts if part is not None]
        return torch.cat(known, dim=1) if known and len(known) == len(parts) else None

    frames = own([step.frames_BLVHWC for step in steps])
    assert frames is not None
    error = next((step.errors[place] for step in steps if step.errors is not None and step.errors[place]), None)
    proprio, outcome = own([step.proprio_BLP for step in steps]), own([step.outcome_BL for step in steps])
    ended = own([step.ended_BL for step in steps])
    return Step(frames, proprio, outcome, None if error is None else (error,), ended)
