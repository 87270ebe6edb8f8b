"""Two cameras predicted together, against two models of one camera each: do their pictures agree?

    python benchmarks/cameras.py [--steps 4000] [--joint-steps STEPS] [--camera-weights [2,1]] [--episodes 400]
                                 [--data data/tabletop-cameras] [--output runs/cameras]

On the tabletop with its second camera, which moves with the end-effector, three world models are fitted to the same
recordings with the same settings, beginning with the shipped model of the front camera: `both` imagines front and wrist
together, `front` and `wrist` one each. The pair has twice the parameters and, at equal `--steps`, twice the steps, at
the same cost; `--joint-steps` gives the one model as many. All imagine the same held-out episodes from their first
frames and recorded actions. Measured are PSNR by camera, and how well the cameras agree: where a block is relative to
the end-effector, by the front picture and by the wrist picture (centres of the largest blob of its colour, through the
cameras' known geometry). Of the blocks that both recorded pictures show whole: the share that both imagined ones show
whole and within a centimetre of each other, and the same of the blocks of which the wrist camera's first picture shows
nothing: where they are, only the front camera knows. Of all that either imagined picture shows where both cameras look:
the share that both show at one place. The share of the wrist camera's pictures that show a colour which no block has:
the front picture knows all blocks. And, where every row shows a block whole, how far apart they show it; that alone
would favour a model that loses what is hard. The recorded pictures say what these measures show at best. Runs that
ended are not repeated, killed ones go on. Writes benchmarks/results/cameras.{json,md}; needs `gymnast collect
collect-tabletop-cameras` (it says so).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from commands import gymnast
from scipy import ndimage
from torch import Tensor

from gymnast_core.measures import psnr
from gymnast_core.plugins.registry import registries
from gymnast_core.seeds import seeded_generator
from gymnast_core.statistics import score_interval
from gymnast_core.types import Episode, Task
from gymnast_tabletop.geometry import CAMERAS, EFFECTOR_HEIGHT, WRIST_ZOOM, scale
from gymnast_tabletop.scene import BLOCK_SIZE, COLOURS
from gymnast_tabletop.wishful import colour_mask

RESULTS = Path(__file__).parent / "results"
MODELS: dict[str, tuple[str, ...]] = {"both": CAMERAS, "front": ("front",), "wrist": ("wrist",)}
STEPS = (1, 4, 8, 16)
"""Frames that the table shows."""
NAMES = {"recorded": "recorded", "both": "one model of both cameras", "pair": "two models, one camera each"}
"""Rows of the table."""
FEWEST = 12
"""Pixels of a block that must be seen for its place to be measured."""
IN_VIEW = 0.5 / scale(BLOCK_SIZE) / WRIST_ZOOM - BLOCK_SIZE / 2**0.5
"""Metres from the end-effector, an axis, up to which the wrist camera shows a block whole, however it is turned."""
TOGETHER = 1.0
"""Centimetres up to which two pictures show a block at one place: a pixel of the front camera."""


def fitted(name: str, arguments: argparse.Namespace) -> Path:
    """The checkpoint of one of the three models, fitted if it is not there."""
    steps = arguments.joint_steps if name == "both" else arguments.steps
    folder = arguments.output / (name if steps == arguments.steps else f"{name}-{steps}")
    if not (folder / "summary.json").exists():
        arguments.output.mkdir(parents=True, exist_ok=True)
        recorded = arguments.data / "play" / "episodes"
        shares = arguments.camera_weights if name == "both" else "null"
        weights = [f"world_model.args.camera_weights={shares}"]
        start = [
            "fit-tabletop-cameras-world-model", f"world_model.args.cameras=[{','.join(MODELS[name])}]", *weights,
            f"episodes.args.path={recorded}", f"validation.args.path={recorded}", f"fit.steps={steps}",
            f"output={folder}",
        ]  # fmt: skip
        more = ["--resume", str(folder)] if (folder / "snapshots").exists() else start
        gymnast("fit", *more, log=arguments.output / f"{name}.log")
    return folder / "checkpoint"


def imagined(checkpoint: Path, episodes: Sequence[Episode], steps: int) -> dict[str, Tensor]:
    """Frames (N, T, H, W, C) by camera, the start frame first."""
    world = registries().world_models.build("worldgym", {"checkpoint": str(checkpoint), "compute_dtype": "auto"})
    cameras = world.architecture.cameras
    frames = []
    for first in range(0, len(episodes), 50):
        part = episodes[first : first + 50]
        tasks = [Task(e.id, e.instruction, e.frames_TVHWC[:1], e.cameras) for e in part]
        state = world.reset(tasks, generator=seeded_generator(first, "cameras"))
        actions = torch.stack([e.actions_TA[:steps] for e in part])
        frames.append(torch.cat([world.step(state, chunk).frames_BLVHWC for chunk in actions.split(4, dim=1)], dim=1))
    start = recorded(episodes, 0)
    together = torch.cat(frames)
    return {name: torch.cat([start[name], together[:, :, v]], dim=1) for v, name in enumerate(cameras)}


def recorded(episodes: Sequence[Episode], steps: int) -> dict[str, Tensor]:
    return {name: torch.stack([e.view(name)[: steps + 1] for e in episodes]) for name in CAMERAS}


def masks(frames: Tensor) -> dict[str, np.ndarray]:
    """bool (..., H, W) of what is red, green, blue, yellow, or dark as the end-effector."""
    found = {colour: colour_mask(frames, colour).numpy() for colour in COLOURS}
    return {**found, "end-effector": (frames < 90).all(-1).numpy()}


def blobs(mask: np.ndarray, fewest: int = FEWEST) -> list[np.ndarray]:
    """The connected parts (H, W) of a mask (H, W) that have as many pixels, the largest first."""
    parts, count = ndimage.label(mask)
    found = [parts == number for number in range(1, count + 1)]
    return sorted((part for part in found if part.sum() >= fewest), key=np.sum, reverse=True)


def at_edge(blob: np.ndarray) -> bool:
    return bool(blob[0].any() or blob[-1].any() or blob[:, 0].any() or blob[:, -1].any())


def centre(blob: np.ndarray) -> np.ndarray:
    """Right and up from the middle of the picture, as shares of its width (2,)."""
    rows, columns = np.nonzero(blob)
    size = blob.shape[-1]
    return np.array([columns.mean() + 0.5 - size / 2, size / 2 - rows.mean() - 0.5]) / size


def by_front(blob: np.ndarray, effector: np.ndarray) -> np.ndarray:
    """Where a block is, metres from the end-effector (2,), by their places in a front picture."""
    metres: np.ndarray = centre(blob) / scale(BLOCK_SIZE) - centre(effector) / scale(EFFECTOR_HEIGHT)
    return metres


def by_wrist(blob: np.ndarray) -> np.ndarray:
    """The same by a picture of the wrist camera."""
    metres: np.ndarray = centre(blob) / scale(BLOCK_SIZE) / WRIST_ZOOM
    return metres


def disagreement(frames: Mapping[str, Tensor]) -> np.ndarray:
    """Centimetres (N, T, colours) between where front and wrist show a block, by the largest blob of its colour; NaN
    where one shows it in part or not."""
    front, wrist = masks(frames["front"]), masks(frames["wrist"])
    episodes, steps = frames["front"].shape[:2]
    found = np.full((episodes, steps, len(COLOURS)), np.nan)
    for n, t in np.ndindex(episodes, steps):
        effector = blobs(front["end-effector"][n, t], fewest=1)
        for c, colour in enumerate(COLOURS):
            there, here = blobs(front[colour][n, t]), blobs(wrist[colour][n, t])
            if effector and there and here and not at_edge(there[0]) and not at_edge(here[0]):
                apart = by_front(there[0], effector[0]) - by_wrist(here[0])
                found[n, t, c] = 100 * np.linalg.norm(apart)
    return found


def agreement(frames: Mapping[str, Tensor]) -> np.ndarray:
    """Of all that either picture shows where both cameras look, frames after the first: the share (N,) that both show,
    in one colour and no more than `TOGETHER` apart. NaN for an episode in which nothing is shown there.

    Asks the pictures alone, not the recording: what is shown twice or in a wrong colour counts against both kinds of
    models, what both pictures have lost against none.
    """
    front, wrist = masks(frames["front"]), masks(frames["wrist"])
    episodes, steps = frames["front"].shape[:2]
    agreed, every = np.zeros(episodes), np.zeros(episodes)
    for n, t in np.ndindex(episodes, steps):
        effector = blobs(front["end-effector"][n, t], fewest=1)
        if t == 0 or not effector:
            continue
        for colour in COLOURS:
            there = [(by_front(blob, effector[0]), at_edge(blob)) for blob in blobs(front[colour][n, t])]
            here = [by_wrist(blob) for blob in blobs(wrist[colour][n, t]) if not at_edge(blob)]
            for place in here:
                near = [one for one in there if 100 * np.linalg.norm(one[0] - place) <= TOGETHER]
                agreed[n] += bool(near)
                every[n] += 1
                there = [one for one in there if not near or one is not near[0]]
            every[n] += sum(not cut and np.abs(place).max() <= IN_VIEW for place, cut in there)
    return np.where(every > 0, agreed / np.maximum(every, 1), np.nan)


def by_episode(apart_NTC: np.ndarray) -> np.ndarray:
    """Mean over frames after the first and colours (N,); NaN for an episode in which nothing is known."""
    values_NX = apart_NTC[:, 1:].reshape(len(apart_NTC), -1)
    known_N = (~np.isnan(values_NX)).sum(axis=1)
    return np.where(known_N > 0, np.nansum(values_NX, axis=1) / np.maximum(known_N, 1), np.nan)


def together(apart_NTC: np.ndarray, truth: Mapping[str, Tensor], *, entering: bool = False) -> np.ndarray:
    """Of the blocks that both recorded pictures show whole, frames after the first: the share (N,) that both pictures
    show whole at one place; NaN for an episode without such blocks. With `entering`, of those blocks alone that the
    wrist camera's first recorded picture does not show."""
    there = ~np.isnan(disagreement(truth))[:, 1:]
    if entering:
        there &= hidden_at_first(truth["wrist"])[:, None]
    agree = there & (apart_NTC[:, 1:] <= TOGETHER)  # no number is at no place
    known_N = there.sum(axis=(1, 2))
    return np.where(known_N > 0, agree.sum(axis=(1, 2)) / np.maximum(known_N, 1), np.nan)


def hidden_at_first(wrist: Tensor) -> np.ndarray:
    """bool (N, colours): no pixel of the block is in the first picture (N, T, H, W, C) of the wrist camera."""
    found = masks(wrist[:, 0])
    return np.stack([~found[colour].any(axis=(-2, -1)) for colour in COLOURS], axis=-1)


def invented(wrist: Tensor, truth: Mapping[str, Tensor]) -> np.ndarray:
    """Share (N,) of the pictures (N, T, H, W, C) of the wrist camera after the first in which a colour is seen that no
    block has in the recorded pictures."""
    shown, there = masks(wrist[:, 1:]), masks(truth["front"][:, 0])
    false = [
        (shown[colour].sum((-2, -1)) >= FEWEST) & ~(there[colour].sum((-2, -1)) >= FEWEST)[:, None]
        for colour in COLOURS
    ]
    return np.any(false, axis=0).mean(axis=1)


def known_values(values_N: np.ndarray) -> np.ndarray:
    return values_N[~np.isnan(values_N)]


def summary(
    apart_NTC: np.ndarray, everywhere_NTC: np.ndarray, frames: Mapping[str, Tensor], truth: Mapping[str, Tensor]
) -> dict[str, object]:
    """Of one row: how far apart its cameras are where every row shows the block whole (`everywhere_NTC`), the share of
    blocks that it shows whole at all, of those that the recorded pictures do, and the quality of its pictures."""
    apart_N = by_episode(np.where(everywhere_NTC, apart_NTC, np.nan))
    known = known_values(apart_N)
    by_step = np.nanmean(np.where(everywhere_NTC, apart_NTC, np.nan), axis=(0, 2))
    there = ~np.isnan(disagreement(truth))[:, 1:]
    agreed = known_values(together(apart_NTC, truth))
    entered = known_values(together(apart_NTC, truth, entering=True))
    false = invented(frames["wrist"], truth)
    alike = known_values(agreement(frames))
    return {
        "together": float(agreed.mean()),
        "together interval": score_interval(agreed),
        "together episodes": len(agreed),
        "entering": float(entered.mean()),
        "entering interval": score_interval(entered),
        "entering episodes": len(entered),
        "agreement": float(alike.mean()),
        "agreement interval": score_interval(alike),
        "agreement episodes": len(alike),
        "invented": float(false.mean()),
        "invented interval": score_interval(false),
        "cm": float(known.mean()),
        "interval": score_interval(known),
        "episodes": len(known),
        "cm by frame": {step: float(by_step[step]) for step in STEPS},
        "shown": float((~np.isnan(apart_NTC)[:, 1:] & there).sum() / there.sum()),
        "psnr": {
            name: {step: float(psnr(frames[name][:, step], truth[name][:, step]).mean()) for step in STEPS}
            for name in frames
        },
    }


def write(found: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cameras.json").write_text(json.dumps(found, indent=1) + "\n")
    headings = [
        "Pictures",
        "blocks that both cameras show at one place, % [95 %]",
        "of those that come into the wrist camera's view, % [95 %]",
        "of all that either picture shows, both show at one place, % [95 %]",
        "shown whole by both at all, %",
        "wrist pictures with a colour that no block has, % [95 %]",
        "where all rows show it: cameras apart, cm, mean over frames 1 to 16 [95 %]",
        *(f"frame {step}" for step in STEPS),
        f"PSNR front, dB, at {' / '.join(map(str, STEPS))}",
        "PSNR wrist, dB",
    ]
    lines = [
        "# Two cameras imagined together, and two models of one camera each",
        "",
        f"`python benchmarks/cameras.py --steps {arguments.steps} --joint-steps {arguments.joint_steps} "
        f"--camera-weights {arguments.camera_weights} --episodes {arguments.episodes}`: {found['what']}",
        "",
        _row(headings),
        _row(["---"] * len(headings)).replace(" ", ""),
        *(_row(_cells(name, found[row])) for row, name in NAMES.items()),
        "",
        f"One model minus two, by episode: {_difference(found['difference'])}. One training seed each.",
    ]
    (RESULTS / "cameras.md").write_text("\n".join(lines) + "\n")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(name: str, one: Mapping[str, Any]) -> list[str]:
    quality = [" / ".join(f"{one['psnr'][camera][step]:.1f}" for step in STEPS) for camera in CAMERAS]
    return [
        name,
        f"{100 * one['together']:.1f} {_bounds(one['together interval'], 100)}",
        f"{100 * one['entering']:.1f} {_bounds(one['entering interval'], 100)}",
        f"{100 * one['agreement']:.1f} {_bounds(one['agreement interval'], 100)}",
        f"{100 * one['shown']:.1f}",
        f"{100 * one['invented']:.1f} {_bounds(one['invented interval'], 100)}",
        f"{one['cm']:.2f} {_bounds(one['interval'])}",
        *(f"{one['cm by frame'][step]:.2f}" for step in STEPS),
        *(["", ""] if name == "recorded" else quality),
    ]


def _difference(found: Mapping[str, Any]) -> str:
    points = {
        "together": "of blocks at one place",
        "entering": "of those that come into view",
        "agreement": "of all that either picture shows",
        "invented": "of wrist pictures with an invented colour",
    }
    parts = [
        f"{100 * found[measure]['mean']:+.1f} points {of} {_bounds(found[measure]['interval'], 100)} (n = "
        f"{found[measure]['episodes']})"
        for measure, of in points.items()
    ]
    apart = found["apart"]
    return f"{', '.join(parts)}, {apart['mean']:+.2f} cm apart {_bounds(apart['interval'])} (n = {apart['episodes']})"


def difference(both_N: np.ndarray, pair_N: np.ndarray) -> dict[str, object]:
    """One model minus two, of episodes in which both are known."""
    values = known_values(both_N - pair_N)
    return {"mean": float(values.mean()), "interval": score_interval(values), "episodes": len(values)}


def _bounds(interval: tuple[float, float] | None, factor: float = 1.0) -> str:
    if interval is None:
        return "(no spread)"
    low, high = (factor * bound for bound in interval)
    return f"[{low:.1f}, {high:.1f}]" if factor > 1 else f"[{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--joint-steps", type=int, help="of the model of both cameras; as the others, unless given")
    parser.add_argument("--camera-weights", default="[2,1]", help="of front and wrist in the loss of both")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--data", type=Path, default=Path("data/tabletop-cameras"))
    parser.add_argument("--output", type=Path, default=Path("runs/cameras"))
    arguments = parser.parse_args()
    arguments.joint_steps = arguments.joint_steps or arguments.steps
    held_out = arguments.data / "held-out" / "episodes"
    if not held_out.exists():
        raise SystemExit(
            f"{held_out} is missing. Record it:\n"
            f"  gymnast collect collect-tabletop-cameras output={arguments.data}/play\n"
            f"  gymnast collect collect-tabletop-cameras output={arguments.data}/held-out seed=2 "
            f"'environments=[{{id: gymnast/Tabletop-v0, name: tabletop, first: 300000, count: {arguments.episodes}, "
            "args: {image_size: 32, horizon: 20, wrist: true}}]'"
        )
    checkpoints = {name: fitted(name, arguments) for name in MODELS}
    dataset = registries().datasets.build("lerobot", {"path": str(held_out)})
    episodes = list(dataset.episodes())[: arguments.episodes]
    steps = max(STEPS)
    truth = recorded(episodes, steps)
    parts = {name: imagined(checkpoint, episodes, steps) for name, checkpoint in checkpoints.items()}
    both, pair = parts["both"], {**parts["front"], **parts["wrist"]}
    rows = {"recorded": truth, "both": both, "pair": pair}
    apart = {name: disagreement(frames) for name, frames in rows.items()}
    # A block that a bad picture loses must not take the worst cases away: all rows are measured at the same places.
    everywhere = ~np.isnan(sum(apart.values()))
    found: dict[str, object] = {name: summary(apart[name], everywhere, frames, truth) for name, frames in rows.items()}
    found["difference"] = {
        "together": difference(*(together(apart[name], truth) for name in ("both", "pair"))),
        "entering": difference(*(together(apart[name], truth, entering=True) for name in ("both", "pair"))),
        "agreement": difference(*(agreement(parts) for parts in (both, pair))),
        "invented": difference(*(invented(parts["wrist"], truth) for parts in (both, pair))),
        "apart": difference(*(by_episode(np.where(everywhere, apart[name], np.nan)) for name in ("both", "pair"))),
    }
    found["what"] = (
        f"{len(episodes)} held-out episodes; the shipped model of the front camera trained for {arguments.steps} steps "
        "of 24 clips of 8 frames each"
        + (f" ({arguments.joint_steps} the model of both)" if arguments.joint_steps != arguments.steps else "")
        + ", one seed. Two pictures show a block at one place if both show it whole, no more than "
        f"{TOGETHER:.0f} cm apart relative to the end-effector; shares are of the blocks that both recorded pictures "
        "show whole."
    )
    write(found, arguments)


if __name__ == "__main__":
    main()
