"""The policy against transformers' own sampling, as a distribution, and as something that learns."""

import dataclasses
import json
import shutil
from collections.abc import Sequence

import pytest
import torch
from click.testing import CliRunner
from gymnast_core.cli import cli
from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.interfaces import RewardModel
from gymnast_core.plugins.compose import registries
from gymnast_core.testing import check_policy
from gymnast_core.training import run
from gymnast_core.types import ActionChunk, Observation, Reward, Rollout
from pi0_checkpoints import ACTION_DIM, CHUNK, STATE_DIM, STATISTICS, WIDTH
from safetensors.torch import load_file, save_file

from gymnast_pi0 import head
from gymnast_pi0.flow import initial_noise
from gymnast_pi0.policy import Pi0Policy


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_acts_as_transformers_samples(build, observation):
    policy = build(noise_std=0.0, chunk_length=None)
    chunk = policy.act(observation, temperature=0)
    inputs = policy.inputs(observation)
    mean, std = (torch.tensor(STATISTICS["state"][k]) for k in ("mean", "std"))
    state = torch.zeros(2, WIDTH)
    state[:, :STATE_DIM] = (observation.proprio_BP - mean) / (std + 1e-6)
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
    assert check_policy(build(**args), proprio_dim=STATE_DIM, image_size=24)


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
    many = Observation(observation.images_BVHWC[:1].expand(200, -1, -1, -1, -1), ("go",) * 200, None)
    many = dataclasses.replace(many, proprio_BP=observation.proprio_BP[:1].expand(200, -1))
    chunk = policy.act(many, temperature=0.25, generator=seeded(0))
    decoded = head.decode(chunk.tokens_BLD)
    with torch.no_grad():
        means = policy._mean(policy.inputs(many), decoded.seeds)
    spread = (head.centres(decoded.bins_BLA) - means).std()
    assert abs(spread.item() - 0.2) < 0.015
    assert len(set(decoded.seeds)) == 200 and means.std(0).min() > 0.01


def test_importance_ratios_average_to_one_under_changed_weights(build, observation):
    policy = build(noise_std=0.3, chunk_length=1)
    many = Observation(
        observation.images_BVHWC[:1].expand(1500, -1, -1, -1, -1)[:, :1],
        ("go",) * 1500,
        observation.proprio_BP[:1].expand(1500, -1),
    )
    chunk = policy.act(many, generator=seeded(3))
    with torch.no_grad():
        policy.model.action_out_proj.bias.add_(0.1)
        policy.log_std_A.sub_(0.1)
        log_prob, _ = policy.evaluate(many, chunk)
    ratios = (log_prob - chunk.log_prob_BLD).exp()
    assert ratios.std() > 0.2
    torch.testing.assert_close(ratios.mean(0), torch.ones(1, ACTION_DIM), atol=0.05, rtol=0)


@pytest.mark.parametrize(("train", "learns"), [("expert", False), ("all", True)])
def test_gradients_go_where_training_is_wanted(build, observation, train, learns):
    policy = build(train=train)
    log_prob, entropy = policy.evaluate(observation, policy.act(observation, generator=seeded(0)))
    (log_prob.sum() + entropy.sum()).backward()
    reached = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"log_std_A", "model.action_out_proj.weight", "model.embed_action_time.state_proj.weight"} <= reached
    assert any(name.startswith("model.model.dit.layers.1.") for name in reached)
    assert any(name.startswith("model.model.vlm.vision_tower.") for name in reached) == learns


def test_policy_gradients_move_the_actions(build, observation):
    policy = build(noise_std=0.3)
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=3e-3)
    goal = torch.tensor(STATISTICS["actions"]["mean"]) + 1.5 * torch.tensor(STATISTICS["actions"]["std"])
    many = dataclasses.replace(
        observation,
        images_BVHWC=observation.images_BVHWC.repeat(16, 1, 1, 1, 1),
        instructions=observation.instructions * 16,
        proprio_BP=observation.proprio_BP.repeat(16, 1),
    )

    def misses(chunk: ActionChunk) -> torch.Tensor:
        return ((chunk.actions_BLA - goal) / torch.tensor(STATISTICS["actions"]["std"])).square()

    before = misses(policy.act(observation, temperature=0)).mean()
    for step in range(30):
        chunk = policy.act(many, generator=seeded(step))
        reward = -misses(chunk)
        log_prob, _ = policy.evaluate(many, chunk)
        optimizer.zero_grad()
        (-(reward - reward.mean(0)) * log_prob).mean().backward()
        optimizer.step()
    assert misses(policy.act(observation, temperature=0)).mean() < 0.5 * before


class TowardsTheRight(RewardModel):
    """The mean of the first action dimension, between 0 and 1."""

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


def test_the_learned_spread_is_saved(build, observation, tmp_path):
    policy = build()
    with torch.no_grad():
        policy.log_std_A.copy_(torch.tensor([0.05, 0.5]).log())
    policy.save(tmp_path / "saved")
    again = Pi0Policy(dataclasses.replace(policy.config, checkpoint=str(tmp_path / "saved")))
    torch.testing.assert_close(again._std(1.0).float(), torch.tensor([0.05, 0.5]))
    chunk = policy.act(observation, generator=seeded(0))
    torch.testing.assert_close(again.act(observation, generator=seeded(0)).actions_BLA, chunk.actions_BLA)


def test_scale_and_offset_give_robot_units(build, observation):
    plain = build().act(observation, temperature=0).actions_BLA
    turned = build(action_scale=[1.0, -0.5], action_offset=[0.0, 0.5]).act(observation, temperature=0).actions_BLA
    torch.testing.assert_close(turned, plain * torch.tensor([1.0, -0.5]) + torch.tensor([0.0, 0.5]))


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
        policy.act(dataclasses.replace(observation, proprio_BP=None))
    with pytest.raises(DataError, match=f"{STATE_DIM}"):
        policy.act(dataclasses.replace(observation, proprio_BP=torch.zeros(2, STATE_DIM + 1)))
    with pytest.raises(DataError, match="1 instructions"):
        policy.act(dataclasses.replace(observation, instructions=("go",)))
    with pytest.raises(DataError, match="uint8"):
        policy.act(dataclasses.replace(observation, images_BVHWC=observation.images_BVHWC.float()))
    with pytest.raises(DataError, match="tokens of its own chunks"):
        policy.evaluate(observation, dataclasses.replace(chunk, tokens_BLD=None))
