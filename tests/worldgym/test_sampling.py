"""Imagined latents against recordings of the original, and the cache against recomputing everything."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import golden
import pytest
import torch
from torch import Tensor

from gymnast_core.errors import ConfigError
from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.cache import TemporalCache
from gymnast_worldgym.model import DiT, transported
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


def shaken(seed: int = 0, **config: int) -> DiT:
    """A small network whose zero-initialised maps are not zero."""
    dit = DiT(DiT.Config(channels=4, patch_size=2, **{"dim": 32, "layers": 3, "heads": 2, **config}), g := seeded(seed))
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return dit.eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(
    dit: DiT, guidance: float = 1.0, streaming: bool = False, batch: int = 2, frames: int = 2, **how: object
) -> Sampler:
    """Episodes in a window of 6 frames; `frames` of context."""
    sampling = Sampling(3, guidance, 14, None, streaming)
    context, actions = torch.randn(batch, frames, 4, 4, 4, generator=seeded(1)), torch.zeros(batch, frames, 10)
    return Sampler(dit, noise_process("v", 14), sampling, 6, NULL, context, actions, **how)


def walk(walker: Sampler, chunks: tuple[int, ...] = (1, 2, 4, 1, 5, 3, 3, 1, 1, 2)) -> Tensor:
    batch, g = len(walker.latents_BTHWC), seeded(2)
    noise = torch.randn(batch, sum(chunks), 4, 4, 4, generator=g).split(chunks, dim=1)
    actions = torch.randn(batch, sum(chunks), 10, generator=g).split(chunks, dim=1)
    return torch.cat([walker.extend(a, n) for a, n in zip(actions, noise, strict=True)], dim=1)


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
    dit = shaken(layers=1)
    golden.close(walk(start(dit)), walk(start(dit, streaming=True)))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_cache_is_exact_for_any_chunk_lengths_far_past_the_window(layers: int, guidance: float) -> None:
    dit = shaken(layers=layers)
    golden.close(walk(start(dit, guidance)), walk(start(dit, guidance, recompute=True)), 1e-4)


def frames_computed(dit: DiT, run: Callable[[], object]) -> dict[str, int]:
    """Frames times episodes that went through the first spatial block, the second layer and the last MLP."""
    seen = {"first": 0, "second": 0, "last": 0}

    def count(name: str):
        def hook(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] += args[0].shape[0] * args[0].shape[1]

        return hook

    parts = {"first": dit.blocks[0].s_block, "second": dit.blocks[1].s_block, "last": dit.blocks[-1].t_block.ffwd}
    handles = [part.register_forward_hook(count(name)) for name, part in parts.items()]
    run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(("chunk", "streaming"), [(1, False), (1, True), (4, False), (4, True)])
def test_no_frame_is_computed_without_need(chunk: int, streaming: bool) -> None:
    """A full window of 6, 3 steps: 3 passes of each new frame; frames that wait for their first step are free."""
    dit = shaken()
    walker = start(dit, streaming=streaming, batch=1)
    walk(walker, (chunk,) * 8)
    context, finished = 6 - chunk, chunk - 1
    # Of the context, a streaming cache lacks the chunk's last frame, which was finished by the last step.
    encoded = 1 if streaming else context
    assert frames_computed(dit, lambda: walk(walker, (chunk,))) == {
        "first": 3 * chunk + finished + 1,
        "second": 3 * chunk + finished + encoded,
        "last": 3 * chunk,
    }


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_episodes_that_start_alike_are_encoded_once(guidance: float) -> None:
    dit, origins = shaken(), [0, 0, 4, 0, 4]
    walkers = [start(dit, guidance, batch=5), start(dit, guidance, batch=5, origins=origins)]
    for walker in walkers:
        walker.latents_BTHWC = walker.latents_BTHWC[origins]
    plain, shared = (frames_computed(dit, lambda w=w: walk(w, (1,))) for w in walkers)
    branches = 1 if guidance == 1.0 else 2
    assert plain["first"] - shared["first"] == 2 * (5 - 2) * branches
    assert plain["last"] == shared["last"]
    golden.close(walk(walkers[1]), walk(walkers[0]))


@pytest.mark.parametrize(("streaming", "tensors"), [(False, 2 * 3 + 2), (True, 2 * 3)])
def test_memory_is_bounded_by_one_window(streaming: bool, tensors: int) -> None:
    walker = start(shaken(), guidance=3.0, streaming=streaming)
    for _ in range(3):
        walk(walker)
        batch, window, tokens, dim = 2 * 2, 6, 4, 32
        assert walker.cache_bytes == tensors * 4 * batch * window * tokens * dim


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_same_model(dtype: torch.dtype) -> None:
    dit = shaken()
    exact = walk(start(dit))
    dit.set_compute_dtype(dtype)
    rounded, whole = walk(start(dit)), walk(start(dit, recompute=True))
    unit = torch.finfo(dtype).eps
    assert 0 < (rounded - exact).abs().mean() < 10 * unit * exact.abs().mean()
    assert (rounded - whole).abs().mean() < 10 * unit * exact.abs().mean()


def test_kernels_agree() -> None:
    dit = shaken()
    ours = walk(start(dit))
    dit.set_onednn(False)
    golden.close(ours, walk(start(dit)), 1e-4)


def test_compiled_passes_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for real, without the minute that generating C++ takes (the benchmark does that)."""
    traced = functools.cache(functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr("gymnast_worldgym.blocks.compiled", traced)
    monkeypatch.setenv("CXX", sys.executable)  # looked for, not called
    dit = shaken(layers=2)
    inputs = torch.randn(2, 3, 4, 4, 4, generator=seeded(1)), torch.tensor([[14, 500, 999]] * 2), torch.zeros(2, 3, 10)
    expected = dit(*inputs)
    dit.compile_passes()
    golden.close(dit.extend(*inputs, TemporalCache(2, 6), commit=0), expected)


def test_compiling_without_a_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"'no-such-compiler'.*leave compile at false"):
        shaken().compile_passes()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("origins", [None, [0, 0]])
def test_cache_is_exact_for_predicted_changes(layers: int, guidance: float, origins: list[int] | None) -> None:
    dit = shaken(layers=layers, change=True)
    with torch.no_grad():  # Pixels of noise that are moved far let differences of rounding grow from frame to frame.
        dit.final_layer.linear.weight.mul_(0.01)
    context = torch.randn(1, 7, 4, 4, 4, generator=seeded(1)).expand(2, -1, -1, -1, -1)

    def walker(recompute: bool) -> Sampler:
        sampling = Sampling(1, guidance, 14, None, False)
        actions = torch.zeros(2, 7, 10)
        how = {"recompute": recompute, "origins": None if recompute else origins}
        return Sampler(dit, noise_process("change", 14), sampling, 6, NULL, context, actions, **how)

    golden.close(walk(walker(False)), walk(walker(True)), 1e-4)


def test_an_untouched_pixel_stays_as_it_was() -> None:
    """With nothing to repaint, the imagined frames are the start frame, and a frame before the window still counts."""
    dit = shaken(layers=2, change=True)
    with torch.no_grad():
        bias = dit.final_layer.linear.bias.view(2, 2, 7)
        dit.final_layer.linear.weight.zero_()
        bias[..., :4], bias[..., 4], bias[..., 5:] = 9.0, -1e4, 0.0
    context = torch.randn(2, 2, 4, 4, 4, generator=seeded(1))
    walker = Sampler(dit, noise_process("change", 14), Sampling(1, 1.0, 14), 6, NULL, context, torch.zeros(2, 2, 10))
    imagined = walk(walker)
    torch.testing.assert_close(imagined, context[:, -1:].expand_as(imagined), atol=1e-4, rtol=0)


def test_pixels_are_taken_from_some_way_off() -> None:
    """Where to, right and down, in whole pixels and halves; the edge goes on beyond itself."""
    frame = torch.arange(12.0).view(1, 1, 3, 4, 1)
    places = {
        (1.0, 0.0): [[1.0, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]],
        (0.0, -1.0): [[0.0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]],
        (0.0, 0.5): [[2.0, 3, 4, 5], [6, 7, 8, 9], [8, 9, 10, 11]],
    }
    for way, expected in places.items():
        moved = transported(frame, torch.tensor(way).expand(1, 1, 3, 4, 2))
        torch.testing.assert_close(moved[0, 0, :, :, 0], torch.tensor(expected))
