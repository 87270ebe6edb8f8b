"""A step's gradient is the sum over its episodes divided by their weight, whoever computes which of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gymnast_core.runs.snapshot import load_latest_snapshot

Ranks = Callable[..., list[int | None]]
EPISODES = "episodes={name: toy-episodes, args: {count: 12, size: 16, judged: true}}"
CLASSIFIER = "{name: success-classifier, args: {instructions: [look], image_size: 16, width: 8, hidden: 16}}"
COMPONENTS = {
    "toy": ["episodes=toy-episodes", "reward_model={name: toy, args: {batch_norm: false, weighed: true}}"],
    # A third of the episodes does not say whether it succeeded, and weighs nothing.
    "classifier": [EPISODES, f"reward_model={CLASSIFIER}"],
}
TWO = "trainer={accelerator: cpu, devices: 2, strategy: ddp}"


def gradient(run: Path) -> Tensor:
    """The gradient of the first step, before clipping: AdamW's first moment is a tenth of it."""
    state = load_latest_snapshot(run / "snapshots")
    assert state is not None and state["step"] == 1
    moments = state["optimizers"][0]["state"]
    return torch.cat([moments[index]["exp_avg"].flatten() for index in sorted(moments)]) * 10


def numbers(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    # "odd" is what only some microbatches measure; time is no result; of what rounds away, the last bit decides.
    skipped = ("seconds", "odd", "unmoved")
    return {name: float(value) for name, value in row.items() if name not in skipped and value}


@pytest.mark.parametrize("component", COMPONENTS)
def test_neither_microbatches_nor_processes_change_a_gradient(component: str, ranks: Ranks, tmp_path: Path) -> None:
    def train(microbatches: int, processes: int) -> Path:
        output = tmp_path / f"{microbatches}-{processes}"
        loop = f"fit={{steps: 1, batch_size: 12, microbatches: {microbatches}, max_grad_norm: 1e9, log_every: 1}}"
        trainer = TWO if processes > 1 else "trainer={accelerator: cpu}"
        arguments = ["fit", *COMPONENTS[component], loop, trainer, f"output={output}"]
        assert ranks(arguments, count=processes) == [0] * processes
        return output

    whole = train(1, 1)
    expected, logged = gradient(whole), numbers(whole)
    assert expected.norm() > 0
    # Three microbatches are shared out unequally.
    for microbatches, processes in ((2, 1), (4, 1), (12, 1), (2, 2), (3, 2), (4, 2)):
        run = train(microbatches, processes)
        difference = (gradient(run) - expected).norm() / expected.norm()
        assert difference <= 1e-5, (microbatches, processes, float(difference))
        assert numbers(run) == pytest.approx(logged, rel=1e-5)
