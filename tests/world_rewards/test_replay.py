"""Imagining known actions again: the same noise, the same frames; and nobody's frames depend on a neighbour."""

from __future__ import annotations

import pytest
import torch
from noisy_worlds import NoisyWorld, RowWorld, rollout, task

from gymnast_core.errors import ConfigError
from gymnast_core.plugins.registry import registries
from gymnast_core.rollouts.replay import Course, replay, shown_again
from gymnast_core.testing.making import make_tasks
from gymnast_core.types import Step

CHUNKS = tuple(torch.tensor([[[5.0], [7.0]], [[1.0], [2.0]]]))


def courses(count: int, seeds: range | None = None) -> list[Course]:
    return [
        Course(task(10 * n, f"t{n}"), CHUNKS, torch.Generator().manual_seed(seed))
        for n, seed in enumerate(seeds or range(count))
    ]


@pytest.mark.parametrize("world", [NoisyWorld(noise=50.0), RowWorld(noise=50.0)])
def test_each_episode_is_as_if_alone(world: NoisyWorld) -> None:
    together = replay(world, courses(4))
    alone = [replay(world, [course])[0] for course in courses(4)]
    assert all(torch.equal(a.frames_BLVHWC, b.frames_BLVHWC) for a, b in zip(together, alone, strict=True))
    backwards = replay(world, courses(4)[::-1])[::-1]
    assert all(torch.equal(a.frames_BLVHWC, b.frames_BLVHWC) for a, b in zip(together, backwards, strict=True))


def test_only_a_world_that_draws_row_by_row_is_given_batches() -> None:
    rows, one = RowWorld(), NoisyWorld()
    replay(rows, courses(5), together=3)
    replay(one, courses(5), together=3)
    assert rows.batches == [3, 2] and one.batches == [1] * 5


def test_a_world_that_takes_few_episodes_is_given_few() -> None:
    class Small(RowWorld):
        def most_episodes(self, tasks):
            return 2

    world = Small()
    replay(world, courses(5))
    assert world.batches == [2, 2, 1]


def test_other_noise_is_another_course() -> None:
    world = NoisyWorld(noise=50.0)
    first, again, other = (replay(world, courses(3, range(s, s + 3))) for s in (0, 0, 100))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.frames_BLVHWC, b.frames_BLVHWC) and not torch.equal(a.frames_BLVHWC, c.frames_BLVHWC)


def test_different_lengths_are_imagined_apart() -> None:
    mixed = [Course(task(0), CHUNKS[:n], torch.Generator().manual_seed(0)) for n in (1, 2, 1)]
    assert [step.frames_BLVHWC.shape[1] for step in replay(RowWorld(), mixed)] == [2, 4, 2]
    assert replay(RowWorld(), []) == []


def test_what_is_shown_again_keeps_all_but_what_was_shown() -> None:
    before = rollout(task(3), [1.0, 1.0])
    after = shown_again(before, replay(NoisyWorld(), [Course(before.task, (CHUNKS[0],), torch.Generator())])[0])
    assert after.frames_TVHWC[:, 0, 0, 0, 0].tolist() == [3, 8, 15]
    assert torch.equal(after.actions_NLA, before.actions_NLA) and after.task is before.task
    lost = shown_again(before, Step(before.frames_TVHWC[None, 1:], errors=("the simulator died",)))
    assert lost.error == "the simulator died"
    with pytest.raises(ConfigError, match="same cameras"):
        shown_again(before, Step(before.frames_TVHWC[None, 1:, :, :5]))


@pytest.fixture(scope="module")
def worldgym():
    args = {"image_size": [32, 32], "dim": 32, "layers": 1, "heads": 2, "patch_size": 8, "action_dim": 3, "window": 6}
    world = registries().world_models.build("worldgym", {**args, "robot_action_dim": 2, "denoising_steps": 2})
    # Fresh weights end in zeros, and show grey whatever the noise.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in world.network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return world


def test_worldgym_draws_its_noise_row_by_row(worldgym) -> None:
    starts = make_tasks(2, 32)
    chunks = tuple(torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)) * 0.02)

    def imagined(rows: list[int], seeds: list[int]) -> list[torch.Tensor]:
        made = [
            Course(starts[row], chunks, torch.Generator().manual_seed(s)) for row, s in zip(rows, seeds, strict=True)
        ]
        return [step.frames_BLVHWC[0].int() for step in replay(worldgym, made)]

    # Two episodes of one start have noise of their own; each is what it is alone, up to rounding.
    first, other, second = imagined([0, 0, 1], [7, 8, 9])
    assert (first - other).abs().float().mean() > 1
    for found, (row, seed) in zip((first, other, second), ((0, 7), (0, 8), (1, 9)), strict=True):
        assert (found - imagined([row], [seed])[0]).abs().max() <= 1
        state = worldgym.reset([starts[row]], generator=torch.Generator().manual_seed(seed))
        plain = torch.cat([worldgym.step(state, chunk[None]).frames_BLVHWC[0] for chunk in chunks])
        assert torch.equal(imagined([row], [seed])[0], plain.int())
