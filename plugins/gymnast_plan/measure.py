"""A hardware row of this machine: what it takes for the very operators, at the very sizes, that a plan is made of.

Operators are called alone, on made-up numbers, the ones that count most first, until the time is up. Nothing is kept
on disk.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gymnast_core.runs.progress import Progress
from gymnast_plan.hardware import MEASURED, Hardware, bfloat16, float16, float32
from gymnast_plan.work import Op, Shaped, Work, trace

SECONDS = 10.0
"""How long measuring may take beyond the basic rates."""
LONGEST = 0.5
"""Operators that take longer, seconds, are not called: their rate is that of smaller ones."""
LARGEST = 2**30
"""Bytes that an operator may need to be called."""
REPEATS = 5
MOMENT = 0.02
"""Seconds after which a measurement of one operator ends, if it went round twice."""
CACHES = 3e7
"""Bytes that calls of one operator go round through, lest all its numbers lie in a cache as they would not in a run."""
MOST_COPIES = 64

Clock = Callable[[], float]


def clock_of() -> Clock:
    """CPU seconds of one thread, whatever else runs on the machine; of several, seconds on the wall."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def measure(work: Work, *, seconds: float = SECONDS) -> Hardware:
    """This machine's row, for this work; on a GPU, its rates alone. Shows progress."""
    if torch.cuda.is_available():
        return _gpu()
    clock = clock_of()
    single, half = (_product_rate(dtype, clock) for dtype in (float32, bfloat16))
    rates = {float32: single, bfloat16: half, float16: half}
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"
    base = Hardware(
        MEASURED, f"measured on this machine ({name})", rates, single, _copy_rate(clock), _launch(clock), is_gpu=False,
        disk=_disk_rate(), measured=True,
    )  # fmt: skip
    # Alone, an operator lacks the Python around it.
    known = {op: took + base.launch for op, took in _operators(base, work, seconds, clock).items()}
    return replace(base, known=known)


def _operators(base: Hardware, work: Work, seconds: float, clock: Clock) -> dict[Op, float]:
    """Seconds of the operators that matter most."""
    cost = {op: calls * base.bound(op) for op, calls in work.items() if not op.is_view}
    ordered = sorted(cost, key=cost.__getitem__, reverse=True)
    total, known, done = sum(cost.values()), dict[Op, float](), 0.0
    began = time.monotonic()
    with Progress("Measuring this machine", total=100, unit="percent") as progress:
        for op in ordered:
            done += cost[op]
            if time.monotonic() - began > seconds:
                break
            took = _timed(op, base, clock)
            if took is not None:
                known[op] = took
            percent = int(100 * max(done / total, (time.monotonic() - began) / seconds)) if total else 100
            progress.update(min(percent, 100), {}, f"{len(known)} operators measured")
    return known


def _timed(op: Op, base: Hardware, clock: Clock) -> float | None:
    """The mean of a few rounds of calls, seconds; None for what cannot be called so, or not in time.

    Not the fastest round: a run gets the machine as it is, too.
    """
    if base.bound(op) > LONGEST or op.bytes > LARGEST:
        return None
    arguments, named = op.inputs
    count = int(min(MOST_COPIES, max(2, CACHES // max(op.bytes, 1.0) + 1)))
    with torch.no_grad():
        try:
            copies = [(_made(arguments), {name: _made(value) for name, value in named}) for _ in range(count)]
            for real in copies:
                op.function(*real[0], **real[1])
        except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError):
            return None  # an operator that made-up numbers do not suit counts as its bound
        found: list[float] = []
        began = clock()
        while len(found) < REPEATS and (len(found) < 2 or clock() - began < MOMENT):
            start = clock()
            for real in copies:
                op.function(*real[0], **real[1])
            found.append((clock() - start) / count)
    return statistics.mean(found)


def _made(value: Any) -> Any:
    if isinstance(value, Shaped):
        return value.made()
    if isinstance(value, tuple):
        return [_made(item) for item in value]
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _product_rate(dtype: torch.dtype, clock: Clock, size: int = 768) -> float:
    a, b = torch.full((2, size, size), 0.5).to(dtype)
    return 2 * size**3 / _fastest(lambda: a @ b, clock)


def _copy_rate(clock: Clock, count: int = 2**23) -> float:
    a, b = torch.zeros(2, count)
    return 2 * a.nbytes / _fastest(lambda: b.copy_(a), clock)


def _launch(clock: Clock) -> float:
    """What Python and PyTorch take for each operator, views included: a layer of next to no size, by its operators."""
    layer = nn.TransformerEncoderLayer(8, 1, 8, dropout=0.0, batch_first=True)
    x = torch.zeros(2, 2, 8)
    count, repeats = len(trace(partial(layer, x))), 40
    began = clock()
    for _ in range(repeats):
        layer(x)
    return (clock() - began) / (repeats * count)


def _disk_rate(size: int = 2**25) -> float:
    """Bytes a second of a snapshot: copied, written, flushed and hashed."""
    import hashlib
    import os
    import tempfile

    data = torch.zeros(size, dtype=torch.uint8)
    with tempfile.TemporaryFile() as file:
        began = time.perf_counter()
        copied = data.clone().numpy().tobytes()
        file.write(copied)
        file.flush()
        os.fsync(file.fileno())
        hashlib.sha256(copied).digest()
        return size / (time.perf_counter() - began)


def _fastest(run: Callable[[], object], clock: Clock, repeats: int = 4) -> float:
    found = []
    for _ in range(repeats):
        began = clock()
        run()
        found.append(clock() - began)
    return max(min(found), 1e-9)


def _gpu() -> Hardware:
    """Rates of the GPU, whose kernels are not called one by one."""

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def product(dtype: torch.dtype, size: int = 8192) -> float:
        a, b = torch.randn(2, size, size, device="cuda").to(dtype)  # zeros would draw less power, and run faster
        return 2 * size**3 / _fastest(lambda: a @ b, clock)

    def copied(a: Tensor, b: Tensor, ways: int) -> float:
        return ways * a.nbytes / _fastest(lambda: b.copy_(a), clock)

    large = torch.zeros(2, 2**28, device="cuda", dtype=torch.uint8)
    pinned = torch.zeros(2**28, dtype=torch.uint8).pin_memory()
    small = torch.zeros(8, device="cuda")
    launch = _fastest(lambda: [small.add_(1) for _ in range(100)], clock) / 100
    image = torch.randn(8, 256, 128, 128, device="cuda")
    kernel = torch.randn(256, 256, 3, 3, device="cuda")
    convolution = 2 * 8 * 128 * 128 * 256 * 256 * 9 / _fastest(lambda: torch.conv2d(image, kernel, padding=1), clock)
    rates = {float32: product(float32), bfloat16: product(bfloat16), float16: product(float16)}
    link = copied(pinned, large[0], 1)
    return Hardware(
        MEASURED, f"measured on this machine ({torch.cuda.get_device_name()})", rates, convolution,
        copied(large[0], large[1], 2), launch, host_link=link, gpu_link=link, disk=_disk_rate(), measured=True,
    )  # fmt: skip
