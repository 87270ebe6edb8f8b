"""Does a memory of poses bring back what left the window? A camera pans along a painted strip and comes back.

    python benchmarks/pose_memory.py [--seeds 3] [--steps 1500] [--episodes 64]

Every episode has a strip of its own, painted in stripes of 4 pixels in random colours; the camera sees 16 by 4 pixels
of it and moves by a stripe a step, at least 8 steps one way and then back. What it comes back to has left the window of
8 frames: only who saw it can know it. Two WorldGyms of the same size, data and steps differ in one thing: one keeps 2
of the window's places for frames that are remembered by pose. Both are shown the way out and imagine the way back on
strips that were held out. PSNR of the stripes that came back, beside repeating the last frame and beside grey. Writes
benchmarks/results/pose_memory.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from gymnast_core.runs.progress import Progress
from gymnast_core.types import Episode, Task, one_camera
from gymnast_worldgym.world_model import WorldGym

RESULTS = Path(__file__).parent / "results" / "pose_memory.json"
WIDTH, STRIPE, OUT, BACK = 16, 4, 10, 8
"""Pixels of a frame's width, and of a stripe or a step; steps of the way out and back that are measured."""
WINDOW = 8
ARMS: dict[str, dict[str, Any]] = {"window": {}, "memory": {"memory": 2, "memory_pose": [0]}}
HELD_OUT = 2**31
"""First seed of the strips that are measured on."""


def walk(seed: int, out: int, back: int) -> tuple[Tensor, Tensor]:
    """Frames (out + back + 1, 4, 16, 3) and actions (out + back, 1), stripes to the right."""
    g = torch.Generator().manual_seed(seed)
    stripes = torch.randint(256, (1, out + WIDTH // STRIPE, 3), dtype=torch.uint8, generator=g)
    strip = stripes.repeat_interleave(STRIPE, dim=1).expand(STRIPE, -1, -1)
    moves = torch.cat([torch.ones(out), -torch.ones(back)])
    at = torch.cat([torch.zeros(1), moves.cumsum(0)]).long() * STRIPE
    frames = torch.stack([strip[:, x : x + WIDTH] for x in at.tolist()])
    if seed % 2:  # half of them go left first
        frames, moves = frames.flip(2), -moves
    return frames, moves[:, None]


def training_episodes(seed: int, count: int) -> list[Episode]:
    g = torch.Generator().manual_seed(seed)
    episodes = []
    for index in range(count):
        out = int(torch.randint(WINDOW, OUT + 3, (1,), generator=g))
        frames, actions = walk(int(torch.randint(HELD_OUT, (1,), generator=g)), out, out)
        episodes.append(Episode(str(index), "look", one_camera(frames), actions))
    return episodes


def fitted(arm: str, seed: int, steps: int) -> WorldGym:
    config = WorldGym.Config(
        image_size=[STRIPE, WIDTH], patch_size=STRIPE, dim=96, layers=3, heads=4, action_dim=2, robot_action_dim=1,
        window=WINDOW, seed=seed, clean_fraction=0.5, pure_noise_fraction=0.5, device="cpu", **ARMS[arm],
    )  # fmt: skip
    model = WorldGym(config)
    optimizer = torch.optim.AdamW(model.module().parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.05)
    with Progress(f"Fitting {arm}, seed {seed}", steps) as progress:
        for step in range(steps):
            generator = torch.Generator().manual_seed(seed * 10**6 + step)
            loss = model.training_loss(training_episodes(seed * 10**6 + step, 32), generator=generator)
            optimizer.zero_grad()
            loss.mean.backward()
            torch.nn.utils.clip_grad_norm_(model.module().parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(step + 1, {"loss": float(loss.mean.detach())})
    return model


def measured(model: WorldGym, count: int) -> dict[str, float]:
    """PSNR in dB over the columns that came back, by what imagined them."""
    walks = [walk(HELD_OUT + index, OUT, BACK) for index in range(count)]
    starts = [
        Task(str(i), "look", one_camera(frames[: OUT + 1]), actions_TA=actions[:OUT])
        for i, (frames, actions) in enumerate(walks)
    ]
    truth = torch.stack([frames[OUT + 1 :] for frames, _ in walks])
    state = model.reset(starts, generator=torch.Generator().manual_seed(0))
    chunks = torch.stack([actions[OUT:] for _, actions in walks]).split(2, dim=1)
    imagined = torch.cat([model.step(state, chunk).frames_BLVHWC[:, :, 0] for chunk in chunks], dim=1)
    last = torch.stack([frames[OUT] for frames, _ in walks])[:, None].expand_as(truth)
    mean = torch.full_like(truth, 127)
    return {name: psnr(one, truth) for name, one in (("imagined", imagined), ("copied", last), ("grey", mean))}


def psnr(frames_NTHWC: Tensor, truth_NTHWC: Tensor) -> float:
    """Of what the last frame of the way out does not show: column blocks that came in on the way back."""
    errors = []
    for step in range(BACK):
        new = min(step + 1, WIDTH // STRIPE) * STRIPE
        for index in range(len(truth_NTHWC)):
            columns = slice(0, new) if index % 2 == 0 else slice(WIDTH - new, WIDTH)
            pair = (x[index, step, :, columns].float() for x in (frames_NTHWC, truth_NTHWC))
            errors.append((next(pair) - next(pair)).square().mean())
    return 10 * math.log10(255**2 / float(torch.stack(errors).mean()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=64)
    options = parser.parse_args(arguments)
    rows = []
    for seed in range(1, 1 + options.seeds):
        for arm in ARMS:
            found = measured(fitted(arm, seed, options.steps), options.episodes)
            rows.append({"arm": arm, "seed": seed, **found})
            print(f"{arm} seed {seed}: {found['imagined']:.1f} dB", flush=True)
    about = {"steps": options.steps, "episodes": options.episodes, "machine": platform.processor(), "window": WINDOW}
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
