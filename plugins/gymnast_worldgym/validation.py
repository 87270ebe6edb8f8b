"""How well imagined frames match recorded ones when recorded actions are replayed from the first frame (open loop).

Shapes: B episodes, L imagined frames, H W C pixels.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Episode, Task
from gymnast_worldgym.views import tall

log = logging.getLogger(__name__)

MAX_STEPS = 20
REPORTED_STEPS = (1, 4, 8, 16, 20)
MEASURES = {"mse": "8-bit grey levels squared", "psnr": "dB", "ssim": "at most 1"}
BATCH, BATCH_PIXELS = 64, 2**18
"""Episodes imagined together, and the pixels of one frame of each, at most: large frames cost a lot of memory."""
ILLUSTRATED = 8
"""Held-out episodes that are shown."""


@dataclass(frozen=True)
class OpenLoop:
    """Episodes replayed in a world model, and what was recorded; several cameras below each other (`views`)."""

    imagined_BLHWC: Tensor
    """uint8."""
    recorded_BTHWC: Tensor
    """uint8, T = 1 + L: the start frame, then the frames that `imagined_BLHWC` should be."""

    def quality(self) -> dict[str, Tensor]:
        """Each measure (B, L) of the imagined frames."""
        return compare(self.imagined_BLHWC, self.recorded_BTHWC[:, 1:])

    def copy(self) -> dict[str, Tensor]:
        """Each measure (B, L) of a world that stands still: the start frame, the last one seen, repeated."""
        return compare(self.recorded_BTHWC[:, :1], self.recorded_BTHWC[:, 1:])

    def copy_previous(self) -> dict[str, Tensor]:
        """Each measure (B, L) of the recorded frame before."""
        return compare(self.recorded_BTHWC[:, :-1], self.recorded_BTHWC[:, 1:])

    def curves(self) -> dict[str, list[float]]:
        """Each measure by frame, mean over the episodes: `psnr`, …, and `psnr_copy`, … of the start frame repeated."""
        both = {"": self.quality(), "_copy": self.copy()}
        return {f"{m}{c}": values_BL.mean(0).tolist() for c, found in both.items() for m, values_BL in found.items()}


def open_loop_quality(
    world_model: WorldModel, episodes: Sequence[Episode], generator: torch.Generator
) -> dict[str, float]:
    """MSE (8-bit grey levels squared), PSNR (dB) and SSIM by frame and on average, with controls.

    `psnr_copy` repeats the first frame: the score of a world where nothing moves. `psnr_copy_previous`
    shows the recorded frame before. `psnr_shuffled` replays the actions of another episode, half of all away: close to
    `psnr` would mean that the actions are ignored. The same for `mse_` (lower is better) and `ssim_`.
    """
    steps = common_steps(episodes)
    longest = min(MAX_STEPS, max(len(episode.frames_TVHWC) for episode in episodes) - 1)
    if steps < longest:
        log.warning(
            "Validation imagines %d frames, which the shortest held-out episode has, not %d. Leave short ones out: "
            "short_episodes=leave_out, or the dataset's window.", steps, longest,
        )  # fmt: skip
    totals: dict[str, Tensor] = {}
    size = _batch_size(episodes)
    # Neighbours may be crops of one recording.
    half = len(episodes) // 2
    others = [*episodes[half:], *episodes[:half]] if half else []
    for start in range(0, len(episodes), size):
        part = slice(start, start + size)
        for name, values_L in _batch(world_model, episodes[part], others[part], steps, generator).items():
            totals[name] = totals.get(name, torch.zeros(steps)) + values_L / len(episodes)
    quality: dict[str, float] = {}
    for measure in MEASURES:
        for name in (measure, f"{measure}_copy"):
            quality |= {f"{name}_{step}": totals[name][step - 1].item() for step in REPORTED_STEPS if step <= steps}
    return quality | {name: values_L.mean().item() for name, values_L in totals.items()}


def _batch(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    others: Sequence[Episode],
    steps: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Sum over the batch of each measure, per step (L,); with the actions of as many others, unless there are none."""
    replayed = replay(world_model, episodes, steps, generator)
    found = {"": replayed.quality(), "_copy": replayed.copy(), "_copy_previous": replayed.copy_previous()}
    if others:
        found["_shuffled"] = replay(world_model, episodes, steps, generator, actions_of=others).quality()
    return {
        f"{measure}{control}": values_BL.sum(0)
        for control, values in found.items()
        for measure, values_BL in values.items()
    }


def common_steps(episodes: Sequence[Episode], most: int = MAX_STEPS) -> int:
    """Frames that can be imagined of every episode, at most `most`."""
    steps = min(most, min((len(e.frames_TVHWC) for e in episodes), default=1) - 1)
    if steps < 1:
        raise DataError("Validation needs episodes of at least 2 frames.")
    return steps


def _batch_size(episodes: Sequence[Episode]) -> int:
    return max(1, min(BATCH, BATCH_PIXELS // math.prod(episodes[0].frames_TVHWC.shape[2:4])))


def replay(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    steps: int,
    generator: torch.Generator,
    *,
    actions_of: Sequence[Episode] | None = None,
) -> OpenLoop:
    """Imagine `steps` frames of each episode from its first frame and its own actions, or those of as many others.

    Episodes hold the cameras that the world model imagines, in its order.
    """
    actions_BLA = torch.stack([e.actions_TA[:steps] for e in (episodes if actions_of is None else actions_of)])
    tasks = [Task(e.id, e.instruction, e.frames_TVHWC[:1], e.cameras) for e in episodes]
    state = world_model.reset(tasks, generator=generator)
    frames = [tall(world_model.step(state, chunk).frames_BLVHWC).cpu() for chunk in actions_BLA.split(4, dim=1)]
    recorded = [tall(episode.frames_TVHWC[: steps + 1]) for episode in episodes]
    return OpenLoop(torch.cat(frames, dim=1), torch.stack(recorded))


def compare(imagined_BLHWC: Tensor, recorded_BLHWC: Tensor) -> dict[str, Tensor]:
    """Each measure (B, L) of uint8 frames, which may be broadcast; episode by episode, to keep it in memory."""
    pairs = list(zip(imagined_BLHWC.expand_as(recorded_BLHWC), recorded_BLHWC, strict=True))
    functions = {"mse": mse, "psnr": psnr, "ssim": ssim}
    return {name: torch.stack([function(*pair) for pair in pairs]) for name, function in functions.items()}


def mse(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Mean squared error (...) of uint8 frames (..., H, W, C), 8-bit grey levels squared."""
    return (imagined.float() - recorded.float()).square().mean(dim=(-3, -2, -1))


def psnr(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (...) of uint8 frames (..., H, W, C), dB, at most 60."""
    return 10 * torch.log10(255.0**2 / mse(imagined, recorded).clamp(min=255.0**2 / 1e6))


def ssim(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Structural similarity (...) of uint8 frames (..., H, W, C): at most 1, mean over channels and window positions.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861), eq. 13, with its 11×11 Gaussian window of standard deviation 1.5
    pixels at every position where it lies inside the frame; a frame of less than 11 pixels has a smaller window.
    """
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    x, y = (frames.movedim(-1, -3).flatten(0, -3)[:, None].float() for frames in (imagined, recorded))
    radius = (min(11, *x.shape[-2:]) - 1) // 2
    weights = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * 1.5**2))
    weights = (weights / weights.sum()).to(x.device)

    def local_mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x.square()
    variance_y = local_mean(y * y) - mean_y.square()
    covariance = local_mean(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + low) * (2 * covariance + high)
    similar = similar / ((mean_x.square() + mean_y.square() + low) * (variance_x + variance_y + high))
    return similar.mean(dim=(-3, -2, -1)).view(*imagined.shape[:-3], -1).mean(-1)


def illustrate(
    world_model: WorldModel, episodes: Sequence[Episode], directory: Path, generator: torch.Generator
) -> None:
    """Show a few of the episodes, evenly spread over them: EPISODE.mp4 (recorded | imagined), and how good they are.

    `curves.csv` and `curves.json` hold MSE, PSNR and SSIM by frame, of the model and of a world that stands still (the
    start frame repeated), `curves.svg` draws them.
    """
    from gymnast_pages.video import write_video

    count = min(ILLUSTRATED, len(episodes))
    shown = [episodes[index * len(episodes) // count] for index in range(count)]
    steps = common_steps(shown)
    size = _batch_size(shown)
    parts = [replay(world_model, shown[i : i + size], steps, generator) for i in range(0, count, size)]
    replayed = OpenLoop(*(torch.cat([getattr(p, f) for p in parts]) for f in ("imagined_BLHWC", "recorded_BTHWC")))
    for index in range(count):
        write_video(side_by_side(replayed, index), directory / f"episode-{index}.mp4")
    write_curves(replayed, [episode.id for episode in shown], directory)


def side_by_side(replayed: OpenLoop, index: int) -> Tensor:
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
    from gymnast_pages.charts import HEIGHT, WIDTH, Chart, Point, Series

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
