"""Tiny random weights, rolled and refused."""

import dataclasses

import pytest
import torch
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.interfaces import Policy
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_world_model
from gymnast_core.types import ActionChunk, Observation, Task, one_camera
from wan_checkpoints import SIZE, WIDTH

from gymnast_wan.window import open_window
from gymnast_wan.world_model import Wan


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_task(name: str = "a", height: int = SIZE, width: int = SIZE, frames: int = 1) -> Task:
    pixels = torch.randint(0, 256, (frames, height, width, 3), generator=seeded(1), dtype=torch.uint8)
    moves = None if frames == 1 else actions(1, frames - 1)[0]
    return Task(name, "push the red block to the left", one_camera(pixels), actions_TA=moves)


def actions(batch: int, length: int) -> torch.Tensor:
    return torch.rand(batch, length, WIDTH, generator=seeded(2)) * 2 - 1


def test_it_keeps_the_contract(build):
    verified = check_world_model(build(denoising_steps=1), image_size=SIZE)
    for clause in (
        "episodes with noise of their own are what they are alone",
        "training_loss adds up over any parts",
        "a saved world model loads as the same world model",
    ):
        assert clause in verified


def test_actions_noise_and_every_shown_frame_change_what_is_seen(world):
    task, moves = make_task(frames=7), actions(1, 4)

    def look(task: Task, moves: torch.Tensor = moves, seed: int = 0) -> torch.Tensor:
        return world.step(world.reset([task], generator=seeded(seed)), moves).frames_BLVHWC

    first = look(task)
    assert first.shape == (1, 4, 1, SIZE, SIZE, 3) and first.float().std() > 1
    others = [look(task, -moves), look(task, seed=1)]
    for index in range(7):
        shown = task.frames_TVHWC.clone()
        shown[index] = 255 - shown[index]
        others.append(look(dataclasses.replace(task, frames_TVHWC=shown)))
    changed = [not torch.equal(first, other) for other in others]
    # Of seven frames it is shown the first and the last four.
    assert changed == [True, True, True, False, False, True, True, True, True]


def test_the_first_frame_stays_and_the_last_ones_follow():
    frames = torch.arange(4, dtype=torch.uint8)[:, None, None, None]
    moves = torch.arange(1.0, 4.0)[:, None]
    window = open_window(frames, moves, torch.tensor([-1.0]), context=5)
    assert window.frames_CHWc.flatten().tolist() == [0, 0, 1, 2, 3]
    assert window.actions_CA.flatten().tolist() == [-1, -1, 1, 2, 3]
    window.advance(torch.tensor([7, 8], dtype=torch.uint8)[:, None, None, None], torch.tensor([[4.0], [5.0]]))
    assert window.frames_CHWc.flatten().tolist() == [0, 2, 3, 7, 8]
    assert window.actions_CA.flatten().tolist() == [-1, 2, 3, 4, 5]
    last = open_window(frames, moves, torch.tensor([-1.0]), context=1)
    assert last.frames_CHWc.flatten().tolist() == [3] and last.actions_CA.flatten().tolist() == [-1]


def test_long_chunks_are_split_where_chunks_end_and_short_ones_are_filled_up_with_their_last_action(world):
    task, moves = make_task(), actions(1, 8)
    whole = world.step(world.reset([task], generator=seeded(0)), moves).frames_BLVHWC
    state = world.reset([task], generator=seeded(0))
    parts = [world.step(state, moves[:, part]).frames_BLVHWC for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(parts, dim=1))
    filled = torch.cat([moves[:, :2], moves[:, 1:2], moves[:, 1:2]], dim=1)
    short, full = (
        world.step(world.reset([task], generator=seeded(0)), m).frames_BLVHWC for m in (moves[:, :2], filled)
    )
    assert torch.equal(short, full[:, :2])


def test_robot_units_become_the_models(build, world):
    scaled = build(action_scale=[2.0] * 6 + [-2.0], action_offset=[0.0] * 6 + [1.0])
    moves = actions(1, 4)
    given = torch.cat([moves[..., :6] / 2, (1 - moves[..., 6:]) / 2], dim=-1)
    task = make_task()
    frames = [w.step(w.reset([task]), m).frames_BLVHWC for w, m in ((world, moves), (scaled, given))]
    assert (frames[0].int() - frames[1].int()).abs().max() <= 1


class Descending(Policy):
    """Moves down by a centimetre a step, eight steps a decision."""

    api_version = 2
    chunk_length, action_dim = 8, WIDTH

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Nothing to say."""

    def __init__(self):
        super().__init__()
        self.config = self.Config()

    def act(self, observation: Observation, *, temperature: float = 1.0, generator: object = None) -> ActionChunk:
        actions_BLA = torch.tensor([0.0, 0.0, -0.01, 0.0, 0.0, 0.0, 1.0]).expand(
            len(observation.instructions), 8, WIDTH
        )
        return ActionChunk(actions_BLA, torch.zeros(*actions_BLA.shape[:2], 1))

    def evaluate(self, observation, chunk, *, temperature=1.0):
        raise NotImplementedError


def test_a_policy_is_rolled_out_in_it(world):
    tasks = [make_task("a"), make_task("b")]
    rollouts = imagine(Descending(), world, tasks, horizon=8, temperature=0.0, generator=seeded(0))
    first, second = (rollout.view() for rollout in rollouts)
    assert first.shape == (9, SIZE, SIZE, 3) and torch.equal(first[0], second[0])
    assert not torch.equal(first[1:], second[1:])  # the same start and actions, other noise


def test_mistakes_in_the_config_say_what_to_type(build, checkpoint, tmp_path):
    for args, message in (
        ({"checkpoint": str(tmp_path / "gone")}, "There is no folder or file"),
        ({"checkpoint": str(tmp_path)}, r"holds no checkpoint: there is no model\.safetensors"),
        ({"preset": "tine"}, "Did you mean 'tiny'"),
        ({"dim": 24}, "dim is 24, but the weights in .* have 12. Leave dim out"),
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"context": 4}, "takes 1, 5, 9"),
        ({"chunk": 6}, "multiple of 4"),
        ({"conditioning": "tokens"}, "conditioning is tokens, but the weights in .* have both"),
        ({"rest_action": [0.0]}, "rest_action has 1 numbers; the model's actions have 7"),
        ({"action_scale": [1.0, 2.0]}, "action_scale has 2 numbers"),
        ({"image_size": [32]}, "give height and width"),
        ({"dtype": "float16"}, "float32"),
        ({"dtype": "bfloat16", "compute_dtype": "float32"}, "set dtype=float32"),
        ({"device": "gpu7"}, "world_model.args.device=gpu7 cannot be used here"),
        ({"vae": str(checkpoint / "config.json")}, r"\.pth files of the autoencoder are not read"),
        ({"vae": "random", "seed": 1}, "is another autoencoder than the one on whose latents"),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=message):
            build(**args)
    with pytest.raises(ConfigError, match=r"Not known of preset wan2\.2-ti2v-5b: action_dim .*rest_action .*vae"):
        Wan(Wan.Config(preset="wan2.2-ti2v-5b"))


def test_frames_and_actions_that_do_not_fit_are_refused(world, build):
    with pytest.raises(DataError, match="multiples of 16"):
        world.reset([make_task(height=SIZE + 8)])
    with pytest.raises(DataError, match="must have one size"):
        world.reset([make_task(), make_task(height=2 * SIZE)])
    with pytest.raises(DataError, match="16 x 16 pixels; this Wan was trained on 256 x 256"):
        build(image_size=[256, 256]).reset([make_task()])
    two = make_task()
    two = dataclasses.replace(two, frames_TVHWC=two.frames_TVHWC.repeat(1, 2, 1, 1, 1), cameras=("a", "b"))
    with pytest.raises(DataError, match="shows the cameras a, b; Wan imagines one"):
        world.reset([two])
    with pytest.raises(DataError, match="3 context frames and 0 actions; 2 lead"):
        world.reset([dataclasses.replace(make_task(frames=3), actions_TA=None)])
    with pytest.raises(DataError, match="No tasks"):
        world.reset([])
    state = world.reset([make_task()])
    with pytest.raises(DataError, match="Expected actions"):
        world.step(state, torch.zeros(2, 1, 7))
    with pytest.raises(DataError, match="6 dimensions"):
        world.step(state, torch.zeros(1, 1, 6))
