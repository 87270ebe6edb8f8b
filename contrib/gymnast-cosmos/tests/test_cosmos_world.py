"""diffusers' real pipeline with random weights, rolled and refused."""

import dataclasses
import shutil

import pytest
import torch
from cosmos_checkpoints import SIZE, write_checkpoint
from diffusers import CosmosActionCondition
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.interfaces import Policy
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_world_model
from gymnast_core.types import ActionChunk, Observation, Task, one_camera
from PIL import Image
from safetensors.torch import load_file, save_file


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_task(name: str = "a", height: int = SIZE, width: int = SIZE, frames: int = 1) -> Task:
    pixels = torch.randint(0, 256, (frames, height, width, 3), generator=seeded(1), dtype=torch.uint8)
    return Task(name, "push the red block to the left", one_camera(pixels))


def bridge_actions(batch: int, length: int) -> torch.Tensor:
    return torch.rand(batch, length, 7, generator=seeded(2)) * 0.04 - 0.02


def test_it_keeps_the_contract(build):
    assert check_world_model(build(denoising_steps=1), image_size=SIZE)


class Descending(Policy):
    """Moves down by a centimetre a step, four steps a decision."""

    api_version = 2
    chunk_length, action_dim = 4, 7

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Nothing to say."""

    def __init__(self):
        super().__init__()
        self.config = self.Config()

    def act(self, observation: Observation, *, temperature: float = 1.0, generator: object = None) -> ActionChunk:
        actions_BLA = torch.tensor([0.0, 0.0, -0.01, 0.0, 0.0, 0.0, 1.0]).expand(len(observation.instructions), 4, 7)
        return ActionChunk(actions_BLA, torch.zeros(*actions_BLA.shape[:2], 1))

    def evaluate(self, observation, chunk, *, temperature=1.0):
        raise NotImplementedError


def test_a_policy_is_rolled_out_in_it(world):
    tasks = [make_task("a"), make_task("b")]
    rollouts = imagine(Descending(), world, tasks, horizon=8, temperature=0.0, generator=seeded(0))
    first, second = (rollout.view() for rollout in rollouts)
    assert first.shape == (9, SIZE, SIZE, 3) and torch.equal(first[0], second[0])
    assert not torch.equal(first[1:], second[1:])  # the same start and actions, other noise


def test_it_imagines_what_diffusers_pipeline_does(build):
    world = build(layout="native", statistics=None)
    task = make_task()
    moves = torch.rand(1, 4, 10, generator=seeded(3)) * 2 - 1
    state = world.reset([task], generator=seeded(0))
    state[0].generator.manual_seed(5)
    found = world.step(state, moves).frames_BLVHWC[:, :, 0]
    condition = CosmosActionCondition(
        mode="forward_dynamics",
        chunk_size=4,
        domain_name="bridge_orig_lerobot",
        resolution_tier=256,
        raw_actions=moves[0],
        image=Image.fromarray(task.view()[-1].numpy()),
        view_point="ego_view",
    )
    video = world.pipeline(
        task.instruction,
        action=condition,
        fps=5.0,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=seeded(5),
        output_type="np",
        enable_safety_check=False,
    ).video
    assert video.shape == (5, SIZE, SIZE, 3)
    wanted = torch.from_numpy(video[1:] * 255).round().to(torch.uint8)
    assert (found[0].int() - wanted.int()).abs().max() <= 1


def test_actions_instructions_and_noise_change_what_is_seen(world):
    task, actions = make_task(), bridge_actions(1, 4)

    def imagine(task: Task, actions: torch.Tensor, seed: int) -> torch.Tensor:
        return world.step(world.reset([task], generator=seeded(seed)), actions).frames_BLVHWC

    first = imagine(task, actions, 0)
    assert first.float().std() > 1
    for other in (
        imagine(task, -20 * actions, 0),
        imagine(dataclasses.replace(task, instruction="open the drawer"), actions, 0),
        imagine(task, actions, 1),
    ):
        assert not torch.equal(first, other)


def test_long_chunks_are_split_where_short_ones_would_end(build):
    split, task = build(max_chunk=4), make_task()
    actions = bridge_actions(1, 8)
    whole = split.step(split.reset([task], generator=seeded(0)), actions).frames_BLVHWC
    state = split.reset([task], generator=seeded(0))
    parts = [split.step(state, actions[:, part]).frames_BLVHWC for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(parts, dim=1))


def test_context_actions_turn_the_gripper_before_the_first_step(world):
    moves = torch.zeros(2, 7)
    moves[:, 4] = 0.25
    task = dataclasses.replace(make_task(frames=3), actions_TA=moves)
    (episode,) = world.reset([task])
    torch.testing.assert_close(episode.euler, torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64))


def test_frames_larger_than_the_tier_keep_their_size(build):
    wide = build(layout="native", statistics=None, denoising_steps=1)
    task = make_task(height=272, width=400)
    found = wide.step(wide.reset([task]), torch.zeros(1, 1, 10))
    assert found.frames_BLVHWC.shape == (1, 1, 1, 272, 400, 3)


def test_guidance_and_the_other_domains_run(build):
    pusht = build(domain="pusht", layout="native", statistics=None, guidance=3.0, view="third_person_view")
    found = pusht.step(pusht.reset([make_task()]), torch.zeros(1, 2, 2))
    assert pusht.action_dim == 2 and found.frames_BLVHWC.shape == (1, 2, 1, SIZE, SIZE, 3)


def test_mistakes_in_the_config_say_what_to_type(build, tmp_path):
    for args, message in (
        ({"checkpoint": str(tmp_path / "gone")}, "There is no folder"),
        ({"checkpoint": str(tmp_path)}, r"model_index\.json cannot be read"),
        ({"statistics": None}, "Layout bridge needs statistics"),
        ({"domain": "fractal"}, "set layout=native"),
        ({"domain": "fractl", "layout": "native"}, "fractal"),
        ({"domain": "hand_pose", "layout": "native", "statistics": None}, "width 57; the checkpoint takes up to 12"),
        ({"layout": "brigde"}, "Did you mean 'bridge'"),
        ({"resolution": 300}, "256, 480, 704, 720"),
        ({"initial_rotation": [0.0]}, "roll, pitch, yaw"),
        ({"max_chunk": 0}, "at least 1"),
        ({"device": "gpu7"}, "world_model.args.device=gpu7 cannot be used here"),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=message):
            build(**args)


def test_checkpoints_without_actions_or_weights_are_refused(build, checkpoint, tmp_path):
    mute = write_checkpoint(tmp_path / "mute", action_gen=False, action_dim=None)
    with pytest.raises(CheckpointError, match="was not trained with actions"):
        build(checkpoint=str(mute))
    other = shutil.copytree(checkpoint, tmp_path / "other")
    (other / "model_index.json").write_text('{"_class_name": "Cosmos2VideoToWorldPipeline"}')
    with pytest.raises(CheckpointError, match="holds a Cosmos2VideoToWorldPipeline"):
        build(checkpoint=str(other))
    partial = shutil.copytree(checkpoint, tmp_path / "partial")
    file = partial / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["action_modality_embed"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights"):
        build(checkpoint=str(partial))
    file.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be loaded as Cosmos 3"):
        build(checkpoint=str(partial))


def test_frames_and_actions_that_do_not_fit_are_refused(world):
    with pytest.raises(DataError, match="multiples of 8"):
        world.reset([make_task(height=SIZE + 1)])
    with pytest.raises(DataError, match="must have one size"):
        world.reset([make_task(), make_task(height=2 * SIZE)])
    two = make_task()
    two = dataclasses.replace(two, frames_TVHWC=two.frames_TVHWC.repeat(1, 2, 1, 1, 1), cameras=("a", "b"))
    with pytest.raises(DataError, match="shows the cameras a, b; Cosmos imagines one"):
        world.reset([two])
    with pytest.raises(DataError, match="No tasks"):
        world.reset([])
    state = world.reset([make_task()])
    with pytest.raises(DataError, match="Expected actions"):
        world.step(state, torch.zeros(2, 1, 7))
    with pytest.raises(DataError, match="6 dimensions"):
        world.step(state, torch.zeros(1, 1, 6))
