"""What a rollout holds of a world that shows more, less or other things than the one that counts for everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from seeing import CAMERAS, CountingWorld, SeeingPolicy, frames, readings, task
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.rollouts.batch import decisions
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.rollouts.sight import find_sight, recent_indices
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import ActionChunk, Needs, Offers, Rollout, Step, Task

CPU = torch.device("cpu")
BLIND = SeeingPolicy.Config(proprio=False)
"""A policy that is not shown readings."""


def roll_out(
    policy: SeeingPolicy | None = None, world: CountingWorld | None = None, tasks: Sequence[Task] | None = None
) -> list[Rollout]:
    return imagine(
        policy or SeeingPolicy(BLIND),
        world or CountingWorld(),
        tasks or [task("a", 3), task("b", 20)],
        horizon=4,
        temperature=0.7,
        generator=seeded_generator(5, "noise"),
    )


class Numb(CountingWorld):
    """Offers readings and shows none."""

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        return replace(super().step(state, actions_BLA), proprio_BLP=None)


class Knowing(CountingWorld):
    """Knows how far an episode is from success: its step number in tenths, and nothing after step 3."""

    known = (True, True)
    """For each chunk, whether it says so."""

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> list[list[int]]:
        self.chunks = iter(self.known)
        return super().reset(tasks, generator=generator)

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        shown = super().step(state, actions_BLA)
        assert shown.proprio_BLP is not None
        steps_BL, places_BL = shown.proprio_BLP[..., 0], shown.proprio_BLP[..., 1]
        outcome_BL = torch.where(steps_BL > 3, torch.nan, steps_BL / 10 + (places_BL > 12).float() / 2)
        return replace(shown, outcome_BL=outcome_BL if next(self.chunks) else None)


class TestOutcomes:
    """What the world itself knows of success."""

    def test_each_rollout_has_its_own(self) -> None:
        first, second = roll_out(world=Knowing())
        for rollout, base in ((first, 0.0), (second, 0.5)):
            assert rollout.outcome_S is not None
            expected = torch.tensor([base + 0.1, base + 0.2, base + 0.3, torch.nan])
            torch.testing.assert_close(rollout.outcome_S, expected, equal_nan=True)
            assert rollout.outcome == pytest.approx(base + 0.3)

    def test_what_is_known_of_a_part_only_is_not_known(self) -> None:
        world = Knowing()
        world.known = (False, True)
        assert [rollout.outcome_S for rollout in roll_out(world=world)] == [None, None]
        assert [rollout.outcome_S for rollout in roll_out()] == [None, None]


class TestReadings:
    def test_of_tasks_that_begin_without_them_a_rollout_has_none(self) -> None:
        tasks = [replace(task("a", 3), proprio_TP=None)]
        (rollout,) = roll_out(tasks=tasks)
        assert rollout.proprio_TP is None
        observation, _ = decisions([rollout], SeeingPolicy(BLIND).needed, CPU)
        assert observation.proprio_BTP is None

    def test_a_rollout_that_has_them_can_be_of_a_task_that_has_not(self) -> None:
        (rollout,) = roll_out(tasks=[task("a", 3)])
        other = replace(rollout, task=replace(rollout.task, proprio_TP=None))
        observation, _ = decisions([other], SeeingPolicy(BLIND).needed, CPU)
        expected, _ = decisions([rollout], SeeingPolicy(BLIND).needed, CPU)
        assert torch.equal(observation.images_BTVHWC, expected.images_BTVHWC)

    def test_a_policy_that_needs_them_is_refused_where_the_tasks_have_none(self) -> None:
        with pytest.raises(ConfigError, match="the tasks begin with no proprioception"):
            find_sight(Needs(3, proprio=2), Offers(CAMERAS, 2), replace(task("a", 1), proprio_TP=None))

    def test_a_world_that_does_not_keep_its_offer_is_named(self) -> None:
        with pytest.raises(DataError, match="policy needs 2 proprioceptive readings, and the world shows none"):
            roll_out(SeeingPolicy(), Numb())


class Speechless(SeeingPolicy):
    """Decides without tokens."""

    def act(self, *args: Any, **kwargs: Any) -> ActionChunk:
        return replace(super().act(*args, **kwargs), tokens_BLD=None)


def test_decisions_without_tokens_stay_without() -> None:
    policy = Speechless(BLIND)
    rollouts = roll_out(policy)
    assert [rollout.tokens_NLD for rollout in rollouts] == [None, None]
    _, chunk = decisions(rollouts, policy.needed, CPU)
    assert chunk.tokens_BLD is None
    assert chunk.actions_BLA.shape == (4, 2, 1)


class TestCameras:
    @dataclass(frozen=True)
    class Config:
        cameras: tuple[str, ...] = ("left", "front")

    class Turned(CountingWorld):
        """Shows the cameras of its config, in their order."""

        @classmethod
        def offers(cls, config: Any) -> Offers:
            return Offers(config.cameras, proprio=2)

        def step(self, state: Any, actions_BLA: Tensor) -> Step:
            shown = super().step(state, actions_BLA)
            places = [CAMERAS.index(camera) for camera in self.config.cameras]  # type: ignore[attr-defined]
            return replace(shown, frames_BLVHWC=shown.frames_BLVHWC[:, :, places])

    def test_the_start_is_shown_in_the_worlds_order(self) -> None:
        sight = find_sight(Needs(("front",), 2), Offers(("left", "front")), task("a", 3))
        frames_TVHWC, proprio_TP = sight.start(task("a", 3))
        assert torch.equal(frames_TVHWC, torch.stack([frames(step, 3)[[1, 0]] for step in (-1, 0)]))
        assert proprio_TP is not None and torch.equal(proprio_TP, torch.stack([readings(step, 3) for step in (-1, 0)]))

    def test_a_rollout_holds_what_the_world_shows_and_decisions_what_the_policy_saw(self) -> None:
        policy = SeeingPolicy(SeeingPolicy.Config(cameras=("front",)))
        world = self.Turned(self.Config())  # type: ignore[arg-type]
        rollouts = roll_out(policy, world)
        for rollout in rollouts:
            assert rollout.cameras == ("left", "front")
            assert (rollout.frames_TVHWC[:, :, 0, 0, 0] == torch.tensor([2, 1])).all()  # which camera a picture is of
        observation, _ = decisions(rollouts, policy.needed, CPU)
        assert observation.cameras == policy.shown[0].cameras == ("front",)
        assert torch.equal(observation.images_BTVHWC[0], policy.shown[0].images_BTVHWC[0])

    def test_tasks_of_one_batch_that_show_different_ones_are_named(self) -> None:
        odd = task("b", 20)
        odd = replace(odd, frames_TVHWC=odd.frames_TVHWC[:, :2], cameras=("front", "left"))
        said = "The tasks 'a' and 'b' of one batch show different cameras: front, left, wrist and front, left."
        with pytest.raises(DataError) as refused:
            roll_out(tasks=[task("a", 3), odd])
        assert str(refused.value) == said

    @pytest.mark.parametrize(("shown", "said"), [(("front",), "the camera front:"), (("a", "b"), "the cameras a, b:")])
    def test_one_is_no_plural(self, shown: tuple[str, ...], said: str) -> None:
        pictures = torch.zeros(1, len(shown), 2, 2, 3, dtype=torch.uint8)
        with pytest.raises(ConfigError, match=said):
            find_sight(Needs(("hand",)), Offers(shown), Task("a", "go", pictures, shown))


@pytest.mark.parametrize(
    ("index", "history", "found"), [(3, 1, [3]), (3, 2, [2, 3]), (1, 4, [0, 0, 0, 1]), (0, 3, [0, 0, 0])]
)
def test_the_recent_frames_are_as_many_as_the_policy_sees(index: int, history: int, found: list[int]) -> None:
    assert recent_indices(index, history).tolist() == found
