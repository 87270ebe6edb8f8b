"""What a world's steps say, and what they must look like: asked of each of them, since a wrong one is noticed late."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Rollout, Step, Task

_NOT_FINITE = "gave readings (proprio_BLP) that are infinite or NaN"


def checked_step(world: object, step: Any, actions_BLA: Tensor, views: int, height: int, width: int) -> Step:
    """The step. Raises `ContractError` that names the world's class if it is none, or of another shape than that of
    `actions_BLA` and of the frames that the episodes begin with."""
    batch, length = actions_BLA.shape[:2]
    name = type(world).__name__
    if not isinstance(step, Step):
        raise _broken(name, f"returned a {type(step).__name__}, not a Step of gymnast_core.types")
    if step.undecoded is None:
        _expect(name, "frames_BLVHWC", step.frames_BLVHWC, (batch, length, views, height, width, 3), torch.uint8)
    if step.errors is not None and len(step.errors) != batch:
        raise _broken(name, f"gave {len(step.errors)} errors for {batch} episodes")
    if step.proprio_BLP is not None:
        readings = step.proprio_BLP.shape[-1] if isinstance(step.proprio_BLP, Tensor) and step.proprio_BLP.ndim else 0
        _expect(name, "proprio_BLP", step.proprio_BLP, (batch, length, readings), torch.float32)
        if step.proprio_BLP.device.type == "cpu":  # elsewhere it would be waited for; `check_readings` looks at the end
            _expect_finite(name, step)
    if step.outcome_BL is not None:
        _expect(name, "outcome_BL", step.outcome_BL, (batch, length), torch.float32)
    if step.ended_BL is not None:
        _expect(name, "ended_BL", step.ended_BL, (batch, length), torch.bool)
    return step


def check_readings(world: object, rollouts: Sequence[Rollout]) -> None:
    """Raises `ContractError` that names the world's class if readings of a rollout that it did not lose are infinite or
    NaN."""
    for rollout in rollouts:
        if (
            rollout.error is None
            and rollout.proprio_TP is not None
            and not bool(torch.isfinite(rollout.proprio_TP).all())
        ):
            raise _broken(type(world).__name__, _NOT_FINITE)


def most_episodes(world: WorldModel, tasks: Sequence[Task]) -> int | None:
    """What the world says of how many episodes of these tasks may be alive at once; None: any number. Raises
    `ContractError` that names the world's class if that is no whole number from 1."""
    most = world.most_episodes(tasks)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ContractError(
            f"{type(world).__name__}.most_episodes returned {most!r}; it returns a whole number from 1, or None for "
            "any number. `gymnast check` tries it."
        )
    return most


def ended_after(ended_L: Tensor | None) -> int | None:
    """How many actions an episode took until it was over, by its row of `Step.ended_BL`; None if it goes on."""
    return 1 + int(ended_L.int().argmax()) if ended_L is not None and bool(ended_L.any()) else None


def _expect(name: str, what: str, found: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(found, Tensor):
        raise _broken(name, f"gave {what} as {type(found).__name__}, not as a tensor")
    if tuple(found.shape) != shape or found.dtype != dtype:
        raise _broken(
            name, f"gave {what} {found.dtype} {tuple(found.shape)}; expected {dtype} {shape}, an entry for each action"
        )


def _expect_finite(name: str, step: Step) -> None:
    """Readings are numbers, but of episodes that the world lost."""
    assert step.proprio_BLP is not None
    finite_B = torch.isfinite(step.proprio_BLP).flatten(1).all(1).tolist()
    lost_B = [error is not None for error in step.errors or (None,) * len(finite_B)]
    if not all(finite or lost for finite, lost in zip(finite_B, lost_B, strict=True)):
        raise _broken(name, _NOT_FINITE)


def _broken(name: str, what: str) -> ContractError:
    return ContractError(f"{name}.step {what}. See gymnast_core.interfaces.WorldModel.step; `gymnast check` tries it.")
