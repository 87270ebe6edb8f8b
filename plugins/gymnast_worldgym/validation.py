"""How well imagined frames match recorded ones when recorded actions are replayed from the first frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.types import Episode, Task

MAX_STEPS = 20
REPORTED_STEPS = (1, 4, 8, 16, 20)
BATCH = 64


def open_loop_quality(
    world_model: WorldModel, episodes: Sequence[Episode], generator: torch.Generator
) -> dict[str, float]:
    """PSNR (dB, higher is better) by frame and on average, with controls.

    `psnr_copy` repeats the first frame: the score of a world where nothing moves. `psnr_copy_previous`
    shows the recorded frame before. `psnr_shuffled` replays another episode's actions: close to `psnr`
    would mean that the actions are ignored.
    """
    steps = min(MAX_STEPS, min((e.frames_THWC.shape[0] for e in episodes), default=1) - 1)
    if steps < 1:
        raise DataError("Validation needs episodes of at least 2 frames.")
    totals: dict[str, Tensor] = {}
    for start in range(0, len(episodes), BATCH):
        batch = episodes[start : start + BATCH]
        for name, psnr_L in _batch_psnr(world_model, batch, steps, generator).items():
            totals[name] = totals.get(name, torch.zeros(steps)) + psnr_L / len(episodes)
    reported = [step for step in REPORTED_STEPS if step <= steps]
    quality = {f"psnr_{step}": totals["psnr"][step - 1].item() for step in reported}
    quality |= {f"psnr_copy_{step}": totals["psnr_copy"][step - 1].item() for step in reported}
    return quality | {name: psnr_L.mean().item() for name, psnr_L in totals.items()}


def psnr(imagined: Tensor, recorded: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (..., ) of uint8 frames (..., H, W, C), dB, at most 60."""
    mse = (imagined.float() - recorded.float()).square().mean(dim=(-3, -2, -1))
    return 10 * torch.log10(255.0**2 / mse.clamp(min=255.0**2 / 1e6))


def _batch_psnr(
    world_model: WorldModel, episodes: Sequence[Episode], steps: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Sum over the batch of each measure, per step (L,)."""
    frames = torch.stack([e.frames_THWC[: steps + 1] for e in episodes])
    actions = torch.stack([e.actions_TA[:steps] for e in episodes])
    tasks = [Task(e.id, e.instruction, e.frames_THWC[:1]) for e in episodes]
    recorded = frames[:, 1:]
    measures = {
        "psnr": psnr(_replay(world_model, tasks, actions, generator), recorded),
        "psnr_copy": psnr(frames[:, :1], recorded),
        "psnr_copy_previous": psnr(frames[:, :-1], recorded),
    }
    if len(episodes) > 1:
        measures["psnr_shuffled"] = psnr(_replay(world_model, tasks, actions.roll(1, dims=0), generator), recorded)
    return {name: values_BL.sum(0) for name, values_BL in measures.items()}


def _replay(world_model: WorldModel, tasks: list[Task], actions_BLA: Tensor, generator: torch.Generator) -> Tensor:
    state = world_model.reset(tasks, generator=generator)
    frames = [world_model.step(state, chunk) for chunk in actions_BLA.split(4, dim=1)]
    return torch.cat(frames, dim=1).cpu()
