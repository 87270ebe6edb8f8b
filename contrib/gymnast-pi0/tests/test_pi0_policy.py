"""The policy against transformers' own sampling, as a distribution, and as something that learns."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.interfaces import RewardModel, WorldModel
from gymnast_core.plugins.compose import registries
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_policy
from gymnast_core.testing.making import make_tasks
from gymnast_core.training import run
from gymnast_core.types import ActionChunk, Needs, Observation, Offers, Reward, Rollout, Step
from pi0_checkpoints import ACTION_DIM, CHUNK, STATE_DIM, STATISTICS, WIDTH
from safetensors.torch import load_file, save_file

from gymnast_pi0 import head
from gymnast_pi0.flow import initial_noise
from gymnast_pi0.policy import Pi0Policy


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated(observation: Observation, count: int) -> Observation:
    """The first row so many times."""
    return replace(
        observation,
        images_BTVHWC=observation.images_BTVHWC[:1].expand(count, -1, -1, -1, -1, -1),
        instructions=("go",) * count,
        proprio_BTP=observation.proprio_BTP[:1].expand(count, -1, -1),
    )


def test_it_acts_as_transformers_samples(build, observation):
    policy = build(noise_std=0.0, chunk_length=None)
    chunk = policy.act(observation, temperature=0)
    inputs = policy.inputs(observation)
    mean, std = (torch.tensor(STATISTICS["state"][k]) for k in ("mean", "std"))
    state = torch.zeros(2, WIDTH)
    state[:, :STATE_DIM] = (observation.latest_proprio_BP - mean) / (std + 1e-6)
    sampled = policy.model.sample_actions(
        state,
        inputs.ids_BS,
        inputs.pixels_BVCHW,
        noise=initial_noise([head.GREEDY_SEED] * 2, (CHUNK, WIDTH)),
        attention_mask=inputs.mask_BS,
        pixel_attention_mask=torch.ones(2, 2, dtype=torch.bool),
    )[..., :ACTION_DIM]
    mean, std = (torch.tensor(STATISTICS["actions"][k]) for k in ("mean", "std"))
    torch.testing.assert_close(chunk.actions_BLA, sampled * std + mean, atol=1e-5, rtol=1e-5)
    assert chunk.tokens_BLD is None and chunk.log_prob_BLD.isnan().all()
    again = policy.act(observation, temperature=1, generator=seeded(1)).actions_BLA
    other = policy.act(observation, temperature=1, generator=seeded(2)).actions_BLA
    assert not torch.equal(again, other)
    with pytest.raises(ConfigError, match="for evaluation only"):
        policy.evaluate(observation, chunk)


@pytest.mark.parametrize("args", [{"train": "expert"}, {"train": "all", "normalisation": "quantiles"}])
def test_it_keeps_the_contract_with_proprioception(build, args):
    verified = check_policy(build(**args), image_size=24)
    assert f"it is shown what it needs: 2 cameras, 1 frames, {STATE_DIM} readings" in verified
    assert "features are of the observation alone" in verified
    assert not any("matters to it" in line for line in verified)


def test_it_needs_what_config_and_statistics_say(build, checkpoint):
    def needs(**args):
        return Pi0Policy.needs(Pi0Policy.Config(**{"checkpoint": str(checkpoint), **args}))

    assert needs() == Needs(1, proprio=STATE_DIM)
    assert needs(images=3, proprio=False) == Needs(3)
    assert needs(cameras=["front", "wrist"], state_dim=2) == Needs(("front", "wrist"), proprio=2)
    # What the config tells needs no file.
    assert needs(checkpoint="/nowhere", proprio=False) == Needs(1)
    with pytest.raises(CheckpointError, match="There is no folder"):
        needs(checkpoint="/nowhere")
    with pytest.raises(DataError, match=r"shows 2 cameras, and this PI0 sees 1: .*cameras="):
        build(images=1).act(Observation(torch.zeros(1, 1, 2, 20, 30, 3, dtype=torch.uint8), ("go",), ("a", "b")))


def test_wrist_and_state_reach_it_from_rollout_to_update(build):
    """Imagined with three cameras of which it sees two in its own order, then scored as the update does."""
    policy = build(cameras=["wrist", "front"], images=None)
    tasks = make_tasks(2, 24, cameras=("front", "left", "wrist"), proprio_dim=STATE_DIM, action_dim=ACTION_DIM)
    rollouts = imagine(policy, Drifting(Nothing()), tasks, horizon=6, temperature=0.7, generator=seeded(1))
    needs = policy.needs(policy.config)

    def scored(made: list[Rollout]) -> torch.Tensor:
        seen, chunk = decisions(made, needs, torch.device("cpu"))
        with torch.no_grad():
            return policy.evaluate(seen, chunk, temperature=temperatures(made, torch.device("cpu"))).log_prob_BLD

    acted = torch.cat([rollout.log_prob_NLD for rollout in rollouts])
    torch.testing.assert_close(scored(rollouts), acted, atol=1e-4, rtol=0)

    def changed(camera: int) -> list[Rollout]:
        frames = [rollout.frames_TVHWC.clone() for rollout in rollouts]
        for each in frames:
            each[1:, camera] = 255 - each[1:, camera]
        return [replace(rollout, frames_TVHWC=each) for rollout, each in zip(rollouts, frames, strict=True)]

    def differs(made: list[Rollout]) -> list[bool]:
        gaps = (scored(made) - acted).abs().amax((1, 2)).reshape(2, 2)
        return [bool((gaps[:, n] > 1e-3).all()) for n in range(2)]

    # The first decision is made on the task's own frame, which stays.
    assert differs(changed(0)) == differs(changed(2)) == [False, True]
    assert differs(changed(1)) == [False, False]
    later = [
        replace(rollout, proprio_TP=rollout.proprio_TP * torch.tensor([[1.0]] + [[-1.0]] * 6)) for rollout in rollouts
    ]
    assert differs(later) == [False, True]


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A config without fields."""


class Drifting(WorldModel):
    """Each camera becomes brighter at its own pace, and the state grows."""

    api_version = 2
    Config = Nothing

    def __init__(self, config: Nothing) -> None:
        self.config, self.device = config, torch.device("cpu")

    @classmethod
    def offers(cls, config: Nothing) -> Offers:
        return Offers(("front", "left", "wrist"), STATE_DIM)

    def reset(self, tasks, *, generator=None):
        frames = torch.stack([task.frames_TVHWC[-1] for task in tasks])
        return {"frames": frames, "state": torch.stack([task.proprio_TP[-1] for task in tasks])}

    def step(self, state, actions_BLA):
        frames, readings = [], []
        for _ in range(actions_BLA.shape[1]):
            pace = torch.tensor([20, 30, 40], dtype=torch.uint8)[:, None, None, None]
            state["frames"] = state["frames"] + pace  # wraps around
            state["state"] = state["state"] + 0.3
            frames.append(state["frames"])
            readings.append(state["state"])
        return Step(torch.stack(frames, 1), torch.stack(readings, 1))


def test_training_it_as_published_is_refused_before_anything_is_imagined(checkpoint, tmp_path):
    registries().policies.register("pi0", Pi0Policy)
    with pytest.raises(ConfigError, match="for evaluation only"):
        run.train(load_config(RunConfig, "tabletop", [
            "policy=pi0", f"policy.args={{checkpoint: {checkpoint}, chunk_length: 2, proprio: false, noise_std: 0}}",
            "world_model=gymnasium", "reward_model=environment", "tasks.args={count: 2, image_size: 32}",
            "loop.horizon=4", "evaluation.tasks.args.count=1000000", f"output={tmp_path / 'run'}",
        ]))  # fmt: skip
    assert not list((tmp_path / "run").glob("rollouts*"))


def test_as_published_it_keeps_the_contract_of_policies_for_evaluation_only(build):
    verified = check_policy(build(noise_std=0.0, proprio=False), image_size=24)
    assert "evaluate refuses" in verified


def test_it_keeps_the_contract_in_worlds_that_measure_no_state(build):
    assert check_policy(build(proprio=False, attention="eager"), image_size=24)


def test_greedy_actions_are_the_mean_on_the_grid(build, observation):
    exact = build(noise_std=0.0).act(observation, temperature=0).actions_BLA
    found = build().act(observation, temperature=0).actions_BLA
    half_a_bin = torch.tensor(STATISTICS["actions"]["std"]) * head.BIN * 0.51
    assert ((found - exact).abs() <= half_a_bin).all()


def test_temperature_multiplies_the_variance(build, observation):
    policy = build(noise_std=0.4)
    many = repeated(observation, 200)
    chunk = policy.act(many, temperature=0.25, generator=seeded(0))
    decoded = head.decode(chunk.tokens_BLD)
    with torch.no_grad():
        inputs = policy.inputs(many)
        means = policy._mean(inputs, policy._prefix(inputs), decoded.seeds)
    spread = (head.centres(decoded.bins_BLA) - means).std()
    assert abs(spread.item() - 0.2) < 0.015
    assert len(set(decoded.seeds)) == 200 and means.std(0).min() > 0.01


def test_importance_ratios_average_to_one_under_changed_weights(build, observation):
    policy = build(noise_std=0.3, chunk_length=1, images=1)
    many = repeated(observation, 1500)
    many = replace(many, images_BTVHWC=many.images_BTVHWC[:, :, :1], cameras=("front",))
    chunk = policy.act(many, generator=seeded(3))
    with torch.no_grad():
        policy.model.action_out_proj.bias.add_(0.1)
        policy.log_std_A.sub_(0.1)
        log_prob = policy.evaluate(many, chunk).log_prob_BLD
    ratios = (log_prob - chunk.log_prob_BLD).exp()
    assert ratios.std() > 0.2
    torch.testing.assert_close(ratios.mean(0), torch.ones(1, ACTION_DIM), atol=0.05, rtol=0)


@pytest.mark.parametrize(("train", "learns"), [("expert", False), ("all", True)])
def test_gradients_go_where_training_is_wanted(build, observation, train, learns):
    policy = build(train=train)
    found = policy.evaluate(observation, policy.act(observation, generator=seeded(0)))
    assert found.features_BF.requires_grad == learns
    (found.log_prob_BLD.sum() + found.entropy_BLD.sum()).backward()
    reached = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"log_std_A", "model.action_out_proj.weight", "model.embed_action_time.state_proj.weight"} <= reached
    assert any(name.startswith("model.model.dit.layers.1.") for name in reached)
    assert any(name.startswith("model.model.vlm.vision_tower.") for name in reached) == learns


def test_policy_gradients_move_the_actions(build, observation):
    policy = build(noise_std=0.3)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=3e-3)
    goal = torch.tensor(STATISTICS["actions"]["mean"]) + 1.5 * torch.tensor(STATISTICS["actions"]["std"])
    many = replace(
        observation,
        images_BTVHWC=observation.images_BTVHWC.repeat(16, 1, 1, 1, 1, 1),
        instructions=observation.instructions * 16,
        proprio_BTP=observation.proprio_BTP.repeat(16, 1, 1),
    )

    def misses(chunk: ActionChunk) -> torch.Tensor:
        return ((chunk.actions_BLA - goal) / torch.tensor(STATISTICS["actions"]["std"])).square()

    before = misses(policy.act(observation, temperature=0)).mean()
    for step in range(30):
        chunk = policy.act(many, generator=seeded(step))
        reward = -misses(chunk)
        log_prob = policy.evaluate(many, chunk).log_prob_BLD
        optimizer.zero_grad()
        (-(reward - reward.mean(0)) * log_prob).mean().backward()
        optimizer.step()
    assert misses(policy.act(observation, temperature=0)).mean() < 0.5 * before


class TowardsTheRight(RewardModel):
    """The mean of the first action dimension, between 0 and 1."""

    api_version = 2

    @dataclasses.dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [Reward(rollout.actions_NLA[..., 0].mean().clamp(0, 1).item()) for rollout in rollouts]


def test_gymnast_train_updates_it_and_leaves_a_checkpoint(checkpoint, tmp_path):
    registries().policies.register("pi0", Pi0Policy)
    registries().reward_models.register("towards-the-right", TowardsTheRight)
    arguments = [
        "policy=pi0",
        f"policy.args={{checkpoint: {checkpoint}, chunk_length: 2, proprio: false}}",
        "world_model=gymnasium",
        "reward_model=towards-the-right",
        "optimizer=grpo",
        "optimizer.args={group_size: 4}",
        "tasks.name=tabletop",
        "tasks.args={split: reporting, first: 100000, count: 2, image_size: 32}",
        "loop.horizon=4",
        "loop.iterations=1",
        "trainer={accelerator: cpu}",
        f"output={tmp_path / 'run'}",
    ]
    result = CliRunner().invoke(cli, ["train", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] > 0
    trained, start = load_file(tmp_path / "run/policy/model.safetensors"), load_file(checkpoint / "model.safetensors")
    changed = {name for name in start if not torch.equal(trained[name], start[name])}
    assert "action_out_proj.weight" in changed and not any(".vlm." in name for name in changed)


@pytest.mark.parametrize(("learned", "used"), [([0.05, 0.5], [0.05, 0.5]), ([0.009, 1.1], [0.009511896, 1.048809])])
def test_the_learned_spread_is_saved(build, observation, tmp_path, learned, used):
    policy = build()
    with torch.no_grad():
        policy.log_std_A.copy_(torch.tensor(learned).log())
    policy.save(tmp_path / "saved")
    again = Pi0Policy(replace(policy.config, checkpoint=str(tmp_path / "saved")))
    for one in (policy, again):
        torch.testing.assert_close(one._std(1.0).float(), torch.tensor(used), rtol=1e-4, atol=0)
    chunk = policy.act(observation, generator=seeded(0))
    torch.testing.assert_close(again.act(observation, generator=seeded(0)).actions_BLA, chunk.actions_BLA)


def test_scale_and_offset_give_robot_units(build, observation):
    plain = build().act(observation, temperature=0).actions_BLA
    turned = build(action_scale=[1.0, -0.5], action_offset=[0.0, 0.5]).act(observation, temperature=0).actions_BLA
    torch.testing.assert_close(turned, plain * torch.tensor([1.0, -0.5]) + torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_relative_dimensions_are_added_to_the_measured_state(build, observation, noise_std):
    generator = torch.Generator().manual_seed
    absolute = build(noise_std=noise_std).act(observation, generator=generator(1))
    relative = build(noise_std=noise_std, relative_dims=[1]).act(observation, generator=generator(1))
    assert torch.equal(relative.actions_BLA[..., 0], absolute.actions_BLA[..., 0])
    state_B1 = observation.latest_proprio_BP[:, 1:2]
    torch.testing.assert_close(relative.actions_BLA[..., 1], absolute.actions_BLA[..., 1] + state_B1)
    torch.testing.assert_close(relative.log_prob_BLD, absolute.log_prob_BLD, equal_nan=True)
    scaled = build(noise_std=noise_std, relative_dims=[1], action_scale=[1, 2], action_offset=[0, 1])
    actions_BLA = scaled.act(observation, generator=generator(1)).actions_BLA
    torch.testing.assert_close(actions_BLA[..., 1], 2 * relative.actions_BLA[..., 1] + 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"relative_dims": [0], "proprio": False}, "proprio=false measures none"),
        ({"relative_dims": [2]}, "name dimensions from 0 to 1, each once: actions have 2, the state 3"),
        ({"relative_dims": [0, 0]}, "each once"),
    ],
)
def test_relative_dimensions_must_be_measured(build, args, message):
    with pytest.raises(ConfigError, match=message):
        build(**args)


def test_lerobots_layout_loads_as_the_same_policy(build, checkpoint, observation, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "lerobot")
    described = json.loads((folder / "config.json").read_text())
    del described["model_type"]
    (folder / "config.json").write_text(json.dumps({**described, "type": "pi0"}))
    renamed = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("embed_action_time.", "")
        name = name.replace("model.vlm.language_model.embed_tokens", "model.vlm_head")
        name = name.replace("model.vlm_head", "paligemma_with_expert.paligemma.lm_head")
        name = name.replace("model.dit.embed_tokens", "paligemma_with_expert.gemma_expert.lm_head")
        name = name.replace("model.vlm.", "paligemma_with_expert.paligemma.model.")
        renamed["model." + name.replace("model.dit.", "paligemma_with_expert.gemma_expert.model.")] = tensor
    save_file(renamed, folder / "model.safetensors")
    found = build(checkpoint=str(folder)).act(observation, temperature=0).actions_BLA
    torch.testing.assert_close(found, build().act(observation, temperature=0).actions_BLA)


def test_mistakes_in_the_config_say_what_to_type(build, checkpoint, tmp_path):
    for args, message in (
        ({"checkpoint": str(tmp_path / "gone")}, "There is no folder"),
        ({"train": "head"}, "Known: all, expert"),
        ({"noise_std": 0.001}, "must be 0 or lie in"),
        ({"chunk_length": CHUNK + 1}, f"predicts {CHUNK} actions"),
        ({"action_scale": [1.0]}, "one an action dimension"),
        ({"action_scale": [1.0, 0.0]}, "holds a 0"),
        ({"denoising_steps": 0}, "at least 1"),
        ({"images": 0}, "at least 1"),
        ({"cameras": ["front"]}, "Leave images out"),
        ({"cameras": ["front", "front"]}, "each camera once"),
        ({"action_dim": 3}, "set action_dim"),
        ({"tokenizer": str(tmp_path)}, "PaliGemma's tokenizer"),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=message):
            build(**args)


def test_broken_checkpoints_say_what_is_wrong(build, checkpoint, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    (other / "config.json").write_text('{"type": "pi05"}')
    with pytest.raises(CheckpointError, match="type 'pi05', not 'pi0'"):
        build(checkpoint=str(other))
    partial = shutil.copytree(checkpoint, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    del weights["action_out_proj.weight"]
    save_file(weights, partial / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of PI0, e\.g\. action_out_proj\.weight"):
        build(checkpoint=str(partial))
    (partial / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="cannot be loaded as PI0"):
        build(checkpoint=str(partial))
    stats = shutil.copytree(checkpoint, tmp_path / "stats")
    (stats / "norm_stats.json").write_text(json.dumps({"actions": STATISTICS["actions"]}))
    with pytest.raises(ConfigError, match="proprio=false"):
        build(checkpoint=str(stats))


def test_observations_and_chunks_that_do_not_fit_are_refused(build, observation):
    policy = build()
    chunk = policy.act(observation, generator=seeded(0))
    with pytest.raises(DataError, match="proprio=false"):
        policy.act(replace(observation, proprio_BTP=None))
    with pytest.raises(DataError, match=f"{STATE_DIM}"):
        policy.act(replace(observation, proprio_BTP=torch.zeros(2, 1, STATE_DIM + 1)))
    with pytest.raises(DataError, match="1 instructions"):
        policy.act(replace(observation, instructions=("go",)))
    with pytest.raises(DataError, match="uint8"):
        policy.act(replace(observation, images_BTVHWC=observation.images_BTVHWC.float()))
    with pytest.raises(DataError, match="tokens of its own chunks"):
        policy.evaluate(observation, replace(chunk, tokens_BLD=None))
