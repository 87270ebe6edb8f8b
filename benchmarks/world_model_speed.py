"""How fast the WorldGym sampler imagines, against feeding the whole window in every denoising step.

    python benchmarks/world_model_speed.py [--no-compile] [--no-published] [--no-trained] [--only WIDTH ...]

One thread. Every variant takes its next chunk in turn, so that other jobs on the machine slow all of them; times are
CPU seconds of the thread on a CPU, wall seconds on a GPU. Of the denoising steps of a recomputing variant, which all
cost the same, one is timed. Beside each speed stands what the work allows: the multiply-adds of recomputing over the
variant's, "attainable" at equal rates, and the share of it that is reached with the same products. Writes
benchmarks/results/world_model_speed.{json,md} after every size.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from world_model_speed_table import report

from gymnast_worldgym.architecture import Sampling
from gymnast_worldgym.cache import TemporalCache
from gymnast_worldgym.model import DiT
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.schedule import noise_process

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NULL = torch.tensor([0.0] * 9 + [1.0])


@dataclass(frozen=True)
class Size:
    name: str
    network: DiT.Config
    side: int
    """Latent pixels a side."""
    batch: int
    window: int
    frames: int
    steps: int
    chunks: tuple[int, ...]
    compiled: bool = True

    @property
    def tokens(self) -> int:
        return (self.side // self.network.patch_size) ** 2


@dataclass
class Variant:
    """One way to imagine, and what it took."""

    name: str
    network: DiT
    chunk: int = 1
    recompute: bool = False
    streaming: bool = False
    seconds: list[float] = field(default_factory=list)
    """Of each chunk."""
    multiply_adds: float = 0.0
    cache_bytes: int = 0
    sampler: Sampler | None = None

    def total(self) -> float:
        return sum(self.seconds)


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.thread_time()


def random_network(config: DiT.Config) -> DiT:
    """Random weights, also where training starts from zeros."""
    g = torch.Generator().manual_seed(0)
    network = DiT(config, g).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=g)
    return network.to(DEVICE)


def sampler(variant: Variant, size: Size, batch: int, steps: int) -> Sampler:
    g = torch.Generator().manual_seed(1)
    context = torch.randn(1, 1, size.side, size.side, size.network.channels, generator=g).to(DEVICE)
    return Sampler(
        variant.network,
        noise_process("v", 14),
        Sampling(steps, streaming=variant.streaming),
        size.window,
        NULL,
        context.expand(batch, -1, -1, -1, -1),
        torch.zeros(batch, 1, 10, device=DEVICE),
        recompute=variant.recompute,
    )


def inputs(size: Size, batch: int, frame: int, count: int) -> tuple[Tensor, Tensor]:
    """Actions and noise of `count` frames; the first episodes of a batch do not depend on its size."""
    shape = (size.side, size.side, size.network.channels)
    actions, noise = [], []
    for index in range(frame, frame + count):
        rows = [torch.Generator().manual_seed(1000 * index + row) for row in range(batch)]
        actions.append(torch.stack([torch.randn(10, generator=g) for g in rows]))
        noise.append(torch.stack([torch.randn(shape, generator=g) for g in rows]))
    return torch.stack(actions, 1).to(DEVICE), torch.stack(noise, 1).to(DEVICE)


def count_multiply_adds(variant: Variant, size: Size) -> Callable[[], None]:
    """Add the multiply-adds of the network's products to the variant until the returned function is called."""
    network, p, d, layers = variant.network, size.tokens, size.network.dim, size.network.layers

    def add(batch: int, frames: int, known: int, finished: int, slots: int) -> None:
        project, rest = 3 * d * d, 9 * d * d  # of 12 D² a block: queries, keys, values; output and MLP
        spatial, temporal = project + rest + 2 * p * d, rest + 2 * slots * d
        a_token = frames * layers * (spatial + project + temporal)
        a_token -= known * (spatial + project) + finished * temporal
        variant.multiply_adds += batch * (p * a_token + frames * layers * 12 * d * d)

    def extend(x: Tensor, t: Tensor, a: Tensor, cache: TemporalCache, commit: int) -> Tensor:
        slots = cache.span(x.shape[1]).used
        add(x.shape[0], x.shape[1], cache.remembered, commit, slots)
        return DiT.extend(network, x, t, a, cache, commit)

    def forward(x: Tensor, t: Tensor, a: Tensor) -> Tensor:
        add(x.shape[0], x.shape[1], 0, 0, x.shape[1])
        return DiT.forward(network, x, t, a)

    network.extend, network.forward = extend, forward  # type: ignore[method-assign]

    def stop() -> None:
        del network.extend, network.forward

    return stop


def advance(variant: Variant, size: Size, frame: int) -> None:
    """Imagine the variant's next chunk and time it."""
    steps = 1 if variant.recompute else size.steps
    variant.sampler = variant.sampler or sampler(variant, size, size.batch, steps)
    actions, noise = inputs(size, size.batch, frame, min(variant.chunk, size.frames - frame))
    stop = count_multiply_adds(variant, size)
    began = clock()
    variant.sampler.extend(actions, noise)
    took = clock() - began
    stop()
    variant.seconds.append(took * size.steps / steps)
    variant.cache_bytes = variant.sampler.cache_bytes


def variants(size: Size, network: DiT, compiling: bool) -> list[Variant]:
    def like(**changes: Any) -> DiT:
        # Parameters are shared: the published size would not fit many times.
        shared = copy.deepcopy(network, {id(p): p for p in network.parameters()})
        for name, value in changes.items():
            getattr(shared, name)(*value)
        return shared

    plain, half = like(set_onednn=(False,)), like(set_compute_dtype=(torch.bfloat16,))
    found = [
        Variant("recomputing, PyTorch's products", plain, recompute=True),
        Variant("recomputing", network, recompute=True),
        Variant("exact", network),
        Variant("streaming", network, streaming=True),
        *(Variant(f"chunk {c}", network, chunk=c) for c in size.chunks),
    ]
    if compiling and size.compiled:
        fast = like(compile_passes=())
        found += [replace(v, name=f"{v.name}, compiled", network=fast, seconds=[]) for v in found[2:]]
    halves = [Variant("recomputing, bfloat16", half, recompute=True), Variant("exact, bfloat16", half)]
    chunk = size.chunks[-1]
    return [*found, *halves, Variant(f"chunk {chunk}, bfloat16", half, chunk=chunk)]


def warm_up(every: list[Variant], size: Size) -> None:
    """Fill the libraries' caches with one pass, or compile: a rollout past the window with two denoising steps."""
    for variant in every:
        compiled = variant.name.endswith("compiled")
        batch, steps, frames = (size.batch, 2, size.window + 2 * variant.chunk) if compiled else (1, 1, 1)
        walker = sampler(variant, size, batch, steps)
        for frame in range(0, frames, variant.chunk):
            walker.extend(*inputs(size, batch, frame, variant.chunk if compiled else 1))


def errors(every: list[Variant], size: Size) -> dict[str, float]:
    """Largest difference from recomputing, of one episode that slides by ten frames."""
    frames = min(size.frames, size.window + 10)
    found: dict[str, float] = {}
    reference: dict[int, Tensor] = {}

    def imagine(variant: Variant) -> Tensor:
        walker = sampler(variant, size, 1, size.steps)
        starts = range(0, frames, variant.chunk)
        chunks = [inputs(size, 1, i, min(variant.chunk, frames - i)) for i in starts]
        return torch.cat([walker.extend(*chunk) for chunk in chunks], dim=1)

    for variant in every:
        if variant.chunk not in reference:
            reference[variant.chunk] = imagine(replace(every[1], chunk=variant.chunk))
        if not variant.recompute:
            found[variant.name] = float((imagine(variant) - reference[variant.chunk]).abs().max())
    return found


def matmul_rate(dtype: torch.dtype, onednn: bool = False) -> float:
    """Multiply-adds a second of a large product."""
    n = 2048 if DEVICE.type == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=DEVICE).to(dtype)
    multiply = torch.ops.mkldnn._linear_pointwise if onednn else None
    times = []
    for _ in range(4):
        began = clock()
        multiply(a, b, None, "none", [], "") if multiply else a @ b
        times.append(clock() - began)
    return n**3 / min(times)


def measure(size: Size, compiling: bool, rates: dict[str, float]) -> dict[str, Any]:
    network = random_network(size.network)
    every = variants(size, network, compiling)
    began = time.perf_counter()
    warm_up(every, size)
    warm = time.perf_counter() - began
    for frame in range(size.frames):
        for variant in every:
            if frame % variant.chunk == 0:
                advance(variant, size, frame)
    off = errors(every, size)
    rows = []
    for variant in every:
        imagined = size.batch * size.frames
        rate = rates["bfloat16" if "bfloat16" in variant.name else "float32"]
        work = variant.multiply_adds * (size.steps if variant.recompute else 1)
        own = every[-3] if "bfloat16" in variant.name else every[1]  # recomputing with the variant's own products
        full = [s / variant.chunk for i, s in enumerate(variant.seconds) if i * variant.chunk >= size.window]
        half = len(full) // 2
        rows.append(
            {
                "name": variant.name,
                "frames_per_second": imagined / variant.total(),
                "times_recomputing_pytorch": every[0].total() / variant.total(),
                "times_recomputing": every[1].total() / variant.total(),
                "work_ratio": every[0].multiply_adds * size.steps / work,
                "of_attainable": None
                if variant.recompute
                else own.total() / variant.total() / (own.multiply_adds * size.steps / work),
                "max_error": off.get(variant.name),
                "cache_mib": variant.cache_bytes / 2**20,
                "matmul_fraction": work / variant.total() / rate,
                "seconds_per_frame": [s / variant.chunk for s in variant.seconds],
                "late_over_early_full_window": median(full[half:]) / median(full[:half]) if half else None,
            }
        )
    about = {**asdict(size), "tokens": size.tokens, "warm_up_seconds": warm}
    return {"size": about, "rows": rows}


def streaming_quality(episodes: int) -> dict[str, Any]:
    """PSNR (dB) of the shipped tabletop model past its window of 8 frames, streaming and exact, over all episodes."""
    from tabletop_parts import build, preset
    from world_model import recorded

    from gymnast_core.config import ComponentConfig
    from gymnast_core.seeds import seeded_generator
    from gymnast_core.types import Task

    part = preset().world_model
    with tempfile.TemporaryDirectory() as folder:
        found = recorded(episodes, folder)
        tasks = [Task(e.id, e.instruction, e.frames_TVHWC[:1], e.cameras) for e in found]
        actions = torch.stack([e.actions_TA[:20] for e in found])
        real = torch.stack([e.view()[1:21] for e in found])
    imagined = {}
    for streaming in (False, True):
        world = build("world_models", ComponentConfig(part.name, {**part.args, "streaming": streaming}))
        state = world.reset(tasks, generator=seeded_generator(0, "speed"))
        steps = [world.step(state, chunk).frames_BLVHWC for chunk in actions.split(4, dim=1)]
        imagined[streaming] = torch.cat(steps, dim=1)[:, :, 0]

    def psnr(a: Tensor, b: Tensor) -> dict[str, float]:
        mse = (a.double() - b.double()).square().mean((0, 2, 3, 4))
        return {str(i): float(10 * torch.log10(255**2 / mse[i - 1].clamp(min=1e-9))) for i in (4, 8, 12, 16, 20)}

    return {
        "episodes": episodes,
        "exact against simulation": psnr(imagined[False], real),
        "streaming against simulation": psnr(imagined[True], real),
        "streaming against exact": psnr(imagined[True], imagined[False]),
    }


def sizes() -> list[Size]:
    small = DiT.Config(channels=4, patch_size=2, dim=128, layers=4, heads=4)
    published = DiT.Config(channels=16, patch_size=2, dim=1024, layers=16, heads=16)
    if DEVICE.type == "cuda":
        large = Size("published size", published, 32, 8, 20, 40, 10, (5, 8))
    else:  # a full window of 20 would take an hour; the gain grows with the window and the steps
        large = Size("published size, short", published, 32, 1, 3, 3, 3, (2,), compiled=False)
    # A window in the middle, long enough for the gain to show and short enough for one core.
    wide = replace(published, dim=512, layers=4, heads=8)
    middle = Size("middle", wide, 16, 2, 8, 12, 5, (4,), compiled=False)
    return [Size("small", small, 16, 8, 20, 40, 10, (5, 8)), middle, large]


def cpu_name() -> str:
    return f"{platform.processor() or platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-published", action="store_true", help="leave out the published size")
    parser.add_argument("--no-trained", action="store_true", help="leave out the shipped tabletop model")
    parser.add_argument("--only", type=int, nargs="+", metavar="WIDTH", help="these widths alone: 128, 512, 1024")
    parser.add_argument("--episodes", type=int, default=64, help="episodes for the tabletop model")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
    torch.set_num_threads(1)
    rates = {"float32": matmul_rate(torch.float32), "bfloat16": matmul_rate(torch.bfloat16)}
    if DEVICE.type == "cpu":
        rates["float32"] = max(rates["float32"], matmul_rate(torch.float32, onednn=True))
    found: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if DEVICE.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matmul_rates": rates,
        "sizes": [],
    }
    if options.only:
        found |= kept(found["machine"])
    for size in sizes():
        width = size.network.dim
        if (options.only and width not in options.only) or (options.no_published and width == 1024):
            continue
        found["sizes"] = [one for one in found["sizes"] if one["size"]["name"] != size.name]
        found["sizes"].append(measure(size, not options.no_compile, rates))
        found["sizes"].sort(key=lambda one: one["size"]["network"]["dim"])
        write(found)
    if not options.no_trained and not options.only:
        found["trained"] = streaming_quality(options.episodes)
        write(found)


def kept(machine: str) -> dict[str, Any]:
    """What was measured on this machine before, with the same figures."""
    file = Path(__file__).parent / "results" / "world_model_speed.json"
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    same = earlier.get("machine") == machine and all("of_attainable" in one["rows"][0] for one in earlier["sizes"])
    return {key: earlier[key] for key in ("sizes", "trained") if key in earlier} if same else {}


def write(found: dict[str, Any]) -> None:
    results = Path(__file__).parent / "results"
    (results / "world_model_speed.json").write_text(json.dumps(found, indent=1) + "\n")
    (results / "world_model_speed.md").write_text(report(found))
    print(report(found))


if __name__ == "__main__":
    main()
