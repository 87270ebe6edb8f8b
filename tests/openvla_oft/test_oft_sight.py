"""What the policy sees of a world of three cameras and two readings is what it is scored on, camera by camera."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from counting_world import CAMERAS, CountingWorld, task
from oft_cases import INSTRUCTIONS, small_config
from torch import Tensor

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.rollouts.batch import decisions, temperatures
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_policy
from gymnast_core.types import Needs, Observation, Rollout
from gymnast_openvla_oft.openvla import OpenVLA
from gymnast_openvla_oft.policy import OpenVLAOFT

CPU = torch.device("cpu")
HORIZON = 6


def config(**options: object) -> OpenVLAOFT.Config:
    """Three images of 32 pixels and two readings."""
    made = small_config()
    architecture = replace(made.architecture, image_size=32, proprio_low=[-1.0, -1.0], proprio_high=[1.0, 1.0])
    return replace(made, **{"architecture": architecture, "proprio": True, "cameras": list(CAMERAS), **options})


def rolled_out(policy: OpenVLAOFT, temperature: float = 1.0) -> list[Rollout]:
    tasks = [task(str(i), INSTRUCTIONS[i], 0.01 * i) for i in range(3)]
    generator = torch.Generator().manual_seed(3)
    return imagine(policy, CountingWorld(), tasks, horizon=HORIZON, temperature=temperature, generator=generator)


def scored(policy: OpenVLAOFT, rollouts: list[Rollout], change: Observation | None = None) -> Tensor:
    """Log-probabilities of the rollouts' decisions, as the update computes them."""
    observation, chunk = decisions(rollouts, policy.needed, CPU)
    with torch.no_grad():
        found = policy.evaluate(change or observation, chunk, temperature=temperatures(rollouts, CPU))
    assert found.features_BF is not None and found.features_BF.dtype == torch.float32
    assert found.features_BF.shape == (len(chunk.actions_BLA), policy.model.shape.llama.hidden_size)
    return found.log_prob_BLD


@pytest.mark.parametrize("cameras", [list(CAMERAS), ["wrist", "front", "left"], None])
def test_the_update_scores_what_was_seen(cameras: list[str] | None) -> None:
    """Rollouts that were sampled at two temperatures, in one batch."""
    policy = OpenVLAOFT(config(cameras=cameras, images=3)).eval()
    rollouts = rolled_out(policy, 1.0) + rolled_out(policy, 0.6) + rolled_out(policy, 0.0)
    acted = torch.cat([rollout.log_prob_NLD for rollout in rollouts])
    torch.testing.assert_close(scored(policy, rollouts), acted, atol=1e-5, rtol=0)
    for row in (8, 0, 4):
        alone = scored(policy, [rollouts[row]])
        torch.testing.assert_close(alone, rollouts[row].log_prob_NLD, atol=1e-5, rtol=0)


def test_the_policy_is_shown_the_current_pictures_in_its_order() -> None:
    policy = OpenVLAOFT(config(cameras=["wrist", "front"])).eval()
    (rollout, *_), views = rolled_out(policy), [2, 0]
    observation, _ = decisions([rollout], policy.needed, CPU)
    assert observation.cameras == ("wrist", "front")
    # A decision every two actions.
    assert torch.equal(observation.latest_BVHWC, rollout.frames_TVHWC[[0, 2, 4]][:, views])
    assert rollout.proprio_TP is not None and observation.latest_proprio_BP is not None
    assert torch.equal(observation.latest_proprio_BP, rollout.proprio_TP[[0, 2, 4]])
    inputs = policy.inputs(observation, 4)
    assert inputs.pixels_BVCHW is not None and inputs.pixels_BVCHW.shape == (3, 2, 6, 32, 32)
    assert torch.equal(inputs.pixels_BVCHW, policy.processor.images(observation.latest_BVHWC))


@pytest.mark.parametrize("what", [*CAMERAS, "proprioception", "order"])
def test_each_camera_and_the_readings_matter(what: str) -> None:
    policy = OpenVLAOFT(config()).eval()
    rollouts = rolled_out(policy)
    seen, _ = decisions(rollouts, policy.needed, CPU)
    images, proprio = seen.images_BTVHWC.clone(), seen.proprio_BTP
    assert proprio is not None
    if what == "proprioception":
        proprio = proprio + 0.3
    elif what == "order":
        images = images[:, :, [1, 0, 2]]
    else:
        images[:, :, CAMERAS.index(what)] = 255 - images[:, :, CAMERAS.index(what)]
    changed = scored(policy, rollouts, replace(seen, images_BTVHWC=images, proprio_BTP=proprio))
    difference = (changed - scored(policy, rollouts)).abs().amax(dim=(1, 2))
    assert (difference > 1e-4).all(), difference


def test_three_cameras_and_proprioception_keep_the_contract() -> None:
    check_policy(OpenVLAOFT(config()), image_size=32)
    check_policy(OpenVLAOFT(config(cameras=None, images=2, proprio=False)), image_size=32)


def test_a_checkpoint_remembers_its_cameras_and_readings(tmp_path: Path) -> None:
    OpenVLAOFT(config(cameras=["wrist", "front"])).save(tmp_path / "named")
    OpenVLAOFT(config(cameras=None, images=2, proprio=False)).save(tmp_path / "unnamed")
    named, unnamed = (OpenVLAOFT.Config(checkpoint=str(tmp_path / name)) for name in ("named", "unnamed"))
    assert OpenVLAOFT.needs(named) == Needs(("wrist", "front"), proprio=2, actions=2)
    assert OpenVLAOFT.needs(unnamed) == Needs(2, actions=2)
    assert OpenVLAOFT.needs(replace(unnamed, images=3)) == Needs(3, actions=2)
    assert OpenVLAOFT.needs(replace(unnamed, cameras=["a", "b", "c"])) == Needs(("a", "b", "c"), actions=2)
    assert OpenVLAOFT.needs(replace(unnamed, proprio=True)) == Needs(2, proprio=2, actions=2)
    policy = OpenVLAOFT(named)
    assert policy.processor.proprio is not None and policy.processor.proprio.width == 2
    policy.save(tmp_path / "again")
    assert OpenVLAOFT.needs(replace(named, checkpoint=str(tmp_path / "again"))) == OpenVLAOFT.needs(named)
    # Another checkpoint in the same place is looked at again.
    OpenVLAOFT(config()).save(tmp_path / "named")
    assert OpenVLAOFT.needs(named) == Needs(CAMERAS, proprio=2, actions=2)


def test_what_is_needed_is_known_without_weights(tmp_path: Path) -> None:
    OpenVLAOFT(config()).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert OpenVLAOFT.needs(OpenVLAOFT.Config(checkpoint=str(tmp_path))) == Needs(CAMERAS, proprio=2, actions=2)
    assert OpenVLA.needs(OpenVLA.Config()) == Needs(1, actions=2)


def test_a_policy_outlives_the_folder_that_it_came_from(tmp_path: Path) -> None:
    OpenVLAOFT(config()).save(tmp_path / "gone")
    policy = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path / "gone")))
    shutil.rmtree(tmp_path / "gone")
    assert policy.needed == Needs(CAMERAS, proprio=2, actions=2)
    with pytest.raises(CheckpointError, match="There is no folder"):
        OpenVLAOFT.needs(OpenVLAOFT.Config(checkpoint=str(tmp_path / "never")))


def test_needs_that_a_world_does_not_fulfil() -> None:
    policy = OpenVLAOFT(config(cameras=["wrist", "above"]))
    with pytest.raises(ConfigError, match=r"needs the cameras wrist, above, but .*: above is lacking"):
        rolled_out(policy)
    with pytest.raises(ConfigError, match=r"needs 2 cameras, but .* Say which ones .*policy\.args\.cameras"):
        rolled_out(OpenVLAOFT(config(cameras=None, images=2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": []}, "name each camera once"),
        ({"cameras": ["front", "front"]}, "name each camera once"),
        ({"cameras": ["front"], "images": 2}, "1 cameras are named. Leave images out"),
        ({"cameras": None, "images": 0}, "images is 0"),
    ],
)
def test_cameras_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenVLAOFT(config(**options))
