"""What two training processes tell each other in an iteration, against the size of the frames that they imagine.

    python benchmarks/process_traffic.py [--iterations 3] [--output benchmarks/results/process_traffic.json]

Trains the tabletop in two processes on this machine's CPU and counts, in the leader, the bytes of everything that goes
through `Processes`: counts, labels, metrics and weights of sums on one side, summed gradients on the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gymnast_core.config import RunConfig, load_config
from gymnast_core.plugins.hooks import plugin_manager
from gymnast_core.runs.atomic import write_json
from gymnast_core.training.run import train


class Traffic:
    """Counts what each iteration imagined and told."""

    def __init__(self) -> None:
        self.frames = 0
        self.rows: list[dict[str, float]] = []
        self._told = self._gradients = 0

    def imagined(self, event: Any) -> None:
        """Frames of all processes: each makes as many."""
        count = event.parts.processes.count
        self.frames += count * sum(rollout.frames_TVHWC.nbytes for rollout in event.rollouts)

    def completed(self, event: Any) -> None:
        processes = event.parts.processes
        row = {
            "step": event.step,
            "processes": processes.count,
            "rollouts": event.metrics["rollouts"],
            "frames_bytes": self.frames,
            "told_bytes": processes.bytes_told - self._told,
            "gradient_bytes": processes.gradient_bytes - self._gradients,
        }
        self.rows.append({**row, "told_share": row["told_bytes"] / self.frames})
        self.frames, self._told, self._gradients = 0, processes.bytes_told, processes.gradient_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/process_traffic.json"))
    arguments = parser.parse_args()
    traffic = Traffic()
    hooks = SimpleNamespace(gymnast_rollouts_imagined=traffic.imagined, gymnast_metrics=traffic.completed)
    plugin_manager().add(hooks, "traffic")
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"loop.iterations={arguments.iterations}", "evaluation.tasks=null", f"output={folder}/run"]
        overrides += ["trainer.devices=2", "trainer.strategy=ddp", "loop.imagine_batch_size=128"]
        summary = train(load_config(RunConfig, "tabletop", overrides))
    if summary:  # in the leader
        write_json(arguments.output, traffic.rows)
        json.dump(traffic.rows, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
