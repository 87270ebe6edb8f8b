"""The check of world models finds what is wrong with a world of two cameras and a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from two_view_environment import CAMERAS, make_task

from gymnast_core.errors import ConfigError, ContractError
from gymnast_core.testing import check_world_model
from gymnast_core.types import Offers, Step
from gymnast_environment.view import View
from gymnast_environment.world import GymnasiumWorld

NAN = float("nan")


class Sealed:
    """A state that nobody can look into."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside
        self.steps = 0

    def __len__(self) -> int:
        raise AssertionError("nobody takes a state's length")

    def __bool__(self) -> bool:
        raise AssertionError("nobody asks a state")


class Broken(GymnasiumWorld):
    """What it shows is changed by `spoil(step, state)`."""

    Config = GymnasiumWorld.Config
    shown = Offers(CAMERAS, 3)

    def __init__(self, spoil: Callable[[Step, Sealed], Step]) -> None:
        super().__init__(
            self.Config(view=View({camera: camera for camera in CAMERAS}, proprio=["state"], proprio_dim=3))
        )
        self._spoil = spoil

    @classmethod
    def offers(cls, config: Any) -> Offers:
        return cls.shown

    def reset(self, tasks, *, generator=None):
        return Sealed(super().reset(tasks, generator=generator))

    def step(self, state, actions_BLA):
        step = super().step(state.inside, actions_BLA)
        state.steps += 1
        return self._spoil(step, state)


def check(world: GymnasiumWorld) -> list[str]:
    return check_world_model(world, tasks=[make_task(seed) for seed in range(3)], action_dim=2)


def test_an_opaque_state_is_left_alone() -> None:
    assert "its state goes through a snapshot and back" in check(Broken(lambda step, state: step))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda step, state: step.frames_BLVHWC, "a Step of gymnast_core.types; got Tensor"),
        (
            lambda step, state: replace(step, frames_BLVHWC=step.frames_BLVHWC[:, :, :1]),
            r"to be \(3, 1, 2, 12, 12, 3\)",
        ),
        (lambda step, state: replace(step, proprio_BLP=None), "the readings that it offers, after 1 actions"),
        (lambda step, state: replace(step, proprio_BLP=step.proprio_BLP[..., :2]), r"to be \(3, 1, 3\)"),
        (lambda step, state: replace(step, proprio_BLP=step.proprio_BLP * NAN), "to be finite"),
        (lambda step, state: replace(step, proprio_BLP=step.proprio_BLP.double()), "float32; got .*float64"),
        (lambda step, state: replace(step, proprio_BLP=step.proprio_BLP.flip(0)), "not to depend on its neighbours"),
        (lambda step, state: replace(step, outcome_BL=step.outcome_BL + 2), r"outcome_BL of 3 numbers in \[0, 1\]"),
        (lambda step, state: replace(step, outcome_BL=step.outcome_BL[:, 0]), r"outcome_BL after 1 actions to be"),
        (
            lambda step, state: replace(step, outcome_BL=None) if state.steps == 2 else step,
            "outcome_BL after every step, or after none",
        ),
    ],
)
def test_a_step_that_is_wrong(spoil: Callable[[Step, Sealed], Step], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check(Broken(spoil))


def test_outcomes_may_be_unknown() -> None:
    sound = check(Broken(lambda step, state: step))
    assert check(Broken(lambda step, state: replace(step, outcome_BL=step.outcome_BL * NAN))) == sound
    without = check(Broken(lambda step, state: replace(step, outcome_BL=None)))
    assert set(sound) - set(without) == {"outcomes are numbers in [0, 1], or NaN, after every action"}


@pytest.mark.parametrize(
    ("offers", "error", "message"),
    [
        (Offers(CAMERAS, None), ContractError, "offers: expected the number of readings that step shows, not None"),
        (Offers(("front",), 3), ContractError, r"to be \(3, 1, 1, 12, 12, 3\)"),
        (Offers(("front", "front"), 3), ContractError, "by different names"),
        (Offers(0, 3), ContractError, "one camera or more"),
        (Offers(("front", "back"), 3), ConfigError, "without back, no rollout can start"),
        (None, ContractError, "an Offers"),
    ],
)
def test_an_offer_that_is_not_kept(offers: Any, error: type[Exception], message: str) -> None:
    class Lying(Broken):
        """Says something else than it shows."""

        shown = offers

    with pytest.raises(error, match=message):
        check(Lying(lambda step, state: step))


def test_a_state_that_does_not_survive() -> None:
    class Forgetful(Broken):
        """Shows less after its state was loaded."""

        dark = False

        def load_state_dict(self, state):
            self.dark = True

    world = Forgetful(lambda step, state: step)
    world._spoil = lambda step, state: (
        replace(step, frames_BLVHWC=torch.zeros_like(step.frames_BLVHWC)) if world.dark else step
    )
    with pytest.raises(ContractError, match="load_state_dict: expected the same frames as before"):
        check(world)

    class Secretive(Broken):
        """Keeps what no snapshot can hold."""

        def state_dict(self):
            return {"inside": object()}

    with pytest.raises(ContractError, match="state_dict: expected nested dicts"):
        check(Secretive(lambda step, state: step))
