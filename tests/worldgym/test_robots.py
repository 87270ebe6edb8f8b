"""Robots' action spaces against the recorded harness, and their inverse."""

from __future__ import annotations

import math

import golden
import pytest
import torch
import worlds
from safetensors.torch import load_file

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import Task
from gymnast_episodes.images import resize
from gymnast_episodes.robots import names, robot
from gymnast_worldgym.world_model import WorldGym

MIXED = {"action_dim": 10, "robot_action_dim": None}


@pytest.mark.parametrize("case", golden.cases("rescale_bridge_action"), ids=lambda case: case["name"])
def test_bridge_actions_are_scaled_as_recorded(case: dict) -> None:
    bridge = robot("bridge").unit_range() if case["kwargs"] else robot("bridge")
    actions = torch.tensor(case["input"], dtype=getattr(torch, case["dtype"]))
    before = actions.clone()
    scaled = bridge.to_model(actions)
    assert scaled.dtype == torch.float32 and torch.equal(actions, before)
    golden.close(scaled, torch.tensor(case["output"], dtype=torch.float32), atol=1e-6)


@pytest.mark.parametrize("name", names())
def test_recorded_actions_come_back_exactly(name: str) -> None:
    space = robot(name)
    bound = torch.tensor([min(limit, 2.0) for limit in space.clip] + [1.0] * (10 - len(space.clip)))
    recorded = (torch.rand(200, 10, generator=worlds.generator()) * 2 - 1) * bound
    recorded[:, space.width :] = 0
    if space.open_above is not None:
        recorded[:, 6] = recorded[:, 6].sign()
    actions = space.from_model(recorded)
    assert actions.shape == (200, space.width)
    torch.testing.assert_close(space.to_model(actions), recorded[:, : space.width], atol=3e-7, rtol=1e-6)


def test_robot_units() -> None:
    metres = robot("bridge").from_model(torch.tensor([1.75, 0, 0, 0, 0, 1.4, 1.0, 0, 0, 0]))
    golden.close(metres, torch.tensor([0.05, 0, 0, 0, 0, 0.25, 0.0]), atol=1e-7)
    assert robot("bridge").from_model(torch.tensor([0, 0, 0, 0, 0, 0, -1.0]))[6] == 1
    libero = robot("libero").to_model(torch.tensor([1.0, -0.5, 2.0, 0.4, 0.1, 1.0, -1.0]))
    golden.close(libero, torch.tensor([1.75, -0.875, 1.75, 1.4, 0.35, 1.4, -1.0]), atol=1e-6)
    jaco = robot("jaco").to_model(torch.tensor([0.00096585, -0.00580069 + 0.09676983, 0, 0.3, 0, 0, 0.5]))
    golden.close(jaco, torch.tensor([0, 1, 0.00395066 / 0.11155209, 0, 0, 0, 0.5]), atol=1e-6)
    scales = {name: robot(name).to_model(torch.full((7,), 0.01))[[0, 3, 6]].tolist() for name in names()}
    assert scales["nyu"] == pytest.approx([0.2, 0.15, 0.01])
    assert scales["viola"] == pytest.approx([0.0175, 0.03, 0.01])
    assert scales["ur5"] == pytest.approx([1.0, 0.15, 0.01])
    assert scales["toto"] == pytest.approx([0.02, 0.01, 0.01])
    for raw in ("rt_1", "cable_routing", "roboturk"):
        assert scales[raw] == pytest.approx([0.01, 0.01, 0.01])
    assert robot("rt_1").width == 10 and robot("cable_routing").width == 6


def test_both_conventions_of_liberos_gripper_open_and_close_alike() -> None:
    """OpenVLA's evaluation in LIBERO (experiments/robot/robot_utils.py) makes a sign of 2 * gripper - 1 and turns it
    round for the controller, whose -1 opens: what `libero` takes of the controller, `libero_openvla` takes of the
    policy."""
    policy = torch.tensor([[0.3, -0.5, 0.1, 0.2, 0.1, -0.3, gripper] for gripper in (0.0, 0.2, 0.49, 0.51, 0.996, 1.0)])
    controller = policy.clone()
    controller[:, 6] = -torch.sign(2 * policy[:, 6] - 1)
    assert controller[:, 6].tolist() == [1, 1, 1, -1, -1, -1]
    expected = robot("libero").to_model(controller)
    golden.close(robot("libero_openvla").to_model(policy), expected, atol=0)
    world = worlds.world(**MIXED, robot="libero_openvla")
    golden.close(world.actions.to_model(policy)[:, :7], expected, atol=0)
    unit = robot("libero_openvla").unit_range(), robot("libero").unit_range()
    golden.close(unit[0].to_model(policy), unit[1].to_model(controller), atol=0)
    assert robot("libero_openvla").from_model(expected)[:, 6].tolist() == [0, 0, 0, 1, 1, 1]


def test_recordings_of_another_robot_are_data_errors() -> None:
    bridge = robot("bridge")
    with pytest.raises(DataError, match=r"Column 2 .* reaches 3; robot 'bridge' ends at 1.75"):
        bridge.from_model(torch.tensor([[0, -3.0, 0, 0, 0, 0, 1, 0, 0, 0]]))
    with pytest.raises(DataError, match="beyond the 7 of robot 'bridge'"):
        bridge.from_model(torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0, 0.5]))
    with pytest.raises(DataError, match="width 7, the recorded ones have 4"):
        bridge.from_model(torch.zeros(3, 4))
    with pytest.raises(ConfigError, match="Did you mean 'bridge'"):
        robot("brigde")
    with pytest.raises(ConfigError, match="No range is known for robot 'ur5'"):
        robot("ur5").unit_range()


def test_a_world_takes_the_actions_of_its_robot() -> None:
    model = worlds.world(**MIXED, robot="bridge")
    assert model.action_dim == 7
    expected = [1.75, 0, 0, 0, 0, -1.4, -1.0, 0, 0, 0]
    actions = torch.tensor([0.05, 0, 0, 0, 0, -0.3, 1.0])
    golden.close(model.actions.to_model(actions), torch.tensor(expected), atol=1e-6)
    unit = worlds.world(**MIXED, robot="bridge", unit_range=True)
    actions = torch.tensor([1.0, 0, 0, 0, 0, -2.0, 1.0])
    golden.close(unit.actions.to_model(actions), torch.tensor(expected), atol=1e-6)
    with pytest.raises(DataError, match="width 7, got 10"):
        model.actions.to_model(torch.zeros(10))
    start = model.actions.slots(torch.zeros(2, 7), 0, 3, "previous")
    assert start[0].tolist() == [0] * 10 and start[1, 6] == 1


def test_the_robot_is_stored_with_the_checkpoint(tmp_path) -> None:
    model = worlds.world(**MIXED, robot="bridge")
    model.save(tmp_path / "world")
    again = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world")))
    assert again.actions.robot == robot("bridge")
    task = Task("t", "", torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8))
    frames = [
        m.step(m.reset([task], generator=worlds.generator()), torch.ones(1, 2, 7)).frames_BLVHWC for m in (model, again)
    ]
    assert torch.equal(frames[0], frames[1])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"robot": "brigde"}, "Did you mean 'bridge'"),
        ({"robot": "bridge", "action_scale": [2.0]}, "already says how actions are scaled"),
        ({"robot": "bridge", "robot_action_dim": 7}, "already says how actions are scaled"),
        ({"robot": "bridge", "action_dim": 6}, "'bridge' has actions of width 7; .* action_dim 6"),
        ({"unit_range": True}, "No range is known for robot 'custom'"),
    ],
)
def test_robots_that_do_not_fit_are_config_errors(args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        worlds.world(**{**MIXED, **args})


@pytest.mark.parametrize(("name", "size"), [("resized_64", (64, 64)), ("resized_48x96", (48, 96))])
def test_frames_are_resized_as_the_training_data_was(name: str, size: tuple[int, int]) -> None:
    recorded = load_file(golden.ROOT / "dataset_resize.safetensors")
    frames = recorded["frames_uint8"]
    golden.close(resize(frames.float() / 255, size), recorded[name], atol=1e-6)
    rounded = resize(frames[None], size)
    assert rounded.dtype == torch.uint8 and rounded.shape == (1, 1, *size, 3)
    assert (rounded[0].float() / 255 - recorded[name]).abs().max() <= 0.5 / 255 + 1e-6
    assert resize(frames[0], size).shape == (*size, 3)
    assert resize(frames, (256, 256)) is frames


def test_clips_are_finite_or_absent() -> None:
    assert all(limit == math.inf or 0 <= limit <= 1.75 for name in names() for limit in robot(name).clip)
