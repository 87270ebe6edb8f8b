"""Attention on a CPU, by length and number format: PyTorch's fused kernel, and OpenVLA-OFT's `attention: auto`.

    python benchmarks/attention.py

CPU milliseconds of one thread for a forward and a backward pass with a mask, heads of 32; the fastest of five. Batches
shrink with the length. Writes benchmarks/results/attention.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_openvla_oft.attention import SHORT, attend

HEADS, WIDTH, REPEATS = 4, 32, 5
LENGTHS = {16: 600, 32: 400, 64: 200, 128: 80, 256: 24, 512: 8}
"""Tokens -> batch."""
RESULTS = Path(__file__).parent / "results"


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def milliseconds(kernel: Callable[..., Tensor], length: int, batch: int, dtype: torch.dtype) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(length)
    shape = (batch, HEADS, length, WIDTH)
    leaves = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]
    mask = torch.zeros(batch, 1, length, length, dtype=dtype)
    forward, backward = [], []
    for _ in range(REPEATS):
        began = time.thread_time()
        mixed = kernel(*leaves, mask)
        between = time.thread_time()
        mixed.float().sum().backward()
        forward.append(between - began)
        backward.append(time.thread_time() - between)
    return 1e3 * min(forward), 1e3 * min(backward)


def page(found: dict[str, Any]) -> str:
    lines = [
        f"`python benchmarks/attention.py`: {found['machine']}, one thread, torch {found['torch']}. CPU milliseconds, "
        f"{HEADS} heads of {WIDTH}, a mask, the fastest of {REPEATS}. In bfloat16, `auto` writes attention out up to "
        f"{SHORT} tokens and fuses it in float32 beyond; in float32 it is the fused kernel.",
        "",
        "| tokens × batch | dtype | fused: forward | backward | auto: forward | backward | together, fused ÷ auto |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        numbers = [*row["fused"], *row["auto"]]
        ratio = sum(row["fused"]) / sum(row["auto"])
        lines.append(
            f"| {row['tokens']} × {row['batch']} | {row['dtype']} | "
            + " | ".join(f"{number:.1f}" for number in numbers)
            + f" | {ratio:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    rows = [
        {
            "tokens": length, "batch": batch, "dtype": str(dtype).removeprefix("torch."),
            "fused": milliseconds(fused, length, batch, dtype), "auto": milliseconds(attend, length, batch, dtype),
        }
        for length, batch in LENGTHS.items()
        for dtype in (torch.float32, torch.bfloat16)
    ]  # fmt: skip
    machine = f"CPU with {torch.backends.cpu.get_cpu_capability()}"
    found = {"machine": machine, "torch": torch.__version__, "rows": rows}
    (RESULTS / "attention.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "attention.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
