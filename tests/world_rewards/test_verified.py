"""The verified reward: 0 for the expert's own actions in any noise, known distances otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from noisy_worlds import NoisyWorld, RowWorld, rollout, task
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_world_rewards.distance import absolute_error, multiscale_dissimilarity, scales
from gymnast_world_rewards.lpips import _LAYERS, Lpips

EXPERT = [10.0, 20.0, 30.0, 40.0]
PLAIN = {"distance": "none"}


@pytest.mark.parametrize("world", [NoisyWorld(noise=60.0), RowWorld(noise=60.0)])
def test_the_experts_own_actions_are_worth_0_whatever_the_noise(build, world: NoisyWorld) -> None:
    start = task(50, expert=EXPERT)
    reward = build("verified", world).score([rollout(start, EXPERT, shown=[0, 0, 0, 0])])[0]
    assert reward.value == pytest.approx(0, abs=1e-7) and reward.numbers["error"] == 0.0


def test_the_error_by_hand(build) -> None:
    """The policy does nothing; the expert's frames are 10, 30, 60, 100 brighter."""
    reward = build("verified", NoisyWorld(), **PLAIN).score([rollout(task(50, expert=EXPERT), [0.0] * 4)])[0]
    wanted = torch.tensor([10, 30, 60, 100]) / 255 / 4
    torch.testing.assert_close(reward.step_values_S, -wanted)
    assert reward.value == pytest.approx(-float(wanted.sum())) and reward.finish_step is None
    doubled = build("verified", NoisyWorld(), **PLAIN, error_weight=2.0, of_steps=False)
    again = doubled.score([rollout(task(50, expert=EXPERT), [0.0] * 4)])[0]
    assert again.value == pytest.approx(2 * reward.value) and again.step_values_S is None


def test_beyond_a_shorter_expert_its_end_is_the_goal(build) -> None:
    """Three actions in chunks of two; then the expert's last frame stays."""
    start = task(50, expert=EXPERT[:3])
    reward = build("verified", NoisyWorld(), **PLAIN).score([rollout(start, [0.0] * 6)])[0]
    torch.testing.assert_close(reward.step_values_S, -torch.tensor([10, 30, 60, 60, 60, 60]) / 255 / 6)


def test_the_same_noise_takes_chance_out(build) -> None:
    start, done = task(100, expert=EXPERT), [0.0] * 4
    quiet = build("verified", NoisyWorld(), **PLAIN).score([rollout(start, done)])[0].value
    noisy = build("verified", RowWorld(noise=50.0), **PLAIN).score([rollout(start, done)])[0].value
    assert noisy == pytest.approx(quiet, abs=1 / 255)
    world = RowWorld(noise=50.0)
    other = build("verified", world, **PLAIN, same_noise=False).score([rollout(start, done)])[0].value
    assert abs(other - quiet) > 2 / 255 and world.batches == [1]


def test_the_expert_is_imagined_once_for_a_group(build) -> None:
    world, start = RowWorld(noise=5.0), task(50, expert=EXPERT)
    group = [rollout(start, [float(n)] * 4) for n in range(6)]
    rewards = build("verified", world, **PLAIN).score([*group, rollout(task(9, expert=EXPERT), EXPERT)])
    assert world.batches == [2, 7]  # the experts of two tasks, then what the policy did
    alone = build("verified", world, **PLAIN).score([group[3]])[0]
    assert alone.value == pytest.approx(rewards[3].value) and rewards[6].value == 0.0


def test_what_cannot_be_compared_is_an_error(build) -> None:
    start = task(50, expert=EXPERT)
    wide = replace(start, expert=replace(start.expert, actions_TA=torch.zeros(4, 3)))
    rollouts = [rollout(task(50), EXPERT), rollout(wide, EXPERT), rollout(start, EXPERT)]
    first, second, third = build("verified", NoisyWorld()).score(rollouts)
    assert "tasks.args.expert" in first.error and "3 components" in second.error and abs(third.value) < 1e-7


def test_equal_pictures_are_not_different_and_contrasts_are() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 32, 32, generator=generator)
    assert multiscale_dissimilarity(pictures, pictures).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    noisy = (pictures + 0.1 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    other = torch.rand(3, 3, 32, 32, generator=generator)
    near, far = multiscale_dissimilarity(pictures, noisy), multiscale_dissimilarity(pictures, other)
    assert bool((near > 0.01).all()) and bool((far > near + 0.3).all()) and bool((far <= 1.0).all())
    # One at a time is as all at once.
    alone = torch.cat([multiscale_dissimilarity(pictures[i, None], noisy[i, None]) for i in range(3)])
    torch.testing.assert_close(alone, near)


def reference_similarity(one: np.ndarray, other: np.ndarray, weights: tuple[float, ...]) -> float:
    """MS-SSIM of (C, H, W) by the definition, with scipy's Gaussian filter and windows that lie in the picture."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5, axes=(1, 2))[:, 5:-5, 5:-5]

    product = 1.0
    for place, weight in enumerate(weights):
        x, y = blurred(one), blurred(other)
        spread = blurred(one**2) - x**2 + blurred(other**2) - y**2
        structure = (2 * (blurred(one * other) - x * y) + 0.03**2) / (spread + 0.03**2)
        luminance = (2 * x * y + 0.01**2) / (x**2 + y**2 + 0.01**2)
        seen = luminance * structure if place == len(weights) - 1 else structure
        product *= max(seen.mean(), 0.0) ** weight
        one, other = (image.reshape(3, one.shape[1] // 2, 2, -1, 2).mean((2, 4)) for image in (one, other))
    return product


@pytest.mark.parametrize("side", [16, 32, 192])
def test_it_is_structural_similarity(side: int) -> None:
    generator = torch.Generator().manual_seed(2)
    one = torch.rand(2, 3, side, side, generator=generator)
    other = (one + 0.3 * torch.randn(one.shape, generator=generator)).clamp(0, 1)
    pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
    wanted = [1 - reference_similarity(first, second, scales(side)) for first, second in pairs]
    assert multiscale_dissimilarity(one, other).tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("side", "count"), [(11, 1), (20, 1), (21, 2), (32, 2), (41, 3), (161, 5), (512, 5)])
def test_small_pictures_have_fewer_scales(side: int, count: int) -> None:
    found = scales(side)
    assert len(found) == count and sum(found) == pytest.approx(1)


def test_pictures_that_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="side of 10"):
        scales(10)
    assert absolute_error(
        torch.zeros(1, 1, 2, 2, 3).byte(), torch.full((1, 1, 2, 2, 3), 51).byte()
    ).item() == pytest.approx(0.2)


def lpips_file(folder: Path, **changes: torch.Tensor) -> Path:
    """Weights of chance under the published names."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, (number, before, after, kernel, _, _) in enumerate(_LAYERS):
        shape = (after, before, kernel, kernel)
        state[f"net.slice{place + 1}.{number}.weight"] = torch.randn(shape, generator=generator) * 0.05
        state[f"net.slice{place + 1}.{number}.bias"] = torch.zeros(after)
        state[f"lin{place}.model.1.weight"] = torch.rand(1, after, 1, 1, generator=generator)
    path = folder / "lpips.safetensors"
    save_file({**state, **changes}, path)
    return path


def test_lpips_reads_a_file_of_weights(build, tmp_path: Path) -> None:
    network = Lpips.load(str(lpips_file(tmp_path)))
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert network(pictures, pictures).tolist() == [0.0, 0.0]
    apart = network(pictures, pictures.flip(0))
    assert bool((apart > 0).all()) and apart[0] == pytest.approx(apart[1])
    world = NoisyWorld()
    model = build("verified", world, distance="lpips", lpips=str(tmp_path / "lpips.safetensors"))
    found = model.score([rollout(task(50, expert=EXPERT), [0.0] * 4), rollout(task(50, expert=EXPERT), EXPERT)])
    assert found[0].numbers["lpips"] > 0 and found[1].value == 0.0


def test_a_wrong_file_of_weights_is_refused(build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward_model\.args\.lpips"):
        build("verified", distance="lpips")
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        build("verified", distance="lpips", lpips=str(tmp_path / "nowhere"))
    wrong = lpips_file(tmp_path, **{"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)})
    with pytest.raises(CheckpointError, match=r"weights\.0 is \(1, 3, 1, 1\)"):
        Lpips.load(str(wrong))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"net\.slice1\.0\.weight"):
        Lpips.load(str(tmp_path / "other.safetensors"))


def test_nothing_to_compare_is_refused(build) -> None:
    with pytest.raises(ConfigError, match="worth 0"):
        build("verified", error_weight=0.0, distance="none")
