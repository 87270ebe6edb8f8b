"""Policies of different quality made from one checkpoint: without training, and along a short training run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from gymnast_core.runs.atomic import atomic_directory
from gymnast_core.seeds import seeded_generator

_STATISTICS = ("min", "max", "q01", "q99")


def policy_with_gain(checkpoint: Path, gain: float, target: Path) -> Path:
    """A copy of a policy checkpoint whose action statistics are scaled: the same decisions, larger actions."""
    with atomic_directory(target) as copy:
        shutil.copytree(checkpoint, copy, dirs_exist_ok=True)
        path = copy / "dataset_statistics.json"
        statistics = json.loads(path.read_text())
        for entry in statistics.values():
            for key in _STATISTICS:
                entry["action"][key] = [gain * value for value in entry["action"][key]]
        path.write_text(json.dumps(statistics))
    return target


def policy_with_noise(checkpoint: Path, scale: float, target: Path, *, seed: int) -> Path:
    """A copy of a policy checkpoint with Gaussian noise of `scale` standard deviations of each weight tensor."""
    with atomic_directory(target) as copy:
        shutil.copytree(checkpoint, copy, dirs_exist_ok=True)
        weights = load_file(str(copy / "model.safetensors"))
        for name, weight in weights.items():
            if weight.is_floating_point() and weight.numel() > 1:
                noise = torch.randn(weight.shape, generator=seeded_generator(seed, "noise", name))
                weights[name] = (weight.float() + scale * weight.float().std() * noise).to(weight.dtype)
        save_file(weights, str(copy / "model.safetensors"), metadata={"format": "pt"})
    return target


def snapshots_of_training(
    folder: Path, overrides: Sequence[str], iterations: Sequence[int], targets: Sequence[Path]
) -> list[Path]:
    """The policy after each number of iterations of one `gymnast train tabletop` run in `folder`.

    A run that is extended with --resume is the run that was told the larger number at once.
    """
    for count, target in zip(iterations, targets, strict=True):
        if target.exists():
            continue
        known = (folder / "config.yaml").exists()
        start = ["--resume", str(folder)] if known else ["tabletop", *overrides, f"output={folder}"]
        gymnast("train", *start, f"loop.iterations={count}", log=folder.with_suffix(".log"))
        with atomic_directory(target) as copy:
            shutil.copytree(folder / "policy", copy, dirs_exist_ok=True)
    return list(targets)


def gymnast(*arguments: str, log: Path) -> None:
    """Run a `gymnast` command in a process of its own, on one thread, with its output in a log file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "gymnast_core.cli", *arguments]
    with log.open("a") as handle:
        subprocess.run(command, check=True, stdout=handle, stderr=handle, env={**os.environ, "OMP_NUM_THREADS": "1"})
