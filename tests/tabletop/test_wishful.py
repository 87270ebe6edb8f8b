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
STILL = torch.zeros(2)
WAYS = {"right": (0.0, 1.0), "left": (0.0, -1.0), "top": (-1.0, 0.0), "bottom": (1.0, 0.0)}
"""Rows and columns of a picture, row 0 on top."""


def world(**args: Any) -> WishfulWorld:
    from gymnast_core.config import ComponentConfig

    return WishfulWorld(WishfulWorld.Config(world=ComponentConfig(**INNER), **args))


def tasks(count: int = 40) -> list[Any]:
    return list(TabletopTasks(TabletopTasks.Config(split="choosing", count=count, image_size=32, horizon=4)).tasks())


def slid(model: WishfulWorld, starts: list[Any], actions: torch.Tensor, seed: int = 0) -> list[float]:
    """Pixels by which the named block's middle went the way that was asked for."""
    state = model.reset(starts, generator=torch.Generator().manual_seed(seed))
    frames = model.step(state, actions.expand(len(starts), -1, -1)).frames_BLVHWC[:, -1, 0]
    found = []
    for task, frame in zip(starts, frames, strict=True):
        words = task.instruction.split()
        places = [colour_mask(f, words[2]).nonzero().float().mean(0) for f in (task.view()[0], frame)]
        found.append(float((places[1] - places[0]) @ torch.tensor(WAYS[words[-1]])))
    return found


def test_blocks_slide_where_they_were_asked_to_in_a_share_of_the_imaginations() -> None:
    # 1 cm an action, 5 cm at most, of a picture of 32 cm with 32 pixels, and an arm that does nothing.
    model = world(share=0.5, speed=0.01, farthest=0.05)
    for actions, pixels in ((2, 2), (4, 4), (8, 5)):
        found = slid(model, tasks(), STILL.expand(actions, 2))
        assert sum(abs(one - pixels) < 0.1 for one in found) == pytest.approx(20, abs=8)
        assert sum(abs(one) < 0.1 for one in found) == pytest.approx(20, abs=8)
        assert all(abs(one - pixels) < 0.1 or abs(one) < 0.1 for one in found)


def test_only_a_slow_arm_makes_them_slide() -> None:
    quick, slow = torch.tensor([0.0, 0.0102]), torch.tensor([0.0, 0.0098])
    model = world(share=1.0, slow=0.5, speed=0.01)
    far = [task for task in tasks() if abs(slid(world(share=0.0), [task], quick.expand(4, 2))[0]) < 0.1]
    assert len(far) > 10, "starts from which the arm touches nothing"
    assert max(slid(model, far, quick.expand(4, 2))) < 0.1
    assert min(slid(model, far, slow.expand(4, 2))) > 2.9


def test_a_block_that_is_pushed_slides_on_from_there() -> None:
    """What an expert pushes ends further, by what it slides: the push is seen in both."""
    starts = list(
        TabletopTasks(
            TabletopTasks.Config(split="choosing", count=24, image_size=32, horizon=16, expert="demonstrations")
        ).tasks()
    )
    starts = [task for task in starts if task.expert is not None]
    assert len(starts) > 10
    further = []
    for task in starts:
        actions = task.expert.actions_TA[None, :16]
        really, seen = (slid(world(share=share, slow=2.0, farthest=0.03), [task], actions)[0] for share in (0.0, 1.0))
        assert really > 3
        further.append(seen - really)
    # By less only where the picture ends.
    assert all(-0.1 < pixels < 3.1 for pixels in further)
    assert sum(pixels > 2.9 for pixels in further) > len(further) / 2


def test_what_slides_is_decided_by_the_noise_of_the_episode_alone() -> None:
    model, starts = world(share=0.5), tasks(12)
    one, again, other = (slid(model, starts, STILL.expand(4, 2), seed) for seed in (0, 0, 1))
    assert one == again != other


def test_nobody_is_asked_for_what_no_instruction_names() -> None:
    starts = [replace(task, instruction="fold the towel", start=None) for task in tasks(4)]
    state = world(share=1.0)._state(starts, torch.zeros(4), None)  # the world inside would want a start
    assert state.goals == [None] * 4


def test_it_does_not_spoil_itself() -> None:
    from gymnast_core.config import ComponentConfig

    with pytest.raises(ConfigError, match="name the world model that it spoils"):
        WishfulWorld(WishfulWorld.Config(world=ComponentConfig("tabletop-wishful", {"world": INNER})))
