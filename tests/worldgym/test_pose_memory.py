"""Frames of before the window that are shown because the robot was near where it is going."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn
from worlds import generator, moving_dot, tasks, world

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.types import Episode, one_camera
from gymnast_worldgym.actions import ActionSpace
from gymnast_worldgym.architecture import Architecture, Sampling
from gymnast_worldgym.codec import PixelCodec
from gymnast_worldgym.facts import settle
from gymnast_worldgym.model import DiT
from gymnast_worldgym.pose_memory import History, PoseMemory
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process
from gymnast_worldgym.training import TrainingConfig, diffusion_loss, draw_clips, draw_times
from gymnast_worldgym.work import schedule
from gymnast_worldgym.world_model import WorldGym

REMEMBERING: dict[str, Any] = {"memory": 2, "memory_pose": [0, 1]}
NULL = torch.tensor([0.0, 0.0, 0.0, 1.0])


def walker(model: WorldGym, context: Tensor, slots: Tensor) -> Sampler:
    window, memory = model.architecture.window, model.architecture.pose_memory
    return Sampler(model.network, model.process, model.sampling, window, NULL, context, slots, memory=memory)


@pytest.mark.parametrize(
    "how",
    [
        {"denoising_steps": 3}, {"denoising_steps": 3, "guidance": 2.0, "action_dropout": 0.1},
        {"prediction": "change"}, {"prediction": "v", "memory_every": 3}, {"memory": 3},
    ],
)  # fmt: skip
def test_keeping_features_changes_nothing(how: dict[str, Any]) -> None:
    model = world(**{**REMEMBERING, "window": 7, **how})
    context, slots = torch.randn(2, 3, 16, 16, 3, generator=generator(1)), torch.zeros(2, 3, 4)
    chunks, g = (1, 2, 3, 1, 3, 2, 1, 1, 3), generator(2)
    noise = torch.randn(2, sum(chunks), 16, 16, 3, generator=g).split(chunks, dim=1)
    actions = torch.randn(2, sum(chunks), 4, generator=g).split(chunks, dim=1)
    walked = walker(model, context, slots)
    for chunk, given_noise in zip(actions, noise, strict=True):
        # From the same frames each time: small differences grow where frames are painted on frames.
        anew = copy.deepcopy(walked)
        anew.recompute = True
        kept = walked.extend(chunk, given_noise)
        torch.testing.assert_close(kept, anew.extend(chunk, given_noise), atol=5e-5, rtol=0)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12),
    st.integers(0, 12), st.integers(1, 4), st.integers(1, 3),
)  # fmt: skip
def test_the_nearest_of_those_before_are_chosen(
    moves: list[tuple[int, int]], first: int, frames: int, every: int
) -> None:
    first = min(first, len(moves))
    memory = PoseMemory(frames, (0, 2), every)
    slots = torch.tensor([(x, 99, y) for x, y in moves], dtype=torch.float32)[None]
    places = [(sum(x for x, _ in moves[: i + 1]), sum(y for _, y in moves[: i + 1])) for i in range(len(moves))]
    poses = memory.poses(slots)
    assert poses[0].tolist() == [list(map(float, place)) for place in places]
    found = memory.chosen(poses, first, poses[:, -1])[0].tolist()

    def distance(index: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(places[index], places[-1], strict=True))

    candidates = sorted(range(0, first, every), key=lambda index: (distance(index), index))[:frames]
    assert found == [0] * (frames - len(candidates)) + sorted(candidates)


def test_a_history_gives_back_the_frames_of_those_places() -> None:
    memory = PoseMemory(2, (0,), 2)
    frames = torch.arange(9.0)[None, :, None, None, None].expand(2, 9, 1, 1, 1)
    # One robot goes right all the time, the other turns back after the fourth step.
    moves = torch.tensor([[0.0, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, -1, -1, -1, -1]])[..., None]
    history = History(memory, frames[:, :3], moves[:, :3])
    history.add(frames[:, 3:7], moves[:, 3:7])
    shown, conditions = history.recalled(moves[:, 5:9], 2)
    # Of frames 0, 2 and 4, at 0, 2 and 4: the first robot ends at 8, the second one at 0.
    assert shown.flatten(1).tolist() == [[2, 4], [0, 2]]
    # No action, where it was against the end, and that it is remembered; then the window's actions and places.
    first = [[0, -6, 1], [0, -4, 1], [1, -3, 0], [1, -2, 0], [1, -1, 0], [1, 0, 0]]
    second = [[0, 0, 1], [0, 2, 1], [-1, 3, 0], [-1, 2, 0], [-1, 1, 0], [-1, 0, 0]]
    assert conditions.tolist() == [first, second]


class Watching(nn.Module):
    """Stands for the network: always paints 7, and keeps the frames and conditions of its last pass."""

    def __init__(self, change: bool = False) -> None:
        super().__init__()
        self.config = DiT.Config(channels=3, action_dim=4, pose_dim=2, layers=1, change=change)
        self.place = nn.Parameter(torch.zeros(1))
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        self.seen = x, conditions
        return torch.full_like(x[..., :3], 7.0)


class Walk:
    """An episode whose frames are their numbers, a clip of it, and the clip's last frame imagined after the others."""

    length, window, memory = 14, 6, PoseMemory(2, (0, 1), 1)

    def __init__(self) -> None:
        self.moves = torch.randn(self.length - 1, 3, generator=generator(4))
        numbers = torch.arange(self.length, dtype=torch.uint8)
        self.frames = numbers[:, None, None, None].expand(self.length, 16, 16, 3)
        self.actions = ActionSpace(Architecture(image_size=[16, 16], action_dim=4, robot_action_dim=3))
        episode = Episode("walk", "push", one_camera(self.frames), self.moves)
        (self.clip,) = draw_clips([episode], self.window, self.actions, [generator(8)], memory=self.memory)
        self.first = int(self.clip.frames_BTHWC[0, 2, 0, 0, 0])
        assert self.first > 3  # there is something to choose from
        self.last = self.first + self.window - 2 - 1

    def imagine_last(self, network: Watching, process: str) -> tuple[Tensor, Tensor]:
        slots = self.actions.slots(self.moves, 0, self.last, "previous")[None]
        sampler = Sampler(
            cast(DiT, network), noise_process(process, 0), Sampling(stabilization_level=0), self.window, NULL,
            self.frames[None, : self.last].float(), slots, recompute=True, memory=self.memory,
        )  # fmt: skip
        sampler.extend(self.actions.to_model(self.moves[self.last - 1 : self.last])[None], torch.zeros(1, 1, 16, 16, 3))
        assert network.seen is not None
        return network.seen


def test_what_is_imagined_with_is_what_was_trained_with() -> None:
    walk = Walk()
    shown, conditions = walk.imagine_last(Watching(), "flow")
    torch.testing.assert_close(conditions, walk.clip.actions_BTA)
    assert shown[0, :-1, 0, 0, 0].tolist() == walk.clip.frames_BTHWC[0, :-1, 0, 0, 0].tolist()


def test_each_frame_comes_with_the_one_before_it() -> None:
    """What is remembered with itself: nothing changed that is to be seen."""
    walk, network = Walk(), Watching(change=True)
    remembered = walk.clip.frames_BTHWC[0, :2, 0, 0, 0].tolist()
    before = [*remembered, *range(walk.first - 1, walk.last)]
    shown, _ = walk.imagine_last(network, "change")
    assert shown[0, :, 0, 0, 3].tolist() == before
    codec = PixelCodec()

    def trained(own_previous: float) -> list[float]:
        config = TrainingConfig(own_previous=own_previous)
        diffusion_loss(cast(DiT, network), noise_process("change", 0), codec, walk.actions, walk.clip, config)
        assert network.seen is not None
        return network.seen[0][0, :, 0, 0, 3].tolist()

    encoded = codec.encode(
        torch.tensor(before, dtype=torch.uint8)[:, None, None, None], lambda shape: torch.zeros(shape)
    )
    assert trained(0.0) == pytest.approx(encoded.flatten().tolist())
    # The network's own predictions, of the window's frames alone.
    assert trained(1.0) == pytest.approx([*encoded.flatten().tolist()[:3], 7, 7, 7])


def test_remembered_frames_are_nearly_clean_in_training() -> None:
    config = TrainingConfig(clean_fraction=0.0, pure_noise_fraction=1.0)
    times = draw_times(noise_process("x0", 14), 6, config, [generator(0)], remembered=2)
    assert times[0, :2].max() <= 28 and times[0, 2:].tolist() == [999] * 4


def test_all_of_a_long_context_can_be_remembered() -> None:
    model = world(**REMEMBERING)
    moves = torch.zeros(7, 3)
    moves[0, 0], moves[1:, 0] = 5.0, 1.0  # away from where it began
    (task,) = tasks(1, frames=8)
    frames = task.frames_TVHWC.clone()
    frames[0] = 255 - frames[0]
    shown = []
    for start in (task.frames_TVHWC, frames):
        state = model.reset([replace(task, frames_TVHWC=start, actions_TA=moves)], generator=generator())
        shown.append(model.step(state, torch.tensor([[[-11.0, 0.0, 0.0]]])).frames_BLVHWC)  # and back there
    assert not torch.equal(*shown)


def test_without_actions_nobody_knows_where_the_robot_was() -> None:
    (task,) = tasks(1, frames=4)
    unknown = replace(task, actions_TA=None)
    world().reset([unknown], generator=generator())
    with pytest.raises(DataError, match="4 context frames and 0 actions"):
        world(**REMEMBERING).reset([unknown], generator=generator())


def test_guidance_leaves_out_actions_and_no_poses() -> None:
    memory, network = PoseMemory(2, (0, 1), 1), Watching()
    context, slots = torch.zeros(1, 4, 16, 16, 3), torch.randn(1, 4, 4, generator=generator(3))
    sampling = Sampling(1, 2.0)
    sampler = Sampler(
        cast(DiT, network), noise_process("flow", 0), sampling, 6, NULL, context, slots, recompute=True, memory=memory
    )
    sampler.extend(torch.ones(1, 1, 4), torch.zeros(1, 1, 16, 16, 3))
    assert network.seen is not None
    conditional, unconditional = network.seen[1]
    assert torch.equal(conditional[:2], unconditional[:2]) and conditional[:, 4:6].any()
    assert unconditional[2:].tolist() == [[0, 0, 0, 1, 0, 0, 0]] * 4


def test_remembered_frames_are_shown_and_not_predicted() -> None:
    """The loss does not depend on them where the network does not look at them, and does where it does; whether or not
    it is told the actions."""
    model = world(**REMEMBERING, action_dropout=1.0)
    episodes = moving_dot(3, length=12)
    loss = model.training_loss(episodes, generator=generator())
    loss.total.backward()
    used = model.network.pose_embedder.weight.grad
    assert torch.isfinite(loss.total) and used is not None and used[:, -1].abs().max() > 0
    blind = world(**REMEMBERING)
    with torch.no_grad():
        for layer in blind.network.blocks:
            layer.temporal.out_proj.weight.zero_()
            layer.temporal.out_proj.bias.zero_()
    blind.training_loss(episodes, generator=generator()).total.backward()
    unused = blind.network.pose_embedder.weight.grad
    assert unused is not None and unused[:, -1].abs().max() == 0


@pytest.mark.parametrize("change", [False, True])
def test_it_learns_and_imagines(change: bool) -> None:
    how = {"prediction": "change", "own_previous": 0.5} if change else {}
    model = WorldGym(
        WorldGym.Config(
            image_size=[16, 16], patch_size=4, dim=32, layers=1, heads=2, action_dim=4, robot_action_dim=3, window=6,
            device="cpu", **REMEMBERING, **how,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.module().parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss = model.training_loss(moving_dot(8, length=12), generator=generator(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()) / loss.weight)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    state = model.reset(tasks(2, frames=4), generator=generator())
    assert model.step(state, torch.zeros(2, 9, 3)).frames_BLVHWC.shape == (2, 9, 1, 16, 16, 3)


def test_saved_weights_remember_how_they_remember(tmp_path: Path) -> None:
    model = world(**REMEMBERING, memory_every=2)
    model.save(tmp_path / "kept")
    again = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "kept"), device="cpu"))
    assert again.architecture == model.architecture
    starts, moves = tasks(2, frames=3), torch.randn(2, 7, 3, generator=generator(1))
    first, second = (one.step(one.reset(starts, generator=generator()), moves).frames_BLVHWC for one in (model, again))
    assert torch.equal(first, second)
    bare = tmp_path / "weights.safetensors"
    bare.write_bytes(save(load((tmp_path / "kept" / "model.safetensors").read_bytes())))
    facts = {"rope": "standard", "prediction": "x0", "denoising_steps": 1, "codec": "pixels"}
    with pytest.raises(CheckpointError, match="Set memory, and memory_pose to 2 action dimensions"):
        world(checkpoint=str(bare), **facts)


def test_checkpoints_of_before_there_was_a_memory(tmp_path: Path) -> None:
    model = world()
    model.save(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    about = json.loads(file.read_text())
    for key in ("memory", "memory_pose", "memory_every"):
        del about["architecture"][key]
    weights = load((tmp_path / "old" / "model.safetensors").read_bytes())
    (tmp_path / "old" / "model.safetensors").write_bytes(save(weights))
    file.write_text(json.dumps(about))
    assert WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "old"))).architecture == model.architecture


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"memory": 2}, "memory_pose is \\[\\]: give the action dimensions \\(0 to 2, each once\\)"),
        ({"memory": 2, "memory_pose": [0, 3]}, "memory_pose is \\[0, 3\\]"),
        ({"memory": 2, "memory_pose": [1, 1]}, "each once"),
        ({"memory": 4, "memory_pose": [0]}, "a window of 5 frames holds at most 3 remembered ones"),
        ({"memory_pose": [0]}, "no effect without memory"),
        ({"memory_every": 2}, "no effect without memory"),
        ({**REMEMBERING, "streaming": True}, "streaming keeps"),
        ({**REMEMBERING, "horizon": 3}, "at most 2 new ones beside 2 remembered ones and one of context"),
    ],
)
def test_what_cannot_be_remembered(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world(**args)


def test_its_cost_is_planned() -> None:
    model = world(**REMEMBERING, window=9)
    passes = schedule(settle(model.config, None), 8, 2)
    # Chunks of 2, a frame after the other: behind 2 remembered frames come 1, 3, 5 and again 5 of context, none of them
    # known when the first one is made; the first one is, when the second one is made.
    found = {one.kind.frames: (one.kind.commit, one.count) for one in passes}
    assert found == {4: (3, 1), 6: (5, 1), 8: (7, 2), 2: (1, 4)}
    assert WorldGym.work_plan(model.config, 8, 2, False)(3)["imagine"]
