"""The policy acts, scores, saves and loads as its contract says."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oft_cases import INSTRUCTIONS, observation, small_config
from omegaconf import OmegaConf
from safetensors import safe_open

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.testing import check_policy
from gymnast_core.types import Observation
from gymnast_openvla_oft.policy import OpenVLAOFT


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_chunks_have_the_contract_s_shapes_and_units(policy: OpenVLAOFT) -> None:
    chunk = policy.act(observation(), generator=seeded(0))
    assert chunk.actions_BLA.shape == chunk.log_prob_BLD.shape == chunk.tokens_BLD.shape == (3, 2, 2)
    assert chunk.actions_BLA.dtype == chunk.log_prob_BLD.dtype == torch.float32
    assert chunk.tokens_BLD.dtype == torch.int64
    assert (chunk.actions_BLA.abs() <= torch.tensor([0.02, 0.04])).all()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.6])
def test_evaluate_agrees_with_act(policy: OpenVLAOFT, temperature: float) -> None:
    chunk = policy.act(observation(), temperature=temperature, generator=seeded(0))
    log_prob, entropy = policy.evaluate(observation(), chunk, temperature=temperature)
    torch.testing.assert_close(log_prob.detach(), chunk.log_prob_BLD)
    assert log_prob.requires_grad and entropy.requires_grad
    assert entropy.shape == log_prob.shape
    assert (entropy > 0).all()


def test_a_seed_decides_the_actions_and_nothing_else_does(policy: OpenVLAOFT) -> None:
    before = torch.get_rng_state()
    first, again, other = (policy.act(observation(), generator=seeded(s)).tokens_BLD for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, OpenVLAOFT(small_config()).act(observation(), generator=seeded(1)).tokens_BLD)


def test_temperature_zero_is_the_most_likely_action(policy: OpenVLAOFT) -> None:
    greedy = policy.act(observation(), temperature=0.0)
    sampled = policy.act(observation(), generator=seeded(3))
    assert (greedy.log_prob_BLD >= sampled.log_prob_BLD).all()


def test_mixed_prompts_in_a_batch_do_not_influence_each_other(policy: OpenVLAOFT) -> None:
    together = policy.act(observation(), temperature=0.0)
    whole = observation()
    for i in range(3):
        alone = Observation(whole.images_BVHWC[i : i + 1], whole.instructions[i : i + 1])
        chunk = policy.act(alone, temperature=0.0)
        assert torch.equal(chunk.tokens_BLD[0], together.tokens_BLD[i])
        torch.testing.assert_close(chunk.log_prob_BLD[0], together.log_prob_BLD[i])


def test_several_views_and_other_image_sizes(policy: OpenVLAOFT) -> None:
    chunk = policy.act(observation(views=2, size=20), temperature=0.0)
    assert chunk.actions_BLA.shape == (3, 2, 2)


def test_instructions_and_images_both_matter(policy: OpenVLAOFT) -> None:
    seen = observation()
    log_prob = policy.act(seen, temperature=0.0).log_prob_BLD
    renamed = replace(seen, instructions=INSTRUCTIONS[::-1])
    darker = replace(seen, images_BVHWC=seen.images_BVHWC // 2)
    assert not torch.equal(policy.act(renamed, temperature=0.0).log_prob_BLD[0], log_prob[0])
    assert not torch.equal(policy.act(darker, temperature=0.0).log_prob_BLD, log_prob)


def test_from_scratch_checkpoint_survives_a_round_trip(policy: OpenVLAOFT, tmp_path: Path) -> None:
    policy.save(tmp_path / "saved")
    loaded = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "saved")))
    assert loaded.unnorm_key == "scratch"
    ours, theirs = (p.act(observation(), generator=seeded(4)) for p in (policy, loaded))
    assert torch.equal(ours.actions_BLA, theirs.actions_BLA)
    assert torch.equal(ours.log_prob_BLD, theirs.log_prob_BLD)


def test_published_layout_survives_a_round_trip(checkpoint: Path, tmp_path: Path) -> None:
    config = OpenVLAOFT.Config(checkpoint=str(checkpoint), unnorm_key="bridge_dataset")
    OpenVLAOFT(config).save(tmp_path / "saved")
    files = (checkpoint / "model.safetensors", tmp_path / "saved" / "model.safetensors")
    first, second = (safe_open(file, "pt") for file in files)
    assert set(first.keys()) == set(second.keys())
    for name in first.keys():  # noqa: SIM118
        assert torch.equal(first.get_tensor(name), second.get_tensor(name)), name
    reloaded = OpenVLAOFT(replace(config, checkpoint=str(tmp_path / "saved")))
    seen = observation(size=56)
    chunk = reloaded.act(seen, temperature=0.0)
    assert chunk.actions_BLA.shape == (3, 5, 7)
    assert torch.equal(chunk.actions_BLA, OpenVLAOFT(config).act(seen, temperature=0.0).actions_BLA)


def test_auxiliary_heads_are_trained_but_not_saved(tmp_path: Path) -> None:
    policy = OpenVLAOFT(small_config(auxiliary_points=2))
    assert any(name.startswith("auxiliary.") for name, _ in policy.module().named_parameters())
    policy.save(tmp_path)
    prefixes = ("vision_backbone.", "projector.", "language_model.")
    assert all(name.startswith(prefixes) for name in safe_open(tmp_path / "model.safetensors", "pt").keys())  # noqa: SIM118


def test_bfloat16_weights_give_float32_log_probabilities() -> None:
    policy = OpenVLAOFT(replace(small_config(), dtype="bfloat16"))
    chunk = policy.act(observation(), generator=seeded(0))
    assert chunk.log_prob_BLD.dtype == chunk.actions_BLA.dtype == torch.float32


def test_the_policy_keeps_its_contract(policy: OpenVLAOFT) -> None:
    check_policy(policy, image_size=16)


def test_config_is_a_structured_config() -> None:
    merged = OmegaConf.merge(
        OmegaConf.structured(OpenVLAOFT.Config),
        {"architecture": {"llm_width": 64}, "imitation": {"shift_pixels": 1}},
    )
    config = OmegaConf.to_object(merged)
    assert config.architecture.llm_width == 64


class TestErrors:
    def test_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no checkpoint directory"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "nowhere")))

    def test_missing_tokenizer(self, golden: Path) -> None:
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(golden / "tiny_ckpt")))

    def test_missing_weights(self, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match="holds neither"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))

    def test_truncated_weights(self, checkpoint: Path) -> None:
        os.truncate(checkpoint / "model.safetensors", 100_000)
        with pytest.raises(CheckpointError, match="truncated or corrupt"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))

    def test_weights_of_another_shape(self, checkpoint: Path) -> None:
        config = checkpoint / "config.json"
        config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))
        with pytest.raises(CheckpointError, match=r"but config\.json describes"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))

    def test_weights_of_another_depth(self, checkpoint: Path) -> None:
        config = checkpoint / "config.json"
        config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
        with pytest.raises(CheckpointError, match=r"lack language_model\.model\.layers\.2"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))

    def test_regression_head(self, checkpoint: Path) -> None:
        (checkpoint / "action_head--150000_checkpoint.pt").touch()
        with pytest.raises(CheckpointError, match="regression head"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint)))

    def test_unknown_dataset(self, checkpoint: Path) -> None:
        with pytest.raises(ConfigError, match="Did you mean 'bridge_dataset'"):
            OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(checkpoint), unnorm_key="bridge_datase"))

    def test_sizes_that_do_not_fit(self) -> None:
        config = small_config()
        with pytest.raises(ConfigError, match="does not divide image_size 20"):
            OpenVLAOFT(replace(config, architecture=replace(config.architecture, image_size=20)))

    @pytest.mark.parametrize("length", [0, -1])
    def test_empty_chunks(self, length: int) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            OpenVLAOFT(replace(small_config(), chunk_length=length))

    def test_chunk_without_tokens(self, policy: OpenVLAOFT) -> None:
        chunk = replace(policy.act(observation(), temperature=0.0), tokens_BLD=None)
        with pytest.raises(DataError, match="tokens are None"):
            policy.evaluate(observation(), chunk)

    def test_images_without_instructions(self, policy: OpenVLAOFT) -> None:
        with pytest.raises(DataError, match="one instruction an episode"):
            policy.act(replace(observation(), instructions=()))
