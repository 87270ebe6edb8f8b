"""The policy acts, scores, saves and loads as its contract says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oft_cases import INSTRUCTIONS, observation, seeing, small_config
from omegaconf import OmegaConf
from safetensors import safe_open

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.testing import check_policy
from gymnast_core.types import Observation
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning


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
    found = policy.evaluate(observation(), chunk, temperature=temperature)
    log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
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
        alone = seeing(whole.latest_BVHWC[i : i + 1], whole.instructions[i : i + 1])
        chunk = policy.act(alone, temperature=0.0)
        assert torch.equal(chunk.tokens_BLD[0], together.tokens_BLD[i])
        torch.testing.assert_close(chunk.log_prob_BLD[0], together.log_prob_BLD[i])


def test_several_views_and_other_image_sizes() -> None:
    policy = OpenVLAOFT(replace(small_config(), images=2))
    chunk = policy.act(observation(views=2, size=20), temperature=0.0)
    assert chunk.actions_BLA.shape == (3, 2, 2)
    with pytest.raises(DataError, match=r"shows 1 cameras .* the policy sees 2: .*policy\.args\.cameras"):
        policy.act(observation())


def test_instructions_and_images_both_matter(policy: OpenVLAOFT) -> None:
    seen = observation()
    log_prob = policy.act(seen, temperature=0.0).log_prob_BLD
    renamed = replace(seen, instructions=INSTRUCTIONS[::-1])
    darker = replace(seen, images_BTVHWC=seen.images_BTVHWC // 2)
    assert not torch.equal(policy.act(renamed, temperature=0.0).log_prob_BLD[0], log_prob[0])
    assert not torch.equal(policy.act(darker, temperature=0.0).log_prob_BLD, log_prob)


def test_from_scratch_checkpoint_survives_a_round_trip(policy: OpenVLAOFT, tmp_path: Path) -> None:
    policy.save(tmp_path / "saved")
    loaded = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "saved")))
    assert loaded.unnorm_key == "scratch"
    ours, theirs = (p.act(observation(), generator=seeded(4)) for p in (policy, loaded))
    assert torch.equal(ours.actions_BLA, theirs.actions_BLA)
    assert torch.equal(ours.log_prob_BLD, theirs.log_prob_BLD)


def test_auxiliary_heads_are_trained_but_not_saved(tmp_path: Path) -> None:
    policy = OpenVLAOFT(small_config(auxiliary_points=2))
    assert any(name.startswith("auxiliary.") for name, _ in policy.module().named_parameters())
    policy.save(tmp_path)
    prefixes = ("vision_backbone.", "projector.", "language_model.")
    assert all(name.startswith(prefixes) for name in safe_open(tmp_path / "model.safetensors", "pt").keys())  # noqa: SIM118


def test_points_are_of_the_frame_as_it_was_recorded() -> None:
    """A turn that labels do not follow would teach the wrong place."""
    with pytest.raises(ConfigError, match=r"auxiliary_points labels points .*preparation=libero turns it"):
        OpenVLAOFT(replace(small_config(auxiliary_points=2), preparation="libero"))
    OpenVLAOFT(replace(small_config(), preparation="libero"))


def test_bfloat16_weights_give_float32_log_probabilities() -> None:
    policy = OpenVLAOFT(replace(small_config(), dtype="bfloat16"))
    chunk = policy.act(observation(), generator=seeded(0))
    assert chunk.log_prob_BLD.dtype == chunk.actions_BLA.dtype == torch.float32


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_machine_decides_between_number_formats(
    fast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gymnast_openvla_oft.dtypes.is_bfloat16_fast", lambda device: fast)
    config = replace(small_config(auxiliary_points=1), dtype="auto", train=Tuning(vision="frozen"))
    policy = OpenVLAOFT(config)
    assert {parameter.dtype for parameter in policy.module().parameters()} == {dtype}


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
    @pytest.mark.parametrize(
        ("option", "value", "known"),
        [
            ("dtype", "float16", "auto, bfloat16, float32"),
            ("attention", "flash", "auto, eager, sdpa"),
            ("preparation", "rotated", "jpeg-lanczos, libero, none"),
            ("action_head", "l2", "l1, tokens"),
            ("golden", "warning", "error, off, warn"),
            ("action_bounds", "q98", "minmax, q99"),
        ],
    )
    def test_unknown_words(self, option: str, value: str, known: str) -> None:
        with pytest.raises(ConfigError, match=f"{value!r}.* Known: {known}"):
            OpenVLAOFT(replace(small_config(), **{option: value}))

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

    def test_half_a_character(self, policy: OpenVLAOFT) -> None:
        with pytest.raises(DataError, match="half a character"):
            policy.act(replace(observation(), instructions=("push \ud83d", "push", "open it")))

    def test_too_long_a_prompt(self, policy: OpenVLAOFT) -> None:
        seen = observation()
        policy.act(replace(seen, instructions=("push " * 1900,) * 3))
        with pytest.raises(DataError, match=r"is 2\d+ tokens long; .* has room for 2039"):
            policy.act(replace(seen, instructions=("push " * 2100,) * 3))

    @pytest.mark.parametrize("shape", [(3, 1, 16, 16, 4), (3, 1, 0, 16, 3), (3, 16, 16, 3)])
    def test_images_of_another_shape(self, policy: OpenVLAOFT, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="uint8 RGB images of shape"):
            policy.act(replace(observation(), images_BTVHWC=torch.zeros(shape, dtype=torch.uint8)[:, None]))


class TestProprioception:
    def build(self, **options: bool) -> OpenVLAOFT:
        config = small_config()
        architecture = replace(config.architecture, proprio_low=[-1.0, 0.0, 0.0], proprio_high=[1.0, 1.0, 2.0])
        return OpenVLAOFT(replace(config, architecture=architecture, **{"proprio": True, **options}))

    def observation(self) -> Observation:
        return replace(observation(), proprio_BTP=torch.rand(3, 1, 3, generator=seeded(2)))

    def test_it_matters_and_keeps_the_contract(self) -> None:
        policy, seen = self.build(), self.observation()
        moved = replace(seen, proprio_BTP=seen.proprio_BTP + 0.3)
        ours, others = (policy.act(o, temperature=0.0).log_prob_BLD for o in (seen, moved))
        assert not torch.equal(ours, others)
        check_policy(policy, image_size=16)

    def test_it_is_clipped_to_the_range_seen_in_training(self) -> None:
        policy, seen = self.build(), self.observation()
        far, farther = (replace(seen, proprio_BTP=torch.full((3, 1, 3), x)) for x in (5.0, 50.0))
        assert torch.equal(
            policy.act(far, temperature=0.0).log_prob_BLD, policy.act(farther, temperature=0.0).log_prob_BLD
        )

    def test_missing_or_of_another_width(self) -> None:
        policy = self.build()
        with pytest.raises(DataError, match="reads 3 proprioceptive values, and the observation has none"):
            policy.act(observation())
        with pytest.raises(DataError, match="proprioception has 2 dimensions, the policy's statistics 3"):
            policy.act(replace(observation(), proprio_BTP=torch.zeros(3, 1, 2)))
        with pytest.raises(DataError, match="one row of 3 an episode"):
            policy.act(replace(observation(), proprio_BTP=torch.zeros(2, 1, 3)))

    def test_without_statistics(self) -> None:
        with pytest.raises(ConfigError, match="needs statistics of proprioception"):
            OpenVLAOFT(replace(small_config(), proprio=True))


class TestRegressionHead:
    def test_it_acts_and_is_refused_for_reinforcement_learning(self) -> None:
        policy = OpenVLAOFT(replace(small_config(), action_head="l1"))
        chunk = policy.act(observation(), temperature=0.0)
        assert chunk.actions_BLA.shape == (3, 2, 2)
        assert chunk.tokens_BLD is None
        assert chunk.log_prob_BLD.shape == (3, 2, 1) and chunk.log_prob_BLD.isnan().all()
        with pytest.raises(ConfigError, match=r"cannot be sampled from: .* never supervised"):
            policy.act(observation(), temperature=1.0)
        with pytest.raises(ConfigError, match=r"cannot be trained by reinforcement learning: .* never supervised"):
            policy.evaluate(observation(), chunk)

    def test_new_film_changes_nothing_until_it_is_trained(self, policy: OpenVLAOFT) -> None:
        film = OpenVLAOFT(replace(small_config(), film=True))
        film.model.load_state_dict(policy.model.state_dict(), strict=False)
        ours, theirs = (p.act(observation(), temperature=0.0).log_prob_BLD for p in (policy, film))
        assert torch.equal(ours, theirs)
        film.model.vision_backbone.featurizer.blocks[0].scale.weight.data.fill_(0.01)
        assert not torch.equal(film.act(observation(), temperature=0.0).log_prob_BLD, ours)
