"""Imagined latents against recordings of the original, and the cache against recomputing everything."""

from __future__ import annotations

import golden
import pytest
import torch
from torch import Tensor

from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.model import DiT
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process

GENERATED = [name.removesuffix(".safetensors") for name in golden.MANIFEST if name.startswith("generate_")]
ROLLED = [name.removesuffix(".safetensors") for name in golden.MANIFEST if name.startswith("worldmodel_")]
NULL = torch.tensor([0.0] * 9 + [1.0])


def sampler(name: str, context: Tensor, actions: Tensor, recompute: bool = False, streaming: bool = False) -> Sampler:
    about = golden.settings(name)
    flow = about.get("objective") == "fm"
    level = 14 if flow else about.get("stabilization_level", 15) - 1
    sampling = Sampling(about["sampling_timesteps"], about["cfg"], level, about.get("horizon"), streaming)
    process = noise_process("flow" if flow else "v", level)
    window = about.get("window_len") or about["config"]["max_frames"]
    return Sampler(golden.network(name), process, sampling, window, NULL, context, actions, recompute)


def generate(name: str, **how: bool) -> Tensor:
    recorded = golden.tensors(name)
    context, actions = recorded["context"], recorded["actions"]
    frames, at = context.shape[1], context.shape[1]
    walker = sampler(name, context, actions[:, :frames], **how)
    out = [context]
    for key in sorted(k for k in recorded if k.startswith("noise.")):
        noise = recorded[key]
        out.append(walker.extend(actions[:, at : at + noise.shape[1]], noise))
        at += noise.shape[1]
    return torch.cat(out, dim=1)


def roll(name: str, **how: bool) -> Tensor:
    recorded, chunk = golden.tensors(name), golden.settings(name)["chunk_size"]
    context = recorded["latents"][:, :1]
    walker = sampler(name, context, torch.zeros_like(recorded["actions"][:, :1]), **how)
    chunks = recorded["actions"].split(chunk, dim=1)
    new = [walker.extend(actions, noise) for actions, noise in zip(chunks, recorded["noise"], strict=True)]
    return torch.cat([context, *new], dim=1)


@pytest.mark.parametrize("name", GENERATED)
def test_generation(name: str) -> None:
    golden.close(generate(name), golden.tensors(name)["out"], 2e-5 if golden.settings(name)["cfg"] == 1 else 5e-5)


@pytest.mark.parametrize("name", ROLLED)
def test_rollouts_one_chunk_a_call(name: str) -> None:
    golden.close(roll(name), golden.tensors(name)["latents"], 2e-5 if golden.settings(name)["cfg"] == 1 else 5e-5)


@pytest.mark.parametrize("name", ["generate_h1", "generate_h4", "generate_slide", "generate_slide_h4_cfg3"])
def test_cache_is_exact(name: str) -> None:
    golden.close(generate(name), generate(name, recompute=True))


def test_streaming_is_exact_until_the_window_slides() -> None:
    exact, streamed = generate("generate_slide"), generate("generate_slide", streaming=True)
    window = golden.settings("generate_slide")["config"]["max_frames"]
    golden.close(streamed[:, :window], exact[:, :window])
    assert (streamed[:, window:] - exact[:, window:]).abs().max() > 1e-3
    assert torch.isfinite(streamed).all()


def test_streaming_is_exact_for_one_layer_however_far_it_slides() -> None:
    """With one layer keys and values depend on one frame only, and rotary positions are relative."""
    dit = DiT(DiT.Config(channels=4, patch_size=2, dim=32, layers=1, heads=2), torch.Generator().manual_seed(0))
    weights = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=weights))
    g = torch.Generator().manual_seed(1)
    context, noise = torch.randn(2, 1, 4, 4, 4, generator=g), torch.randn(2, 20, 4, 4, 4, generator=g)
    actions = torch.randn(2, 21, 10, generator=g)
    process = noise_process("v", 14)
    outs = []
    for streaming in (False, True):
        walker = Sampler(dit, process, Sampling(2, streaming=streaming), 4, NULL, context, actions[:, :1])
        steps = [walker.extend(actions[:, i + 1 : i + 2], noise[:, i : i + 1]) for i in range(20)]
        outs.append(torch.cat(steps, dim=1))
    golden.close(outs[0], outs[1])
