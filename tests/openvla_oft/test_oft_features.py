"""Features of frozen vision towers are computed once a frame, and reusing them changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from oft_cases import episodes, observation, seeing, small_config
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import ActionChunk, Observation
from gymnast_openvla_oft.features import FeatureStore
from gymnast_openvla_oft.openvla import OpenVLA
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.tuning import Tuning

FEATURES = 4 * 32 * 4
"""Bytes of one frame's features, float32."""


def policy(imitation: dict[str, Any] | None = None, images: int = 1, **train: Any) -> OpenVLAOFT:
    tuning = Tuning(**{"vision": "frozen", **train})
    return OpenVLAOFT(replace(small_config(**(imitation or {})), images=images, train=tuning)).eval()


def store(of: OpenVLAOFT) -> FeatureStore:
    assert of.store is not None
    return of.store


def acted(of: OpenVLAOFT, seen: Observation) -> ActionChunk:
    return of.act(seen, temperature=1.3, generator=torch.Generator().manual_seed(2))


def gradients(of: OpenVLAOFT, seen: Observation, chunk: ActionChunk) -> tuple[Tensor, dict[str, Tensor]]:
    found = of.evaluate(seen, chunk, temperature=1.3)
    log_prob, entropy = found.log_prob_BLD, found.entropy_BLD
    of.zero_grad()
    (log_prob.sum() + entropy.sum()).backward()
    return log_prob.detach(), {name: p.grad for name, p in of.named_parameters() if p.grad is not None}


def test_reuse_changes_neither_probabilities_nor_gradients() -> None:
    ours, plain = policy(images=2), policy(images=2, feature_store_mib=0)
    assert plain.store is None
    seen = observation(batch=4, views=2)
    chunk, expected = acted(ours, seen), acted(plain, seen)
    torch.testing.assert_close(chunk.log_prob_BLD, expected.log_prob_BLD, atol=1e-6, rtol=0)
    for _ in range(3):
        (log_prob, grads), (wanted, plain_grads) = (gradients(p, seen, chunk) for p in (ours, plain))
        assert torch.equal(log_prob, chunk.log_prob_BLD)
        torch.testing.assert_close(log_prob, wanted, atol=1e-6, rtol=0)
        assert grads.keys() == plain_grads.keys() and not any("vision_backbone" in name for name in grads)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, plain_grads[name], atol=1e-5, rtol=1e-4)
    assert store(ours).computed == 8


def test_what_is_learned_from_is_what_was_acted_on_also_under_autocast() -> None:
    """After a resume the store is empty: what it is filled with must not depend on who looks first."""
    warm, cold = policy(), policy()
    seen = observation(batch=3)
    chunk = acted(warm, seen)
    found = []
    for one in (warm, cold):
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            found.append(one.evaluate(seen, chunk, temperature=1.3).log_prob_BLD)
    assert torch.equal(*found) and store(cold).computed == 3
    assert torch.equal(acted(cold, seen).log_prob_BLD, chunk.log_prob_BLD)


def test_what_was_seen_alone_or_twice_is_computed_once() -> None:
    ours = policy()
    seen = observation(batch=3)
    twice = seeing(seen.latest_BVHWC[[0, 1, 0, 2, 1]], tuple(seen.instructions[i] for i in (0, 1, 0, 2, 1)))
    chunk = acted(ours, twice)
    assert store(ours).computed == 3 and store(ours).nbytes == 3 * FEATURES
    one = seeing(twice.latest_BVHWC[3:4], twice.instructions[3:4])
    part = ActionChunk(chunk.actions_BLA[3:4], chunk.log_prob_BLD[3:4], chunk.tokens_BLD[3:4])  # type: ignore[index]
    log_prob = ours.evaluate(one, part, temperature=1.3).log_prob_BLD
    torch.testing.assert_close(log_prob, part.log_prob_BLD, atol=1e-6, rtol=0)
    assert store(ours).computed == 3


def test_a_frame_counts_by_its_every_pixel_and_its_shape() -> None:
    ours = policy()
    seen = observation(batch=1)
    acted(ours, seen)
    changed = seen.latest_BVHWC.clone()
    changed[0, 0, -1, -1, -1] ^= 1
    acted(ours, replace(seen, images_BTVHWC=changed[:, None]))
    assert store(ours).computed == 2
    flat = torch.full((1, 1, 16, 16, 3), 7, dtype=torch.uint8)
    acted(ours, replace(seen, images_BTVHWC=flat[:, None]))
    acted(ours, replace(seen, images_BTVHWC=flat.view(1, 1, 1, 8, 32, 3)))
    assert store(ours).computed == 4


def test_the_bound_holds_and_the_oldest_go_first() -> None:
    kept = FeatureStore(2 * 12, torch.float32)
    towers = torch.nn.Linear(1, 1)
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1, 1).expand(4, 1, 1, 1, 3)
    asked: list[int] = []

    def compute(missing: Tensor) -> Tensor:
        asked.extend(missing[:, 0, 0, 0, 0].tolist())
        return missing[:, 0, 0].float()

    def look(*which: int) -> Tensor:
        features = kept.features(images[list(which)], towers, compute)
        assert kept.nbytes == 12 * len(kept) <= kept.limit
        return features[:, 0, 0]

    assert look(0, 1).tolist() == [0, 1]
    look(2)
    assert look(1, 2).tolist() == [1, 2] and asked == [0, 1, 2]
    look(0)
    look(1)
    assert asked[3:] == [0, 1]
    # One call may need more than there is room for.
    assert look(3, 2, 1, 0, 3).tolist() == [3, 2, 1, 0, 3]
    kept.limit = 11
    kept.clear()
    assert look(1, 2).tolist() == [1, 2] and len(kept) == 0 == kept.nbytes


def test_features_do_not_depend_on_what_else_is_unknown() -> None:
    """Bit for bit: with the store filled, empty, or filled by other batches, as after a resume."""
    ours, seen = policy(), observation(batch=5)
    together = ours.inputs(seen, 4).features_BPE
    store(ours).clear()
    for i in (3, 0):
        alone = ours.inputs(seeing(seen.latest_BVHWC[i : i + 1], seen.instructions[i : i + 1]), 4).features_BPE
        assert together is not None and alone is not None and torch.equal(alone[0], together[i])
    again = ours.inputs(seen, 4).features_BPE
    assert again is not None and torch.equal(again, together)


def test_other_devices_than_a_cpu_always_look_at_as_many_images() -> None:
    kept, asked = FeatureStore(10**6, torch.float32), []
    images = torch.arange(11, dtype=torch.uint8).view(11, 1, 1, 1, 1).expand(11, 1, 1, 1, 3)

    def compute(missing: Tensor) -> Tensor:
        asked.append(len(missing))
        return missing[:, 0, 0].float()

    towers = torch.nn.Linear(1, 1, device="meta")
    assert kept.features(images, towers, compute)[:, 0, 0].tolist() == list(range(11))
    assert asked == [8, 8] and kept.computed == len(kept) == 11


def test_rows_do_not_hold_the_memory_of_their_batch() -> None:
    ours = policy()
    acted(ours, observation(batch=3))
    assert all(row.untyped_storage().nbytes() == FEATURES for row in store(ours)._kept.values())


@pytest.mark.parametrize("how", ["written", "loaded", "replaced"])
def test_features_are_forgotten_when_the_towers_change(how: str) -> None:
    ours, seen = policy(), observation(batch=2)
    before = acted(ours, seen).log_prob_BLD
    name = "model.vision_backbone.featurizer.patch_embed.proj.weight"
    weight = ours.get_parameter(name)
    if how == "written":
        with torch.no_grad():
            weight.mul_(4.0)
    elif how == "loaded":
        ours.load_state_dict({**ours.state_dict(), name: weight.detach() * 4})
    else:
        weight.data = weight.data * 4
    after = acted(ours, seen).log_prob_BLD
    assert store(ours).computed == 4 and not torch.allclose(before, after, atol=1e-4)


def test_features_outlive_an_update_of_everything_else() -> None:
    ours, seen = policy(), observation(batch=2)
    chunk = acted(ours, seen)
    optimizer = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=1e-3)
    first, _ = gradients(ours, seen, chunk)
    optimizer.step()
    assert not torch.allclose(gradients(ours, seen, chunk)[0], first, atol=1e-4)
    assert store(ours).computed == 2


def test_coarser_features_act_and_learn_alike() -> None:
    ours, seen = policy(feature_dtype="bfloat16"), observation(batch=2)
    chunk = acted(ours, seen)
    assert store(ours).nbytes == FEATURES
    store(ours).clear()
    fresh = ours.evaluate(seen, chunk, temperature=1.3).log_prob_BLD
    kept = ours.evaluate(seen, chunk, temperature=1.3).log_prob_BLD
    assert torch.equal(fresh, kept)
    torch.testing.assert_close(fresh, chunk.log_prob_BLD, atol=1e-6, rtol=0)
    exact = acted(policy(), seen).log_prob_BLD
    assert not torch.equal(exact, chunk.log_prob_BLD)


def test_plain_openvla_reuses_them_too() -> None:
    config = small_config()
    ours = OpenVLA(
        OpenVLA.Config(architecture=config.architecture, imitation=config.imitation, train=Tuning(vision="frozen"))
    ).eval()
    seen = observation(batch=2)
    chunk = ours.act(seen, generator=torch.Generator().manual_seed(1))
    log_prob = ours.evaluate(seen, chunk).log_prob_BLD
    torch.testing.assert_close(log_prob, chunk.log_prob_BLD, atol=1e-5, rtol=0)
    assert ours.store is not None and ours.store.computed == 2


def test_imitation_keeps_only_frames_that_come_again() -> None:
    plain, jittered = policy(), policy({"color_jitter": 0.2})
    for ours, count in ((plain, 4), (jittered, 0)):
        for seed in (1, 1):
            ours.training_loss(episodes(), generator=torch.Generator().manual_seed(seed)).mean.backward()
        assert store(ours).computed == len(store(ours)) == count


def test_a_copy_of_the_policy_starts_empty() -> None:
    ours, seen = policy(), observation()
    acted(ours, seen)
    twin = copy.deepcopy(ours)
    assert len(store(twin)) == 0 and len(store(ours)) == 3
    assert torch.equal(acted(twin, seen).log_prob_BLD, acted(ours, seen).log_prob_BLD)


def test_towers_that_learn_or_read_the_instruction_are_computed_every_time() -> None:
    assert policy(vision="full").store is None
    film = OpenVLAOFT(replace(small_config(), film=True, train=Tuning(vision="frozen")))
    assert film.store is None


def test_bad_images_and_settings_are_one_clear_error() -> None:
    seen = observation()
    with pytest.raises(DataError, match="uint8 RGB"):
        policy().act(replace(seen, images_BTVHWC=seen.images_BTVHWC.float()))
    for options, message in (
        ({"vision": "frosen"}, "Did you mean 'frozen'"),
        ({"feature_dtype": "int8"}, "train.feature_dtype"),
        ({"feature_store_mib": -1}, "train.feature_store_mib is -1"),
        ({"lora_rank": -2}, "train.lora_rank is -2"),
        ({"lora_alpha": 0.0}, "train.lora_alpha is 0; it must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            policy(**options)
