"""What a machine does in a second: stated rows from vendors' data sheets, and how work becomes seconds.

Rates are the dense ones, without sparsity, and bandwidths of memory those of the data sheets:

| Row | Source | bfloat16 | TF32 | float32 | memory |
|---|---|---|---|---|---|
| `h100` | NVIDIA H100 Tensor Core GPU data sheet, SXM | 989 TFLOP/s | 495 | 67 | 3.35 TB/s |
| `h200` | NVIDIA H200 Tensor Core GPU data sheet, SXM | 989 | 495 | 67 | 4.8 |
| `a100` | NVIDIA A100 80GB Tensor Core GPU data sheet, SXM | 312 | 156 | 19.5 | 2.04 |
| `l40s` | NVIDIA L40S data sheet | 362 | 183 | 91.6 | 0.864 |
| `rtx-4090` | NVIDIA Ada GPU Architecture whitepaper, appendix (float32 accumulation) | 165 | 82.6 | 82.6 | 1.008 |

What PyTorch without compilation reaches of them is assumed (`PRODUCTS`, `MEMORY`, `LAUNCH`), not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from gymnast_core.errors import ConfigError, unknown_name
from gymnast_plan.work import Op, Work

PRODUCTS = 0.5
"""Share of the published rate that matrix products, convolutions and attention reach (assumed)."""
MEMORY = 0.75
"""Share of the published bandwidth that everything else reaches (assumed)."""
LAUNCH = 8e-6
"""Seconds from one kernel to the next at least, since Python launches them one by one (assumed)."""
LINKS = 0.8
"""Share of the published rate that copies between devices reach (assumed)."""
DISK = 1e9
"""Bytes a second that a snapshot is copied, written and hashed at (assumed)."""
NODE = 8
"""GPUs of one machine; more are reached over the network."""
NETWORK = 50e9
"""Bytes a second a GPU between machines: 400 Gbit/s (assumed)."""

bfloat16, float16, float32 = torch.bfloat16, torch.float16, torch.float32


@dataclass(frozen=True)
class Hardware:
    """One GPU, or the CPU of a machine. All rates are what is reached, not what is published."""

    name: str
    source: str
    """Where the numbers come from."""
    rates: Mapping[torch.dtype, float]
    """Floating-point operations a second of matrix products, by dtype; others count as float32."""
    convolutions: float
    """The same of float32 convolutions, which cuDNN rounds to TF32 unless it is told not to."""
    bandwidth: float
    """Bytes a second of memory."""
    launch: float
    """Seconds a kernel takes at least."""
    is_gpu: bool = True
    host_link: float = float("inf")
    """Bytes a second between the host's memory and the device's, one way."""
    gpu_link: float = float("inf")
    """Bytes a second between two GPUs of one machine, one way."""
    network: float = NETWORK
    disk: float = DISK
    measured: bool = False
    known: Mapping[Op, float] = field(default_factory=dict)
    """Seconds of single operators as they were measured."""

    def seconds(self, work: Work) -> float:
        """What the work takes on one device, one operator after the other."""
        return sum(self.operator(op) * calls for op, calls in work.items())

    def operator(self, op: Op) -> float:
        """Seconds of one call: measured, else as far above the bound as the nearest that was measured."""
        if op in self.known:
            return self.known[op]
        return self.bound(op) * self._above(op)

    def bound(self, op: Op) -> float:
        """Seconds that operations, bytes and launching allow (the roofline)."""
        if op.is_view:
            return 0.0 if self.is_gpu else self.launch
        needed = max(op.flops / self.rate(op), op.bytes / self.bandwidth)
        # A GPU computes while the next kernel is launched; a CPU does one after the other.
        return max(needed, self.launch) if self.is_gpu else needed + self.launch

    def rate(self, op: Op) -> float:
        """Floating-point operations a second of the operator's kind."""
        if "convolution" in op.name and op.dtype is float32:
            return self.convolutions
        return self.rates.get(op.dtype, self.rates[float32])

    def link(self, gpus: int) -> float:
        """Bytes a second between neighbours when so many GPUs add up their gradients."""
        return self.gpu_link if gpus <= NODE else min(self.gpu_link, self.network)

    def _above(self, op: Op) -> float:
        alike = [(abs(_size(one) - _size(op)), took, one) for one, took in self._kin(op)]
        if not alike:
            return 1.0
        _, took, nearest = min(alike, key=lambda entry: entry[0])
        return took / self.bound(nearest)

    def _kin(self, op: Op) -> list[tuple[Op, float]]:
        """What was measured of the same operator, else of products or of everything else."""
        return self._by_kind.get((op.function, op.dtype)) or self._by_kind.get((None, op.flops > 0)) or []

    @cached_property
    def _by_kind(self) -> dict[Any, list[tuple[Op, float]]]:
        table: dict[Any, list[tuple[Op, float]]] = {}
        for op, seconds in self.known.items():
            table.setdefault((op.function, op.dtype), []).append((op, seconds))
            table.setdefault((None, op.flops > 0), []).append((op, seconds))
        return table


def _size(op: Op) -> float:
    return math.log(1 + op.flops + op.bytes)


def _stated(
    name: str, source: str, tera: tuple[float, float, float], memory: float, links: tuple[float, float]
) -> Hardware:
    """`tera`: TFLOP/s in bfloat16, TF32 and float32; `memory`: TB/s; `links`: GB/s to the host and to other GPUs."""
    half, tf32, single = (PRODUCTS * rate * 1e12 for rate in tera)
    host, peers = (LINKS * rate * 1e9 for rate in links)
    rates = {bfloat16: half, float16: half, float32: single}
    return Hardware(name, source, rates, tf32, MEMORY * memory * 1e12, LAUNCH, host_link=host, gpu_link=peers)


STATED: dict[str, Hardware] = {
    row.name: row
    for row in (
        _stated("h100", "NVIDIA's data sheet, H100 SXM", (989.4, 494.7, 66.9), 3.35, (64, 450)),
        _stated("h200", "NVIDIA's data sheet, H200 SXM", (989.4, 494.7, 66.9), 4.8, (64, 450)),
        _stated("a100", "NVIDIA's data sheet, A100 80GB SXM", (312.0, 156.0, 19.5), 2.039, (32, 300)),
        _stated("l40s", "NVIDIA's data sheet, L40S", (362.05, 183.0, 91.6), 0.864, (32, 32)),
        _stated("rtx-4090", "NVIDIA's Ada whitepaper, RTX 4090", (165.2, 82.6, 82.6), 1.008, (32, 32)),
    )
}
"""Rows from data sheets; what they say is a prediction until it is measured."""
MEASURED = "measured"


def find_row(name: str) -> Hardware:
    """A stated row. Raises `ConfigError` that lists the known ones."""
    if name not in STATED:
        raise ConfigError(unknown_name("hardware", name, [MEASURED, *STATED]))
    return STATED[name]


def row_of(device_name: str) -> Hardware | None:
    """The stated row of a GPU that calls itself so ("NVIDIA H200"), if there is one."""
    plain = device_name.lower().replace(" ", "-")
    return next((row for name, row in STATED.items() if name in plain), None)


def names() -> Iterable[str]:
    """What `find_row` knows, and the word for a measurement."""
    return [MEASURED, *STATED]
