"""The public check of world models, on one whose noise belongs to each episode, and on what breaks a clause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gymnast_core import testing
from gymnast_core.config.ranges import Count
from gymnast_core.errors import ConfigError, ContractError, DataError
from gymnast_core.frames import Undecoded
from gymnast_core.interfaces import Component, Dataset, Optimizer, Policy, RewardModel, WorldModel
from gymnast_core.testing.contract import Contract, same_state
from gymnast_core.testing.making import COURSES, camera_names, make_group, make_rollouts, make_tasks, observe
from gymnast_core.types import Needs, Offers, Step, Task


class World(WorldModel):
    """Noise around the start frames, shifted by the first action; a reading is the sum of the actions."""

    api_version = 2
    action_dim = 3

    @dataclass(frozen=True)
    class Config:
        cameras: Count = 2
        """Cameras that a task shows."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self.device = torch.device("cpu")
        self.steps = 0

    @classmethod
    def offers(cls, config: Config) -> Offers:
        return Offers(config.cameras, proprio=1)

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> Any:
        seeds = torch.randint(1 << 30, (len(tasks),), generator=generator)
        return [
            {
                "frame": task.frames_TVHWC[-1].clone(),
                "sum": torch.zeros(1),
                "noise": torch.Generator().manual_seed(seed),
            }
            for task, seed in zip(tasks, seeds.tolist(), strict=True)
        ]

    def noise(self, generator: torch.Generator) -> int:
        return int(torch.randint(9, (1,), generator=generator))

    def step(self, state: Any, actions_BLA: Tensor) -> Step:
        if actions_BLA.shape[2] != self.action_dim:
            raise DataError("width")
        self.steps += 1
        frames = torch.empty(*actions_BLA.shape[:2], *state[0]["frame"].shape, dtype=torch.uint8)
        proprio = torch.empty(*actions_BLA.shape[:2], 1)
        for row, episode in enumerate(state):
            for place, action_A in enumerate(actions_BLA[row]):
                moved = episode["frame"].int() + self.noise(episode["noise"]) + int(action_A[0] * 50)
                episode["frame"] = frames[row, place] = moved.remainder(256).to(torch.uint8)
                episode["sum"] = proprio[row, place] = episode["sum"] + action_A.sum()
        return Step(frames, proprio, outcome_BL=(proprio[..., 0] > 0).float())

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "history": (1, [torch.tensor(float("nan"))])}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


def test_a_world_model_that_keeps_its_contract_passes() -> None:
    verified = testing.check_world_model(World)
    assert {
        "step shows what offers says: camera-1, camera-2; 1 readings",
        "outcomes are numbers in [0, 1], or NaN, after every action",
        "states alive at once are independent",
        "its state goes through a snapshot and back",
        "a new one continues from its state",
        "it takes parts that may be None, and may be closed twice",
    } <= set(verified)
    tasks = make_tasks(3, 16, cameras=("front", "wrist"), proprio_dim=1)
    assert len(testing.check_world_model(World(), tasks=tasks)) == len(verified)


def test_tasks_of_other_cameras_are_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="imagines 2 cameras, but the tasks show the camera"):
        testing.check_world_model(World(), tasks=make_tasks(2, 16, proprio_dim=1))


def changed(**methods: Any) -> type[World]:
    return type("Broken", (World,), {"__doc__": "Breaks one clause.", **methods})


def stepping(change: Callable[[Any, Any, Tensor], Step]) -> type[World]:
    return changed(step=lambda self, state, actions_BLA: change(self, state, actions_BLA))


def other_offer(*offered: Any) -> type[World]:
    return changed(offers=classmethod(lambda cls, config: Offers(*offered)))


def shared(self: Any, tasks: Any, *, generator: Any = None) -> Any:
    self.current = World.reset(self, tasks, generator=generator)
    return self.current


def cleared(self: World, state: Any, actions_BLA: Tensor) -> Step:
    found = World.step(self, state, actions_BLA)
    actions_BLA.zero_()
    return found


class Apart(World):
    """Draws the noise of each episode from its own generator."""

    def reset_apart(self, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> Any:
        return [
            state for task, own in zip(tasks, generators, strict=True) for state in self.reset([task], generator=own)
        ]


def first_for_all(self: World, tasks: Sequence[Task], *, generators: Sequence[torch.Generator]) -> Any:
    return self.reset(tasks, generator=generators[0])


def test_noise_of_their_own_is_checked_where_a_world_has_it() -> None:
    line = "episodes with noise of their own are what they are alone"
    assert line in testing.check_world_model(Apart()) and line not in testing.check_world_model(World())


def without_readings(self: World, state: Any, actions_BLA: Tensor) -> Step:
    return Step(World.step(self, state, actions_BLA).frames_BLVHWC)


def with_neighbours(self: World, state: Any, actions_BLA: Tensor) -> Step:
    """Frames that are brighter where several are made together."""
    found = World.step(self, state, actions_BLA)
    later = Undecoded(found.frames_BLVHWC // 2, lambda latents: latents + 9 * (latents.shape[1] > 1))
    return Step.showing(later, found.proprio_BLP, found.outcome_BL)


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (changed(noise=lambda self, generator: int(torch.randint(9, (1,)))), "randomness from `generator` only"),
        (
            changed(reset=shared, step=lambda self, state, actions: World.step(self, self.current, actions)),
            "states that do not influence each other",
        ),
        (stepping(cleared), "actions_BLA to be left as it was"),
        (
            stepping(lambda self, state, actions: World.step(self, state, actions[..., :3])),
            "a DataError for actions of width 4, not 3; got no error",
        ),
        (stepping(without_readings), r"the readings that it offers, after 1 actions, to be \(2, 1, 1\)"),
        (other_offer(2), "offers: expected the number of readings that step shows, not None"),
        (other_offer(2, 4), r"the readings that it offers, after 1 actions, to be \(2, 1, 4\) .*got \(2, 1, 1\)"),
        (other_offer(("wrist", "wrist"), 1), "by different names"),
        (changed(api_version=None), r"api_version: expected 2, said in the class .*; got None"),
        (changed(load_state_dict=lambda self, state: None), "a new one to continue from the state"),
        (
            changed(state_dict=lambda self: {"world": self}),
            "state_dict: expected nested dicts .*cannot hold state.world",
        ),
        (changed(reset_apart=first_for_all), "reset_apart: expected the frames that an episode has alone"),
        (stepping(with_neighbours), "undecoded frames to be the same whenever they are made; got a difference of 9"),
        (changed(attach=lambda self, parts: parts.tasks[1]), "attach: expected to take the parts of a run"),
        (lambda: object(), "not a WorldModel"),
    ],
)
def test_a_world_model_that_breaks_a_clause_is_caught(world: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        testing.check_world_model(world)


@pytest.mark.parametrize("interface", [WorldModel, Policy, RewardModel, Optimizer, Dataset])
def test_a_clause_is_named_where_it_is_written(interface: type[Component]) -> None:
    contract = Contract.__new__(Contract)
    contract.interface = interface
    for method in ("api_version", "Config", "config", "attach", "state_dict", "load_state_dict", "close"):
        assert contract.place(method) == f"gymnast_core.interfaces.Component.{method}"
    assert contract.place("nowhere") == f"gymnast_core.interfaces.{interface.__name__}"
    if interface is not Dataset and interface is not Optimizer:
        assert contract.place("save") == "gymnast_core.interfaces.Trainable.save"


def test_states_are_compared_by_what_they_hold() -> None:
    state = {"a": [1, 2.5, None, "x"], "b": {"t": torch.tensor([1.0, float("nan")])}, "n": float("nan")}
    assert same_state(state, {**state, "a": (1, 2.5, None, "x")})
    for other in (
        {**state, "a": [1, 2.5, None]},
        {**state, "b": {"t": torch.tensor([1.0, 2.0])}},
        {**state, "b": {"t": torch.tensor([1.0, float("nan")], dtype=torch.float64)}},
        {**state, "b": {"t": [1.0, float("nan")]}},
        {**state, "n": 0.0},
        {**state, "more": 1},
    ):
        assert not same_state(state, other) and not same_state(other, state)


# ---------------------------------------------------------------- what checks show to plugins


def test_made_up_tasks_have_any_cameras_readings_and_context() -> None:
    tasks = make_tasks(2, 8, cameras=("front", "wrist"), proprio_dim=3, context=4, action_dim=5)
    assert [task.frames_TVHWC.shape for task in tasks] == [(4, 2, 8, 8, 3)] * 2
    first = tasks[0]
    assert first.cameras == ("front", "wrist") and first.actions_TA is not None and first.proprio_TP is not None
    assert (first.actions_TA.shape, first.proprio_TP.shape) == ((3, 5), (4, 3))
    assert not torch.equal(tasks[0].frames_TVHWC, tasks[1].frames_TVHWC)
    plain = make_tasks(1, 8)[0]
    assert (plain.actions_TA, plain.proprio_TP, plain.cameras) == (None, None, ("camera",))
    assert (camera_names(1), camera_names(2), camera_names(("a",))) == (("camera",), ("camera-1", "camera-2"), ("a",))


def test_made_up_rollouts_go_a_share_of_the_way() -> None:
    (task,) = make_tasks(1, 8, cameras=2, proprio_dim=3)
    group = dict(zip(COURSES, make_group(task, 7, action_dim=2, chunks=2, chunk=4), strict=True))
    assert {rollout.group for rollout in group.values()} == {7}
    assert [rollout.outcome for rollout in group.values()] == [0.0, 0.0, 1.0, None]
    assert all(rollout.frames_TVHWC.shape == (9, 2, 8, 8, 3) for rollout in group.values())
    still, half, finished = (group[name] for name in ("still", "half-done", "finished"))
    assert torch.equal(still.frames_TVHWC[0], still.frames_TVHWC[-1]) and not bool(still.actions_NLA.any())
    assert not torch.equal(half.frames_TVHWC[3], half.frames_TVHWC[4])
    assert torch.equal(half.frames_TVHWC[4], half.frames_TVHWC[-1])
    assert bool((finished.actions_NLA > 0).all())
    assert finished.proprio_TP is not None and half.proprio_TP is not None
    assert bool((finished.proprio_TP[-1] > half.proprio_TP[-1]).all())
    courses = {course: make_rollouts([task], 2, course=course)[0] for course in COURSES}
    assert bool((courses["finished"].frames_TVHWC[-1] != courses["noise"].frames_TVHWC[-1]).any())


def test_an_observation_is_what_a_policy_needs() -> None:
    tasks = make_tasks(2, 8, cameras=("front", "wrist", "side"), proprio_dim=3, context=2)
    seen = observe(tasks, Needs(("side", "front"), history=3, proprio=3))
    assert seen.images_BTVHWC.shape == (2, 3, 2, 8, 8, 3) and seen.cameras == ("side", "front")
    assert seen.proprio_BTP is not None and seen.proprio_BTP.shape == (2, 3, 3)
    assert torch.equal(seen.images_BTVHWC[1, :, 0], tasks[1].frames_TVHWC[[0, 0, 1], 2])
    assert observe(tasks, Needs(3)).proprio_BTP is None
    with pytest.raises(ConfigError, match="gripper is lacking"):
        observe(tasks, Needs(("gripper",)))
