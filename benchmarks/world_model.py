"""How faithful the shipped world model is, open loop, on episodes of the split "reporting".

    python benchmarks/world_model.py [--episodes 256]

Replays recorded actions for 20 control steps from the first frame only and compares with the recorded frames: PSNR (dB)
by frame beside a world that stands still, and a control with the actions of another episode; distance between imagined
and real centroids of every block and of the end-effector (pixels); speed. Writes docs/images/imagined_and_real.png and
benchmarks/results/world_model.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from tabletop_parts import build, preset

from gymnast_core.config import ComponentConfig
from gymnast_core.seeds import seeded_generator
from gymnast_core.types import Task
from gymnast_pages.video import strip

ROOT = Path(__file__).parent.parent
PALETTE = {
    "red": (220, 32, 32),
    "green": (28, 158, 52),
    "blue": (28, 68, 216),
    "yellow": (250, 210, 20),
    "effector": (22, 24, 28),
}
"""The renderer's colours, 8-bit RGB."""
STEPS = (1, 4, 8, 16, 20)
MOVING = 20_000
"""Summed 8-bit difference between the last and the first frame above which something was pushed."""


def recorded(count: int, folder: str):
    """Play episodes recorded for this measurement from seeds that nothing else uses."""
    command = [
        sys.executable, "-m", "gymnast_tabletop.record", "--behaviour", "play", "--episodes", str(count),
        "--actions", "20", "--split", "reporting", "--image-size", "32", "--workers", "2", "--seed", "0",
        "--out", f"{folder}/play",
    ]  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    episodes = build("datasets", ComponentConfig("tabletop-episodes", {"path": f"{folder}/play"})).episodes()
    return [episodes[i] for i in range(len(episodes))]


def centroids(frames_THWC: np.ndarray) -> dict[str, np.ndarray]:
    """Mean pixel position (T, 2) of the pixels nearest to each colour, NaN where fewer than 3 pixels have it."""
    pixels = frames_THWC.astype(float)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    names = list(PALETTE)
    reference = np.array([PALETTE[name] for name in names] + [background])
    nearest = np.linalg.norm(pixels[..., None, :] - reference, axis=-1).argmin(-1)
    rows, columns = np.mgrid[: pixels.shape[1], : pixels.shape[2]]
    found = {}
    for index, name in enumerate(names):
        mask = nearest == index
        area = mask.sum((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.stack([(mask * columns).sum((1, 2)), (mask * rows).sum((1, 2))], -1) / area[:, None]
        centre[area < 3] = np.nan
        found[name] = centre
    return found


def centroid_errors(imagined: np.ndarray, real: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean distance of centroids and share of lost objects, by step, for blocks and end-effector."""
    errors: dict[str, list[np.ndarray]] = {"blocks": [], "effector": []}
    lost: dict[str, list[np.ndarray]] = {"blocks": [], "effector": []}
    for ours, theirs in zip(imagined, real, strict=True):
        first, second = centroids(ours), centroids(theirs)
        for name in PALETTE:
            # Objects that are there in every real frame; colours of which two blocks exist have no single centroid.
            if np.isnan(second[name]).any():
                continue
            kind = "effector" if name == "effector" else "blocks"
            errors[kind].append(np.linalg.norm(first[name] - second[name], axis=-1))
            lost[kind].append(np.isnan(first[name]).any(-1))
    return {
        kind: {f"error_{s}": float(np.nanmean(np.array(errors[kind])[:, s - 1])) for s in STEPS}
        | {"lost_at_20": float(np.mean(np.array(lost[kind])[:, 19]))}
        for kind in errors
    }


def report(found: dict[str, Any]) -> list[str]:
    """The lines of world_model.md."""
    quality = found["quality"]
    lines = [
        f"Open loop on {found['episodes']} held-out play episodes, 20 control steps from one frame.",
        "",
        "| PSNR, dB, at frame | " + " | ".join(map(str, STEPS)) + " | mean of 20 |",
        "|---|" + "---|" * (len(STEPS) + 1),
        "| world model | " + " | ".join(f"{quality[f'psnr_{s}']:.1f}" for s in STEPS) + f" | {quality['psnr']:.1f} |",
        "| first frame repeated | "
        + " | ".join(f"{quality[f'psnr_copy_{s}']:.1f}" for s in STEPS)
        + f" | {quality['psnr_copy']:.1f} |",
        "| world model, another episode's actions |" + " |" * len(STEPS) + f" {quality['psnr_shuffled']:.1f} |",
        "",
        "| centroid error, px, at frame | " + " | ".join(map(str, STEPS)) + " | lost at frame 20 |",
        "|---|" + "---|" * (len(STEPS) + 1),
    ]
    for kind, row in found["centroids"].items():
        lines.append(
            f"| {kind} | "
            + " | ".join(f"{row[f'error_{s}']:.2f}" for s in STEPS)
            + f" | {100 * row['lost_at_20']:.1f} % |"
        )
    lines += ["", f"{found['frames_per_second']:.0f} imagined frames a second with {found['threads']} thread(s)."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=256)
    options = parser.parse_args()
    world = build("world_models", preset().world_model)
    with tempfile.TemporaryDirectory() as folder:
        episodes = recorded(options.episodes, folder)
        quality = world.validate(episodes, generator=seeded_generator(0, "quality"))
        tasks = [Task(e.id, e.instruction, e.frames_TVHWC[:1], e.cameras) for e in episodes]
        actions = torch.stack([e.actions_TA[:20] for e in episodes])
        began = time.monotonic()
        state = world.reset(tasks, generator=seeded_generator(0, "quality"))
        steps = [world.step(state, chunk).frames_BLVHWC[:, :, 0] for chunk in actions.split(4, dim=1)]
        imagined = torch.cat(steps, dim=1).numpy()
        seconds = time.monotonic() - began
        real = torch.stack([e.view()[1:21] for e in episodes]).numpy()
        mse = ((imagined.astype(float) - real) ** 2).mean((1, 2, 3, 4))
        # Not the best ones: the lower quartile, the median and the upper quartile of fidelity among those that move.
        moving = np.flatnonzero(np.abs(real[:, -1].astype(int) - real[:, 0]).sum((1, 2, 3)) > MOVING)
        order = moving[mse[moving].argsort()[::-1]]
        rows, captions = [], []
        for label, share in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75)):
            index = order[int(share * len(order))]
            start = episodes[index].view()[:1].numpy()
            rows += [np.concatenate([start, imagined[index]]), np.concatenate([start, real[index]])]
            captions += [f"imagined by the world model ({label} of fidelity)", "simulated, the same actions"]
        target = ROOT / "docs" / "images" / "imagined_and_real.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        strip(rows, captions, columns=11, min_pixels=96).save(target)
    found = {
        "episodes": options.episodes,
        "quality": quality,
        "centroids": centroid_errors(imagined, real),
        "frames_per_second": imagined.shape[0] * imagined.shape[1] / seconds,
        "threads": torch.get_num_threads(),
    }
    lines = report(found)
    results = Path(__file__).parent / "results"
    (results / "world_model.json").write_text(json.dumps(found, indent=1) + "\n")
    (results / "world_model.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
