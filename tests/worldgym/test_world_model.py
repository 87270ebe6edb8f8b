"""WorldGym as a world model: what goes in, what comes out, and what it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import worlds
from omegaconf import OmegaConf

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.testing import check_world_model
from gymnast_core.types import Offers
from gymnast_worldgym.world_model import State, WorldGym


def imagine(model: WorldGym, seed: int = 0, count: int = 3, chunks: tuple[int, ...] = (4, 1, 3)) -> torch.Tensor:
    actions = torch.randn(count, sum(chunks), 3, generator=worlds.generator(9))
    state = model.reset(worlds.tasks(count), generator=worlds.generator(seed))
    return torch.cat([frames_of(model, state, chunk) for chunk in actions.split(chunks, dim=1)], dim=1)


def frames_of(model: WorldGym, state: State, actions_BLA: torch.Tensor) -> torch.Tensor:
    """The frames of one step, (B, L, H, W, C): WorldGym has one camera and knows neither readings nor outcomes."""
    step = model.step(state, actions_BLA)
    assert step.proprio_BLP is None and step.outcome_BL is None and step.frames_BLVHWC.shape[2] == 1
    return step.frames_BLVHWC[:, :, 0]


def test_it_offers_one_camera_as_the_tasks_call_it() -> None:
    assert WorldGym.offers(worlds.world().config) == Offers(cameras=1, proprio=None, actions=3)


@pytest.mark.parametrize(
    ("given", "width"),
    [
        ({}, None),  # any up to action_dim
        ({"robot_action_dim": 2}, 2),
        ({"robot": "bridge"}, 7),
        ({"preset": "bridge-v2"}, 7),
        ({"preset": "bridge-v2", "robot_action_dim": 6}, 6),
    ],
)
def test_it_offers_to_take_the_actions_of_its_robot(given: dict[str, Any], width: int | None) -> None:
    assert WorldGym.offers(WorldGym.Config(**given)).actions == width


def test_a_checkpoint_knows_its_robot(tmp_path: Path) -> None:
    worlds.world(robot_action_dim=2).save(tmp_path)
    config = WorldGym.Config(checkpoint=str(tmp_path))
    assert WorldGym.offers(config).actions == WorldGym(config).action_dim == 2


def test_frames_are_uint8_one_for_each_action() -> None:
    frames = imagine(worlds.world())
    assert frames.shape == (3, 8, 16, 16, 3)
    assert frames.dtype == torch.uint8


def test_the_same_seed_gives_the_same_frames_and_another_does_not() -> None:
    model = worlds.world(prediction="v", denoising_steps=3)
    assert torch.equal(imagine(model, seed=1), imagine(model, seed=1))
    assert not torch.equal(imagine(model, seed=1), imagine(model, seed=2))


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    model = worlds.world()
    imagine(model)
    model.training_loss(worlds.moving_dot(2), generator=worlds.generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_two_live_states_do_not_influence_each_other() -> None:
    model = worlds.world(prediction="v", denoising_steps=2)
    actions = torch.randn(2, 8, 3, generator=worlds.generator(4))
    alone = model.reset(worlds.tasks(2), generator=worlds.generator(1))
    expected = [frames_of(model, alone, chunk) for chunk in actions.split(2, dim=1)]
    one = model.reset(worlds.tasks(2), generator=worlds.generator(1))
    other = model.reset(worlds.tasks(4), generator=worlds.generator(2))
    for chunk, frames in zip(actions.split(2, dim=1), expected, strict=True):
        assert torch.equal(frames_of(model, one, chunk), frames)
        model.step(other, torch.randn(4, 3, 3))


def test_an_episode_does_not_depend_on_its_neighbours_actions() -> None:
    model = worlds.world(prediction="v", denoising_steps=2)
    actions = torch.randn(3, 4, 3, generator=worlds.generator(4))
    others = actions.clone()
    others[1:] = 5.0
    frames = [
        frames_of(model, model.reset(worlds.tasks(3), generator=worlds.generator(0)), a).int()
        for a in (actions, others)
    ]
    assert (frames[0][0] - frames[1][0]).abs().max() <= 1
    assert (frames[0][1:] - frames[1][1:]).abs().max() > 1


def test_a_chunk_longer_than_the_window_and_single_frame_horizons() -> None:
    model = worlds.world()
    assert imagine(model, chunks=(11,)).shape[1] == 11
    single = worlds.world(horizon=1)
    assert torch.equal(imagine(single, chunks=(4, 4)), imagine(single, chunks=(1,) * 8))


def test_context_frames_and_their_actions_matter() -> None:
    model = worlds.world()
    tasks = worlds.tasks(2, frames=3)
    still = [replace(task, actions_TA=torch.zeros(2, 3)) for task in tasks]
    none = [replace(task, actions_TA=None) for task in tasks]
    last = [replace(task, frames_TVHWC=task.frames_TVHWC[-1:], actions_TA=None) for task in tasks]
    action = torch.ones(2, 1, 3)
    starts = [model.reset(t, generator=worlds.generator()) for t in (tasks, still, none, last)]
    frames = [frames_of(model, state, action) for state in starts]
    assert torch.equal(frames[1], frames[2])
    assert not torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[1], frames[3])


def test_a_longer_context_than_the_window_keeps_its_end() -> None:
    model = worlds.world()
    task = worlds.tasks(1, frames=7)[0]
    assert task.actions_TA is not None

    def frames(**changed: torch.Tensor) -> torch.Tensor:
        state = model.reset([replace(task, **changed)], generator=worlds.generator())
        return frames_of(model, state, torch.ones(1, 1, 3))

    def changed_at(values: torch.Tensor, index: int) -> torch.Tensor:
        values = values.clone()
        values[index] = 1 - values[index]
        return values

    expected = frames()
    assert torch.equal(frames(frames_TVHWC=changed_at(task.frames_TVHWC, 2)), expected)
    assert torch.equal(frames(actions_TA=changed_at(task.actions_TA, 1)), expected)
    assert not torch.equal(frames(frames_TVHWC=changed_at(task.frames_TVHWC, 3)), expected)
    assert not torch.equal(frames(actions_TA=changed_at(task.actions_TA, 2)), expected)


def test_explicit_noise_is_asked_for_each_chunk() -> None:
    model = worlds.world(horizon=2)
    shapes, g = [], worlds.generator(1)

    def noise(shape: Sequence[int]) -> torch.Tensor:
        shapes.append(tuple(shape))
        return torch.randn(tuple(shape), generator=g)

    actions = torch.ones(2, 5, 3)
    frames = frames_of(model, model.start(worlds.tasks(2), noise), actions)
    assert shapes == [(2, 2, 16, 16, 3), (2, 2, 16, 16, 3), (2, 1, 16, 16, 3)]
    again = frames_of(model, model.reset(worlds.tasks(2), generator=worlds.generator(1)), actions)
    assert torch.equal(frames, again)


def test_actions_are_scaled_to_model_units_and_padded() -> None:
    model = worlds.world(action_scale=[2.0, 3.0, 4.0], action_offset=[0.0, 0.0, -1.0])
    assert model.actions.to_model(torch.ones(1, 3)).tolist() == [[2.0, 3.0, 3.0, 0.0]]
    assert model.actions.null.tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("alignment", "start", "expected"),
    [("previous", 0, [0, 1, 2]), ("previous", 2, [2, 3, 4]), ("same", 0, [1, 2, 3]), ("same", 2, [3, 4, 0])],
)
def test_slots_hold_the_action_before_or_at_the_frame(alignment: str, start: int, expected: list[int]) -> None:
    model = worlds.world(action_alignment=alignment)
    actions = torch.arange(1.0, 5.0)[:, None].expand(4, 3)
    assert model.actions.slots(actions, start, 3)[:, 0].tolist() == expected


def test_what_does_not_fit_is_a_data_error() -> None:
    model = worlds.world()
    state = model.reset(worlds.tasks(2))
    with pytest.raises(DataError, match="width 3, got 5"):
        model.step(state, torch.zeros(2, 1, 5))
    with pytest.raises(DataError, match="B=2"):
        model.step(state, torch.zeros(3, 1, 3))
    with pytest.raises(DataError, match="NaN"):
        model.step(state, torch.full((2, 1, 3), float("nan")))
    with pytest.raises(DataError, match=r"\(T, 16, 16, 3\), got torch.uint8 \(1, 8, 8, 3\)"):
        model.reset([replace(worlds.tasks(1)[0], frames_TVHWC=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))])
    two = replace(worlds.tasks(1)[0], frames_TVHWC=torch.zeros(1, 2, 16, 16, 3, dtype=torch.uint8), cameras=("a", "b"))
    with pytest.raises(DataError, match=r"one camera, got 2\. Choose one"):
        model.reset([two])
    with pytest.raises(DataError, match="equally many"):
        model.reset([worlds.tasks(1)[0], worlds.tasks(1, frames=2)[0]])
    with pytest.raises(DataError, match="No tasks"):
        model.reset([])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"prediction": "eps"}, "Known: change, flow, v, x0"),
        ({"rope": "pixle"}, "Did you mean 'pixel'"),
        ({"dim": 30}, "multiple of 4·heads"),
        ({"image_size": [16, 20]}, "multiples of patch_size"),
        ({"channels": 16}, "codec 'pixels' makes 3"),
        ({"window": 1}, "at least 2"),
        ({"denoising_steps": 0}, "denoising_steps is 0"),
        ({"stabilization_level": 1000}, "stabilization_level is 1000"),
        ({"compute_dtype": "float8"}, "compute_dtype.*float8"),
        ({"device": "gpu"}, "torch knows no such device"),
        ({"action_scale": [1.0, 2.0]}, "action_scale has 2 numbers"),
        ({"clean_fraction": 1.5}, "clean_fraction is 1.5"),
    ],
)
def test_bad_settings_are_config_errors(args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        worlds.world(**args)


def test_config_is_a_structured_config() -> None:
    merged = OmegaConf.merge(
        OmegaConf.structured(WorldGym.Config),
        {"image_size": [16, 16], "dim": 48, "pixel_weights": {"base": 1.0}},
    )
    config = OmegaConf.to_object(merged)
    assert config.pixel_weights.base == 1.0
    WorldGym(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_guided_and_bfloat16_worlds_imagine(dtype: str) -> None:
    assert imagine(worlds.world(guidance=3.0, compute_dtype=dtype)).shape == (3, 8, 16, 16, 3)


@pytest.mark.parametrize("args", [{}, {"prediction": "v", "denoising_steps": 3}, {"streaming": True}])
def test_the_public_contract(args: dict) -> None:
    check_world_model(worlds.world(**args))


def test_changes_are_denoised_frame_by_frame() -> None:
    sizes = {"image_size": [16, 16], "dim": 32, "heads": 2, "layers": 1, "prediction": "change", "denoising_steps": 2}
    with pytest.raises(ConfigError, match="Set horizon to 1"):
        WorldGym(WorldGym.Config(**sizes))
    WorldGym(WorldGym.Config(**sizes, horizon=1))
