"""The three checkpoints of the preset `metaworld`, as they come with gymnast-metaworld: weights rounded to float16.

    python benchmarks/metaworld_checkpoints.py [--runs runs]

After the commands under "How the checkpoints are made" (contrib/gymnast-metaworld/EXPERIMENT.md), from their run
folders. Rounding halves the files; whoever loads them computes in the dtype of its own config. What is measured is
measured with the rounded ones.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

TARGET = Path(__file__).parents[1] / "contrib/gymnast-metaworld/gymnast_metaworld/checkpoints"
PARTS = {
    "world_model": "metaworld-world-model",
    "policy": "metaworld-policy",
    "success_classifier": "metaworld-judge-rounds",
}
MOST = torch.finfo(torch.float16).max


def rounded(source: Path, target: Path) -> float:
    """Copy a checkpoint, its floating-point weights as float16; the largest error, relative to a tensor's largest."""
    target.mkdir(parents=True, exist_ok=True)
    worst, tensors = 0.0, {}
    with safe_open(source / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 - not a mapping
            weight = file.get_tensor(name)
            if weight.is_floating_point():
                if weight.abs().max() > MOST:
                    raise SystemExit(f"{name} of {source} is too large for float16.")
                half = weight.half()
                scale = float(weight.abs().max()) or 1.0
                worst = max(worst, float((half.float() - weight.float()).abs().max()) / scale)
                weight = half
            tensors[name] = weight.contiguous()
    save_file(tensors, target / "model.safetensors", metadata)
    for extra in source.iterdir():
        if extra.suffix == ".json":
            shutil.copy(extra, target)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    options = parser.parse_args()
    for name, run in PARTS.items():
        worst = rounded(options.runs / run / "checkpoint", TARGET / name)
        size = (TARGET / name / "model.safetensors").stat().st_size
        print(f"{name}: {size / 2**20:.1f} MiB, rounded by at most {worst:.1e} of a tensor's largest weight")


if __name__ == "__main__":
    main()
