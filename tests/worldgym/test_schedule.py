"""Noise schedules, losses and single sampler steps against recorded numbers."""

from __future__ import annotations

import golden
import pytest
import torch

from gymnast_fit.optimizers import moving_average
from gymnast_worldgym.model import DiT
from gymnast_worldgym.schedule import (
    Diffusion,
    Flow,
    alphas_cumprod,
    noise_process,
    pyramid,
    sampling_timesteps,
    sigmoid_betas,
)

SCHEDULE = golden.tensors("schedule")
STEPS = 10


def test_alphas_and_betas_are_equal_to_the_last_bit() -> None:
    assert torch.equal(alphas_cumprod(), SCHEDULE["alphas_cumprod"])
    assert torch.equal(sigmoid_betas().float(), SCHEDULE["betas"])
    assert torch.equal(alphas_cumprod(100), SCHEDULE["alphas_cumprod.T100"])


@pytest.mark.parametrize("key", [k for k in SCHEDULE if k.startswith("sampling_steps.")])
def test_sampling_timesteps(key: str) -> None:
    parts = key.split(".")[1:]
    timesteps = int(parts[0][1:]) if parts[0].startswith("T") else 1000
    assert torch.equal(sampling_timesteps(int(parts[-1][1:]), timesteps), SCHEDULE[key].long())


@pytest.mark.parametrize(
    ("steps", "level", "timestep"),
    [(26, 13, 499), (30, 15, 498), (60, 15, 249), (60, 30, 498), (120, 57, 474), (1000, 500, 499)],
)
def test_timesteps_of_many_levels_are_those_of_an_integer_linspace(steps: int, level: int, timestep: int) -> None:
    """The original asks for `torch.linspace(..., dtype=torch.long)`, whose rounding differs from a float32 one's."""
    times = sampling_timesteps(steps)
    assert times[level] == timestep
    assert torch.equal(times, torch.linspace(-1, 999, steps + 1, dtype=torch.long))


@pytest.mark.parametrize("key", [k for k in SCHEDULE if k.startswith("pyramid.")])
def test_pyramid(key: str) -> None:
    _, steps, horizon = key.split(".")
    assert torch.equal(pyramid(int(steps[1:]), int(horizon[1:])), SCHEDULE[key].long())


@pytest.mark.parametrize("name", ["diffusion_c4", "diffusion_c16"])
@torch.no_grad()
def test_noising_and_losses(name: str) -> None:
    recorded, dit = golden.tensors(name), golden.network(name)
    x, action = recorded["x"], recorded["action"]
    diffusion, flow = noise_process("v", 14), noise_process("flow", 14)
    golden.close(diffusion.noised(x, recorded["q_t"], recorded["q_noise"]), recorded["q_out"], atol=1e-6)

    noise, t = recorded["loss_noise"], recorded["loss_t"]
    inputs, timesteps = diffusion.network_input(diffusion.noised(x, t, noise), t)
    output = dit(inputs, timesteps, action)
    golden.close(output, recorded["pred_v"])
    golden.close(diffusion.squared_error(output, x, t, noise).mean(), recorded["loss"])

    noise, t = recorded["fm_loss_x1"], recorded["fm_loss_normal"].sigmoid()
    golden.close(t, recorded["fm_loss_t"], atol=1e-6)
    inputs, timesteps = flow.network_input(flow.noised(x, t, noise), t)
    golden.close(flow.squared_error(dit(inputs, timesteps, action), x, t, noise).mean(), recorded["fm_loss"])


@pytest.mark.parametrize("name", ["diffusion_c4", "diffusion_c16"])
@pytest.mark.parametrize("index", range(8))
@torch.no_grad()
def test_single_sampler_steps(name: str, index: int) -> None:
    recorded, about = golden.tensors(name), golden.settings(name)["ddim"][f"ddim{index}"]
    dit = golden.network(name, about["spatial_rope"])
    process = Diffusion("v", about["stabilization_level"] - 1)
    x, action = recorded["x"], recorded["action"]
    now, then = recorded[f"ddim{index}.t_idx"].long(), recorded[f"ddim{index}.t_next_idx"].long()
    clean, clean_t = process.context_input(x)
    noisy, noisy_t = process.network_input(x, process.level_time(now, STEPS))
    is_clean = now == 0
    inputs, timesteps = (
        torch.where(is_clean[..., None, None, None], clean, noisy),
        torch.where(is_clean, clean_t, noisy_t),
    )
    null = torch.zeros_like(action)
    null[..., -1] = 1
    w = about["cfg"]
    output = (1 - w) * dit(inputs, timesteps, null) + w * dit(inputs, timesteps, action)
    moved = torch.cat(
        [
            process.advance(x[b : b + 1], output[b : b + 1], now[b].clamp(min=1), then[b], STEPS)
            for b in range(x.shape[0])
        ]
    )
    result = torch.where((now == then)[..., None, None, None], x, moved)
    golden.close(result, recorded[f"ddim{index}.out"], atol=2e-5 if w == 1 else 5e-5)


def test_three_training_steps_match() -> None:
    recorded, about = golden.tensors("train_steps"), golden.settings("train_steps")
    dit = DiT(golden.architecture(about["config"]), torch.Generator().manual_seed(0))
    dit.load_state_dict({k.removeprefix("init."): v for k, v in recorded.items() if k.startswith("init.")})
    optimizer = torch.optim.AdamW(
        dit.parameters(), lr=about["lr"], betas=tuple(about["betas"]), weight_decay=about["weight_decay"]
    )
    average = moving_average(dit, about["ema_decay"])
    process = Diffusion("v", 14)
    for step in range(3):
        x, t, noise, action = (recorded[f"step{step}.{key}"] for key in ("x", "t", "noise", "action"))
        loss = process.squared_error(dit(process.noised(x, t, noise), t, action), x, t, noise).mean()
        golden.close(loss.detach(), recorded[f"step{step}.loss"])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for name, parameter in dit.named_parameters():
                golden.close(parameter.grad, recorded[f"grad0.{name}"], atol=2e-6)
        optimizer.step()
        average.update_parameters(dit)
    for name, parameter in dit.named_parameters():
        golden.close(parameter.detach(), recorded[f"final.{name}"], atol=2e-4)
    # Three steps move the weights by 3e-3 and their average by 6e-6: begun at the first step's weights, it is 1e-3 off.
    for name, parameter in average.module.named_parameters():
        golden.close(parameter, recorded[f"ema.{name}"], atol=1e-6)


def test_x0_prediction_sees_nothing_of_pure_noise() -> None:
    process = Diffusion("x0", 14)
    noise = torch.randn(1, 1, 4, 4, 3)
    inputs, _ = process.network_input(noise, torch.tensor([[999]]))
    assert inputs.abs().max() < 0.01


def test_one_x0_step_from_noise_returns_the_prediction() -> None:
    process, x0 = Diffusion("x0", 14), torch.rand(2, 3, 4, 4, 3) * 2 - 1
    out = process.advance(torch.randn_like(x0), x0, torch.ones(3).long(), torch.zeros(3).long(), steps=1)
    golden.close(out, x0)


def test_flow_walks_straight_to_the_clean_frame() -> None:
    process, x0, noise = Flow(), torch.rand(1, 2, 4, 4, 3), torch.randn(1, 2, 4, 4, 3)
    x = noise
    for level in range(5, 0, -1):
        x = process.advance(x, noise - x0, torch.full((2,), level), torch.full((2,), level - 1), steps=5)
    golden.close(x, x0, atol=1e-5)
