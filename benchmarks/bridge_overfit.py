"""Whether `gymnast fit` can teach WorldGym real robot video: a small model overfits eight BridgeData V2 episodes.

    python benchmarks/bridge_overfit.py --episodes DIR [--run runs/bridge-overfit]

DIR holds NAME.mp4 + NAME.npz as the dataset `worldgym-episodes` reads them. Trains benchmarks/bridge_overfit.yaml (an
interrupted run goes on, a finished one is only measured), then imagines every training episode from its first frame
with the recorded actions and compares with the recording, beside the start frame repeated. Writes
benchmarks/results/bridge_overfit.{md,json,csv,svg,mp4}.

The numbers say that the whole path works (video, actions, loss, sampling). They say nothing about new episodes.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from tabletop_parts import build

from gymnast_core.config import ComponentConfig, load_config
from gymnast_core.rollouts.open_loop import OpenLoop, common_steps, replay_recorded
from gymnast_core.runs.atomic import write_json
from gymnast_core.seeds import seeded_generator
from gymnast_fit.config import FitConfig
from gymnast_pages.open_loop import draw_curves, recorded_and_imagined
from gymnast_pages.video import write_video
from gymnast_worldgym.architecture import CHUNKS

HERE = Path(__file__).parent
PRESET = HERE / "bridge_overfit.yaml"
RESULTS = HERE / "results"
FRAMES = 16
"""Imagined frames that the benchmark is about: what the model's window of 17 holds beside the start frame."""
GOAL_DB = 6.0
"""PSNR above that of the start frame repeated which the run has to reach."""
ATTRIBUTION = (
    "Episodes: BridgeData V2 (Walke et al. 2023, https://rail-berkeley.github.io/bridgedata/), licence CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/); resized to 64×64 pixels. The left halves of the video show them, "
    "the right halves are imagined."
)


def train(folder: str, run: Path) -> str:
    """Run `gymnast fit` unless `run` is finished; the command."""
    overrides = [f"episodes.args.path={folder}", f"output={run}"]
    command = ["gymnast", "fit", f"benchmarks/{PRESET.name}", "episodes.args.path=DIR", f"output={run}"]
    if not (run / "summary.json").exists():
        begun = (run / "config.yaml").exists()
        arguments = ["--resume", str(run)] if begun else [str(PRESET), *overrides]
        subprocess.run([sys.executable, "-m", "gymnast_core.cli", "fit", *arguments], check=True)
    return " ".join(command)


def tile(replayed: OpenLoop, columns: int = 4) -> torch.Tensor:
    """All episodes in one video (T, H, W, C), each recorded | imagined."""
    pairs = [recorded_and_imagined(replayed, index) for index in range(replayed.imagined_BLHWC.shape[0])]
    pairs += [torch.full_like(pairs[0], 255)] * (-len(pairs) % columns)
    padded = [torch.nn.functional.pad(pair, (0, 0, 4, 4, 4, 4), value=255) for pair in pairs]
    rows = [torch.cat(padded[i : i + columns], dim=2) for i in range(0, len(padded), columns)]
    return torch.cat(rows, dim=1)


def table(curves: dict[str, list[float]], frames: list[int]) -> list[str]:
    lines = ["| imagined frame | " + " | ".join(map(str, frames)) + f" | mean of {FRAMES} |"]
    lines.append("|---|" + "---|" * (len(frames) + 1))
    for measure, digits in (("psnr", 1), ("ssim", 3)):
        unit = ", dB" if measure == "psnr" else ""
        for key, label in ((measure, "world model"), (f"{measure}_copy", "start frame repeated")):
            cells = [f"{curves[key][frame - 1]:.{digits}f}" for frame in frames]
            mean = sum(curves[key][:FRAMES]) / FRAMES
            lines.append(f"| {measure.upper()}{unit}: {label} | " + " | ".join(cells) + f" | {mean:.{digits}f} |")
    return lines


def training_minutes(run: Path) -> float:
    with (run / "metrics.csv").open() as file:
        return float(list(csv.DictReader(file))[-1]["seconds"]) / 60


def report(found: dict[str, Any], curves: dict[str, list[float]], gain_B: torch.Tensor, steps: int) -> list[str]:
    """The lines of bridge_overfit.md."""
    return [
        f"Open loop on the {found['episodes']} training episodes: {steps} frames imagined from the first one with the "
        "recorded actions (mean over episodes).",
        "",
        *table(curves, [frame for frame in (1, 2, 4, 8, 12, 16, 20) if frame <= steps]),
        "",
        f"Mean PSNR of {FRAMES} frames: {found['psnr_gain']:+.1f} dB against the start frame repeated "
        f"(goal: {GOAL_DB:+.0f} dB; by "
        f"episode {gain_B.min():+.1f} to {gain_B.max():+.1f} dB); {found['psnr_shuffled']:.1f} dB with the actions of "
        "another episode.",
        "",
        f"Model: {found['parameters'] / 1e6:.1f} M parameters, trained from scratch in "
        f"{found['training_minutes']:.0f} minutes on one busy CPU core (videos are read by a second process) by",
        "",
        f"    {found['command']}",
        "",
        "![PSNR, SSIM and MSE by frame](bridge_overfit.svg)",
        "",
        "Video: [recorded | imagined](bridge_overfit.mp4). This measures memory, not generalisation.",
        "",
        ATTRIBUTION,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", required=True, metavar="DIR", help="Folder of NAME.mp4 + NAME.npz.")
    parser.add_argument("--run", type=Path, default=Path("runs/bridge-overfit"), help="Run folder, made if needed.")
    options = parser.parse_args()
    command = train(options.episodes, options.run)
    config = load_config(FitConfig, str(PRESET), [f"episodes.args.path={options.episodes}"])
    source = build("datasets", config.episodes).episodes()
    episodes = [source[index] for index in range(len(source))]
    world = build("world_models", ComponentConfig("worldgym", {"checkpoint": str(options.run / "checkpoint")}))
    steps = common_steps(episodes, CHUNKS)
    began = time.monotonic()
    replayed = replay_recorded(world, episodes, steps, CHUNKS, seeded_generator(0, "quality"))
    seconds = time.monotonic() - began
    others = [episodes[-1], *episodes[:-1]]
    generator = seeded_generator(0, "quality")
    shuffled = replay_recorded(world, episodes, steps, CHUNKS, generator, actions_of=others).quality()["psnr"]
    model, copy = replayed.quality(), replayed.copy()
    curves = replayed.curves()
    gain_B = (model["psnr"] - copy["psnr"])[:, :FRAMES].mean(1)
    gain = gain_B.mean().item()
    found = {
        "command": command,
        "episodes": len(episodes),
        "frames": FRAMES,
        "psnr_gain": gain,
        "psnr_gain_by_episode": gain_B.tolist(),
        "psnr_shuffled": shuffled[:, :FRAMES].mean().item(),
        "parameters": sum(p.numel() for p in world.module().parameters()),
        "training_minutes": training_minutes(options.run),
        "frames_per_second": len(episodes) * steps / seconds,
        **curves,
    }
    lines = report(found, curves, gain_B, steps)
    write_json(RESULTS / "bridge_overfit.json", found)
    with (RESULTS / "bridge_overfit.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", *curves])
        writer.writerows(zip(range(1, steps + 1), *curves.values(), strict=True))
    (RESULTS / "bridge_overfit.svg").write_text(draw_curves(curves))
    write_video(tile(replayed), RESULTS / "bridge_overfit.mp4", fps=5, min_pixels=256)
    (RESULTS / "bridge_overfit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if gain < GOAL_DB:
        sys.exit(f"The gain is below {GOAL_DB} dB.")


if __name__ == "__main__":
    main()
