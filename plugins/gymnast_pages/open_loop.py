"""Pictures of recorded actions replayed in a world model: recorded beside imagined, and curves by frame."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gymnast_core.interfaces import WorldModel
from gymnast_core.measures import MEASURES
from gymnast_core.rollouts.open_loop import Chunks, OpenLoop, batch_size, common_steps, replay_recorded
from gymnast_core.types import Episode
from gymnast_pages.charts import HEIGHT, WIDTH, Chart, Point, Series
from gymnast_pages.video import write_video

ILLUSTRATED = 8
"""Held-out episodes that are shown."""


def illustrate(
    world_model: WorldModel, episodes: Sequence[Episode], chunks: Chunks, directory: Path, generator: torch.Generator
) -> None:
    """Show a few of the episodes, evenly spread over them: EPISODE.mp4 (recorded | imagined), and how good they are.

    `curves.csv` and `curves.json` hold MSE, PSNR and SSIM by frame, of the model and of a world that stands still (the
    start frame repeated), `curves.svg` draws them.
    """
    count = min(ILLUSTRATED, len(episodes))
    shown = [episodes[index * len(episodes) // count] for index in range(count)]
    steps = common_steps(shown, chunks)
    size = batch_size(shown)
    parts = [replay_recorded(world_model, shown[i : i + size], steps, chunks, generator) for i in range(0, count, size)]
    replayed = OpenLoop(*(torch.cat([getattr(p, f) for p in parts]) for f in ("imagined_BLHWC", "recorded_BTHWC")))
    for index in range(count):
        write_video(recorded_and_imagined(replayed, index), directory / f"episode-{index}.mp4")
    write_curves(replayed, [episode.id for episode in shown], directory)


def recorded_and_imagined(replayed: OpenLoop, index: int) -> Tensor:
    """One episode's frames (T, H, W + gap + W, C): recorded on the left, imagined on the right; the same start."""
    recorded_THWC = replayed.recorded_BTHWC[index]
    imagined_THWC = torch.cat([recorded_THWC[:1], replayed.imagined_BLHWC[index]])
    gap_THWC = torch.full_like(recorded_THWC[:, :, : max(2, recorded_THWC.shape[2] // 32)], 255)
    return torch.cat([recorded_THWC, gap_THWC, imagined_THWC], dim=2)


def write_curves(replayed: OpenLoop, ids: Sequence[str], directory: Path) -> None:
    """`curves.csv`, `.json` and `.svg` in `directory`: each measure by frame, mean over the episodes."""
    curves = replayed.curves()
    frames = list(range(1, len(curves["psnr"]) + 1))
    with (directory / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *curves])
        writer.writerows(zip(frames, *curves.values(), strict=True))
    content = {"episodes": list(ids), "units": MEASURES, "frame": frames, **curves}
    (directory / "curves.json").write_text(json.dumps(content, indent=1) + "\n")
    (directory / "curves.svg").write_text(draw_curves(curves))


def draw_curves(curves: Mapping[str, Sequence[float]]) -> str:
    """A self-contained SVG: one panel a measure, the model's curve and that of the start frame repeated."""
    panels = []
    for index, (name, unit) in enumerate(MEASURES.items()):
        lines = [
            Series(label, [Point(frame, value) for frame, value in enumerate(curves[key], 1)])
            for label, key in (("world model", name), ("start frame repeated", f"{name}_copy"))
        ]
        values = [point.y for line in lines for point in line.points]
        margin = 0.05 * (max(values) - min(values)) or 1.0
        bounds = (min(values) - margin, max(values) + margin)
        label = f"{name.upper()} ({unit})"
        chart = Chart(label, label, lines, y_range=bounds, x_label="imagined frame").svg()
        place = f'<svg x="0" y="{30 + index * HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        panels.append(str(chart).replace("<svg ", place, 1))
    style = (
        "svg{font:12.5px system-ui,sans-serif;background:#fff}.grid{stroke:#dfe2e6}.axis{fill:none;stroke:#5b636d}"
        ".tick{fill:#5b636d}.line{fill:none;stroke-width:2}.s0 .line{stroke:#2563c9}.s1 .line{stroke:#c2570c}"
        ".s0 circle,.k0{fill:#2563c9}.s1 circle,.k1{fill:#c2570c}"
    )
    key = '<text class="k0" x="72" y="20">world model</text><text class="k1" x="180" y="20">start frame repeated</text>'
    height = 30 + HEIGHT * len(panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    return f"{head}<style>{style}</style>{key}{''.join(panels)}</svg>\n"
