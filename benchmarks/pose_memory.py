"""Does a memory of poses bring back what left the window? A camera pans along a painted strip and comes back.

    python benchmarks/pose_memory.py [--seeds 3] [--steps 1500] [--episodes 64]
    python benchmarks/pose_memory.py --table       # the page, from what was measured

Every episode has a strip of its own, painted in stripes of 4 pixels in random colours; the camera sees 16 by 4 pixels
of it and moves by a stripe a step, at least 8 steps one way and then back. What it comes back to has, from the fourth
step on, left the window of 8 frames: only who saw it can know it. Two WorldGyms of the same size, data and steps differ
in one thing: one keeps 2 of the window's places for frames that are remembered by pose. Both are shown the way out and
imagine the way back on strips that were held out. PSNR of each stripe as it comes in, apart for those that are still in
the window, beside repeating the last frame and beside grey. Writes benchmarks/results/pose_memory.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
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
PARTS = {"seen": range(1, WINDOW // 2), "left": range(WINDOW // 2, BACK + 1)}
"""Steps of the way back by what they bring in: stripes of frames that are still in the window, and of those that have
left it (the k-th step back shows what was last seen 2·k frames ago)."""
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
    ways = {"imagined": imagined, "copied": last, "grey": mean}
    return {f"{name}, {part}": psnr(one, truth, steps) for part, steps in PARTS.items() for name, one in ways.items()}


def psnr(frames_NTHWC: Tensor, truth_NTHWC: Tensor, steps: range) -> float:
    """Of the stripe that each of these steps of the way back (from 1 on) brings in."""
    errors = []
    for step in steps:
        for index in range(len(truth_NTHWC)):
            columns = slice(0, STRIPE) if index % 2 == 0 else slice(WIDTH - STRIPE, WIDTH)
            one, other = (x[index, step - 1, :, columns].float() for x in (frames_NTHWC, truth_NTHWC))
            errors.append((one - other).square().mean())
    return 10 * math.log10(255**2 / float(torch.stack(errors).mean()))


def page(data: dict[str, Any]) -> str:
    """results/pose_memory.md from results/pose_memory.json."""
    about, rows = data["about"], data["rows"]
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# A memory of poses",
        "",
        "`python benchmarks/pose_memory.py`",
        "",
        "PSNR in dB of stripes as they come back into the picture, imagined on "
        f"{about['episodes']} held-out strips after {about['steps']} steps of training: mean over {len(seeds)} seeds, "
        "and by seed. Stripes that have left were last seen 8 to 16 frames ago, the window holds 8.",
        "",
        "| | still in the window | have left it |",
        "|---|---|---|",
    ]
    for arm, called in {"window": "the window alone", "memory": "2 of its places remembered by pose"}.items():
        cells = [_cell([row[f"imagined, {part}"] for row in rows if row["arm"] == arm]) for part in PARTS]
        lines.append(f"| {called} | {' | '.join(cells)} |")
    for way, called in {"copied": "the last frame again", "grey": "grey"}.items():
        cells = [f"{rows[0][f'{way}, {part}']:.1f}" for part in PARTS]
        lines.append(f"| {called} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    if not options.table:
        measure(options)
    RESULTS.with_suffix(".md").write_text(page(json.loads(RESULTS.read_text())))


def measure(options: argparse.Namespace) -> None:
    rows = []
    for seed in range(1, 1 + options.seeds):
        for arm in ARMS:
            found = measured(fitted(arm, seed, options.steps), options.episodes)
            rows.append({"arm": arm, "seed": seed, **found})
            print(f"{arm} seed {seed}: {found['imagined, left']:.1f} dB of what had left", flush=True)
    about = {"steps": options.steps, "episodes": options.episodes, "window": WINDOW}
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
