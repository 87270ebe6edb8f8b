"""Damaged run folders: `--resume` ends in one clear error, or with the weights of a run that nobody damaged.

A run of the smallest parts is stopped half-way. In each copy of its folder one file is damaged, and the run goes on.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import torch
from fuzz_configs import limited
from small import SMALL_RUN, save_models

from gymnast_core.config import RunConfig, load_config
from gymnast_core.errors import GymnastError
from gymnast_core.runs.snapshot import load_snapshot, save_snapshot
from gymnast_core.training.run import train

MOST_SECONDS = 60
OPTIONS = [
    *SMALL_RUN,
    "policy.args.chunk_length=2",
    "reward_model={name: random, args: {probability: 0.5}}",
    "loop.iterations=4",
    "optimizer.args.minibatch_size=2",
    "checkpoint_every=1",
]
THE_USERS = ("config.yaml",)
"""What the user may change by hand; another meaning of it is what was asked for."""
TOLD = ("metrics.csv", "versions.json", "project.jsonl", "report.html", "videos", "rollouts")
"""What tells of a run and does not decide how it goes on."""


class Stopped(Exception):
    pass


def half_done(folder: Path) -> tuple[Path, Path]:
    """A run that was stopped after two of four iterations, and one that went to its end."""
    models = save_models(folder / "models")
    overrides = [
        f"world_model.args.checkpoint={models.world}",
        f"policy.args.checkpoint={models.policy}",
        *OPTIONS,
    ]
    whole = folder / "whole"
    train(load_config(RunConfig, "tabletop", [*overrides, f"output={whole}"]))
    half = folder / "half"
    train(load_config(RunConfig, "tabletop", [*overrides, "loop.iterations=2", f"output={half}"]))
    # As a run that was killed leaves it: without what is written at the end.
    for name in ("summary.json", "policy", "evaluations/after.json"):
        path = half / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    text = (half / "config.yaml").read_text().replace("iterations: 2", "iterations: 4")
    (half / "config.yaml").write_text(text)
    return half, whole


def weights(run: Path) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()


def damage(path: Path, draw: random.Random) -> str:
    """Change one file, or replace it; what was done."""
    data, kind = path.read_bytes(), draw.random()
    if kind < 0.1:
        path.unlink()
        return "gone"
    if kind < 0.2:
        path.unlink()
        path.mkdir()
        return "a folder"
    if kind < 0.3:
        path.write_bytes(draw.choice([b"", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b"5"]))
        return "other content"
    place = draw.randrange(len(data)) if data else 0
    if kind < 0.6 and data:
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        return f"a bit of byte {place}"
    path.write_bytes(
        draw.choice([data[:place], data[:place] + draw.randbytes(9) + data[place:], data[:place] + data[place + 5 :]])
    )
    return f"bytes from {place}"


def folders(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """What is wrong about `count` damaged folders."""
    half, whole = half_done(scratch)
    files = sorted(path.relative_to(half) for path in half.rglob("*") if path.is_file() and path.name != ".lock")
    right, found = weights(whole), []
    for i in range(count):
        draw = random.Random(f"{seed}/run/{i}")
        copy, name = scratch / "copy", draw.choice(files)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(half, copy)
        done = damage(copy / name, draw)
        try:
            with limited(MOST_SECONDS):
                train(None, resume=copy)
            word = "read" if weights(copy) == right or name.name in THE_USERS else "other weights"
        except GymnastError as error:
            word = "refused" if len(str(error)) < 1500 else "a long error"
        except BaseException as error:
            word = f"{type(error).__name__}: {str(error)[:200]}"
        tally[word] += 1
        if word not in ("read", "refused"):
            found.append(f"run {i} of seed {seed}, {name}, {done}: {word}")
    return found


def snapshots(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """What is wrong about `count` damaged snapshots, of which the one before is whole."""
    state = {"iteration": 2, "weights": torch.arange(40.0), "optimizer": {0: [1.5, None]}, "name": "policy", "x": -0.25}
    folder, found = scratch / "snapshots", []
    for step in (1, 2):
        save_snapshot(folder, step, {**state, "iteration": step}, own={"rank": 0, "waiting": [torch.ones(3)]})
    files = sorted(path.relative_to(folder) for path in (folder / "step-000000002").iterdir())
    for i in range(count):
        draw = random.Random(f"{seed}/snapshot/{i}")
        copy, name = scratch / "copy", draw.choice(files)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        done = damage(copy / name, draw)
        same = (copy / name).is_file() and (copy / name).read_bytes() == (folder / name).read_bytes()
        try:
            with limited():
                loaded = load_snapshot(copy)
            step = None if loaded is None else loaded.state["iteration"]
            word = {1: "the one before", 2: "as it was"}.get(step, f"iteration {step}")
        except BaseException as error:
            word = f"{type(error).__name__}: {str(error)[:200]}"
        # Checksums that say the same in other words, e.g. without the last line's end, are no damage.
        harmless = same or name.name == "SHA256SUMS"
        tally[word] += 1
        if word != "the one before" and not (word == "as it was" and harmless):
            found.append(f"snapshot {i} of seed {seed}, {name}, {done}: {word}")
    return found
