"""What a WorldGym model computes while it imagines, from its config alone (no weights are read, nothing is computed).

Passes are those that the sampler makes; operators are those of the network, on tensors without content.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from gymnast_plan.work import Traced, Work, add
from gymnast_worldgym import published
from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.cache import TemporalCache
from gymnast_worldgym.checkpoint import describe
from gymnast_worldgym.codec import PixelCodec
from gymnast_worldgym.devices import compute_dtype
from gymnast_worldgym.facts import Settings, settle
from gymnast_worldgym.model import DiT
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process

FEW = 2, 3
"""Layers that are traced: the first, the last, and one between them, like which all others are."""
SD3 = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
"""Stable Diffusion 3's autoencoder, which all published checkpoints use."""


@dataclass(frozen=True)
class Kind:
    """Passes that differ in the number of slots alone."""

    branches: int
    """2 with guidance."""
    frames: int
    remembered: int
    commit: int


@dataclass(frozen=True)
class Passes:
    """How often such a pass is made, and with how many slots on average."""

    kind: Kind
    count: int
    slots: int


def work_plan(
    config: Any, frames: int, chunk: int, is_gpu: bool, judged: Collection[int] | None = None
) -> Callable[[int], dict[str, Work]]:
    """Of a number of episodes imagined at once: what "imagine" and "decode" compute, for `frames` after the first that
    are asked for in chunks; `config` is a `WorldGym.Config`. An autoencoder decodes the frames that a policy looks at,
    one a chunk, and those of the places `judged` (from 0, the start frame; None: all)."""
    settings = settle(config, None if config.checkpoint is None else describe(config.checkpoint))
    wanted = published.compute_dtype(config.compute_dtype, config.preset)
    on_gpu = is_gpu and wanted == "auto"
    dtype = torch.bfloat16 if on_gpu else compute_dtype(wanted, torch.device("cpu"))
    few, more = (_network(settings, layers, dtype, is_gpu) for layers in FEW)
    traced = [
        (passes, _traced(*few, settings, passes, is_gpu), _traced(*more, settings, passes, is_gpu))
        for passes in schedule(settings, frames, chunk)
    ]
    deeper = settings.architecture.layers - FEW[0]
    decode, encode, at_once = _codec(settings)
    places = set(range(1, frames + 1))
    if judged is not None and settings.architecture.codec == "autoencoder-kl":
        places &= {*range(chunk, frames + 1, chunk), *judged}
    looked_at = len(places)

    def work(episodes: int) -> dict[str, Work]:
        imagined: Work = {}
        for passes, shallow, deep in traced:
            batch = episodes * passes.kind.branches
            one, two = shallow(batch), deep(batch)
            add(imagined, one, passes.count * (1 - deeper))
            add(imagined, two, passes.count * deeper)
        shown: Work = {}
        batch = min(at_once, episodes)
        add(shown, decode(batch), episodes * looked_at / batch)
        if encode is not None:
            add(shown, encode(1), 1.0)  # the start, of a group once
        return {"imagine": imagined, "decode": shown}

    return work


def schedule(settings: Settings, frames: int, chunk: int) -> list[Passes]:
    """The passes of one episode, as the sampler makes them: with a network that computes nothing."""
    architecture, sampling = settings.architecture, settings.sampling
    recorder = _Recorder(replace(architecture.network(), dim=4, heads=1, layers=1))
    channels, size = architecture.channels, architecture.patch_size * architecture.views
    context = torch.zeros(1, 1, size, architecture.patch_size, channels)
    null = torch.zeros(architecture.action_dim)
    process = noise_process(architecture.prediction, sampling.stabilization_level)
    walker = Sampler(
        cast(DiT, recorder), process, sampling, architecture.window, null, context,
        torch.zeros(1, 1, architecture.action_dim), memory=architecture.pose_memory,
    )  # fmt: skip
    together = _together(sampling, architecture.most_new, chunk)
    for first in range(0, frames, chunk):
        for start in range(first, min(first + chunk, frames), together):
            count = min(together, first + chunk - start, frames - start)
            walker.extend(null.expand(1, count, -1), torch.zeros(1, count, *context.shape[2:]))
    return [Passes(kind, len(slots), round(sum(slots) / len(slots))) for kind, slots in recorder.seen.items()]


def _together(sampling: Sampling, most: int, chunk: int) -> int:
    """As `WorldGym.step` splits a chunk."""
    return min(sampling.horizon or chunk, chunk, most)


class _Recorder(nn.Module):
    """Stands for the network: notes every pass and gives zeros."""

    def __init__(self, config: DiT.Config) -> None:
        super().__init__()
        self.config = config
        self.seen: dict[Kind, list[int]] = defaultdict(list)

    def extend(self, x: Tensor, t: Tensor, a: Tensor, cache: TemporalCache, commit: int) -> Tensor:
        span = cache.span(x.shape[1])
        self.seen[Kind(x.shape[0], x.shape[1], cache.remembered, commit)].append(span.used)
        cache.commit(commit)
        return torch.zeros_like(x[:, commit:, ..., : self.config.channels])


def _network(settings: Settings, layers: int, dtype: torch.dtype, is_gpu: bool) -> tuple[DiT, Any]:
    """A network without content, and the mode in which it runs."""
    config = replace(settings.architecture.network(), layers=layers)
    with torch.device("meta"):
        network = DiT(config, None).to("meta")
    network.set_compute_dtype(dtype)
    network._spatial_tables.clear()
    if is_gpu:
        return network, _FusedAttention()
    # The CPU's own kernels are chosen by the device, which fake tensors have.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        _without_content(network)
    return network, mode


def _traced(network: DiT, mode: Any, settings: Settings, passes: Passes, is_gpu: bool) -> Traced:
    """The work of one pass as a function of the batch, branches included."""
    kind, architecture = passes.kind, settings.architecture
    device = torch.device("meta" if is_gpu else "cpu")
    factor = 8 if architecture.codec == "autoencoder-kl" else 1
    height, width = (side // factor for side in architecture.image_size)
    channels = architecture.channels * (2 if architecture.changes else 1)
    shape = (height * architecture.views, width, channels)
    start = _before(network, settings, passes)

    def run(batch: int) -> None:
        cache = copy.copy(start)
        cache._keys, cache._values = list(start._keys), list(start._values)
        with mode, torch.inference_mode(False), torch.no_grad():
            x = torch.zeros(batch, kind.frames, *shape, device=device)
            t = torch.zeros(batch, kind.frames, device=device)
            a = torch.zeros(batch, kind.frames, architecture.condition_width, device=device)
            network.extend(x, t, a, cache, kind.commit)

    span = start.span(kind.frames)
    for queries in (kind.frames, kind.frames - kind.commit):
        if queries:
            span.mask(queries, device)  # made of real numbers, before the mode forbids to look at them
    with _quiet():
        run(2)  # weights are rounded once, and that is no part of a pass
        return Traced(run)


def _before(network: DiT, settings: Settings, passes: Passes) -> TemporalCache:
    """The cache before such a pass, without content."""
    kind, window = passes.kind, settings.architecture.window
    remember = not settings.sampling.streaming and not settings.architecture.memory
    cache = TemporalCache(network.config.layers, window, remember=remember)
    cache._known = max(passes.slots - kind.frames, 0)
    if passes.slots == window:
        cache._known = window - kind.frames
    cache._known_first = cache._known + kind.remembered
    return cache


class _FusedAttention(TorchFunctionMode):
    """Attention as one kernel, as on a GPU; tensors without a device would take it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            mask = (kwargs or {}).get("attn_mask")
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args[:3], attn_mask=mask)[0]
        return func(*args, **(kwargs or {}))


def _codec(settings: Settings) -> tuple[Callable[[int], Work], Callable[[int], Work] | None, int]:
    """Decoding and encoding of a number of frames, and how many are worked on at once."""
    architecture, mode = settings.architecture, FakeTensorMode(allow_non_fake_inputs=True)
    height, width = architecture.image_size
    views = architecture.views
    if architecture.codec != "autoencoder-kl":

        def copied(count: int) -> None:
            with mode, torch.no_grad():
                PixelCodec().decode(torch.zeros(count, height * views, width, 3))

        return Traced(copied), None, 2**20
    network, latents = _autoencoder(settings.autoencoder.vae)
    with mode:
        _without_content(network)

    def decoded(count: int) -> None:
        with mode, torch.no_grad():
            found = network.decode(torch.zeros(count, latents, views * height // 8, width // 8)).sample
            (((found + 1) / 2).movedim(-3, -1) * 255).round().clamp(0, 255).to(torch.uint8)

    def encoded(count: int) -> None:
        with mode, torch.no_grad():
            network.encode(torch.zeros(count, 3, views * height, width))

    with _quiet():
        return Traced(decoded), Traced(encoded), settings.autoencoder.vae_batch


def _without_content(module: nn.Module) -> None:
    """Give every parameter a shape and a device, and nothing more."""
    for part in module.modules():
        for name, x in part._parameters.items():
            if x is not None:
                part._parameters[name] = nn.Parameter(torch.empty(x.shape, dtype=x.dtype), requires_grad=False)


def _autoencoder(vae: str | None) -> tuple[Any, int]:
    """The autoencoder of a folder's config.json, else Stable Diffusion 3's, and the channels of its latents."""
    import json
    from pathlib import Path

    from diffusers import AutoencoderKL

    file = None if vae is None else Path(vae).expanduser() / "config.json"
    found: dict[str, Any] = {**SD3, "latent_channels": 16}
    if file is not None and file.is_file():
        found = json.loads(file.read_text())
    options = {name: value for name, value in found.items() if not name.startswith("_")}
    with torch.device("meta"):
        network: Any = AutoencoderKL(**options)
    return network.eval(), int(options["latent_channels"])


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield
