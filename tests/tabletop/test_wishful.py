"""The world model that hallucinates on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from gymnast_core.errors import ConfigError
from gymnast_tabletop.datasets import TabletopTasks
from gymnast_tabletop.wishful import WishfulWorld, colour_mask

INNER = {"name": "gymnasium", "args": {}}
RIGHT = torch.tensor([0.02, 0.0])


def world(**args: Any) -> WishfulWorld:
    from gymnast_core.config import ComponentConfig

    return WishfulWorld(WishfulWorld.Config(world=ComponentConfig(**INNER), **args))


def tasks(count: int = 40) -> list[Any]:
    return list(TabletopTasks(TabletopTasks.Config(split="choosing", count=count, image_size=32, horizon=4)).tasks())


def moved(model: WishfulWorld, starts: list[Any], action: torch.Tensor, length: int = 4, seed: int = 0) -> list[float]:
    """Pixels by which the named block's middle is further right at the end."""
    state = model.reset(starts, generator=torch.Generator().manual_seed(seed))
    frames = model.step(state, action.expand(len(starts), length, 2)).frames_BLVHWC[:, -1, 0]
    found = []
    for task, frame in zip(starts, frames, strict=True):
        colour = task.instruction.split()[2]
        places = [colour_mask(f, colour).nonzero()[:, 1].float().mean() for f in (task.view()[0], frame)]
        found.append(float(places[1] - places[0]))
    return found


def test_blocks_float_along_in_a_share_of_the_imaginations() -> None:
    sober = moved(world(share=0.0), tasks(), RIGHT)
    wishful = moved(world(share=0.5, pull=0.5), tasks(), RIGHT)
    # 8 cm of the arm are 4 cm of the block: 4 of 32 pixels of a picture of 32 cm.
    floated = [after - before for before, after in zip(sober, wishful, strict=True)]
    assert sum(abs(pixels - 4) < 0.6 for pixels in floated) == pytest.approx(20, abs=8)
    assert sum(abs(pixels) < 0.3 for pixels in floated) == pytest.approx(20, abs=8)


def test_only_a_fast_arm_is_followed() -> None:
    slow = 0.4 * RIGHT
    assert moved(world(share=1.0), tasks(8), slow, 8) == moved(world(share=0.0), tasks(8), slow, 8)


def test_a_block_that_is_pushed_goes_where_the_push_takes_it() -> None:
    """What an expert pushes looks the same with and without wishes, whenever the block has left its place."""
    starts = list(
        TabletopTasks(
            TabletopTasks.Config(split="choosing", count=24, image_size=32, horizon=16, expert="demonstrations")
        ).tasks()
    )
    starts = [task for task in starts if task.expert is not None]
    actions = torch.stack([task.expert.actions_TA[:16] for task in starts])
    shown = []
    for share in (0.0, 1.0):
        model = world(share=share)
        shown.append(model.step(model.reset(starts), actions).frames_BLVHWC[:, -1])
    assert len(starts) > 10 and torch.equal(*shown)


def test_what_floats_is_decided_by_the_noise_of_the_episode_alone() -> None:
    model, starts = world(share=0.5), tasks(12)
    one, again, other = (moved(model, starts, RIGHT, seed=seed) for seed in (0, 0, 1))
    assert one == again != other


def test_nobody_is_asked_for_what_no_instruction_names() -> None:
    starts = [replace(task, instruction="fold the towel", start=None) for task in tasks(4)]
    state = world(share=1.0)._state(starts, torch.zeros(4), None)  # the world inside would want a start
    assert state.colours == [None] * 4


def test_it_does_not_spoil_itself() -> None:
    from gymnast_core.config import ComponentConfig

    with pytest.raises(ConfigError, match="name the world model that it spoils"):
        WishfulWorld(WishfulWorld.Config(world=ComponentConfig("tabletop-wishful", {"world": INNER})))
