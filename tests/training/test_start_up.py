"""What a training imports on its way to the first rollout, and what stays usable of what it does not."""

import json
import subprocess
import sys
from pathlib import Path

START = """
import json, os, sys
from gymnast_core import cli
from gymnast_core.training import run
build_parts = run.build_parts
def build(*arguments, **options):
    parts = build_parts(*arguments, **options)
    def step(state, actions):
        print(json.dumps(sorted(sys.modules)), flush=True)
        os._exit(0)
    parts.world_model.step = step
    return parts
run.build_parts = build
cli.main()
"""
METRICS = """
import gymnast_core.training
{first}
import torchmetrics, torchmetrics.metric
from lightning.pytorch.core.module import Metric
assert Metric is torchmetrics.Metric is torchmetrics.metric.Metric
mean = torchmetrics.MeanMetric()
assert isinstance(mean, Metric)
mean.update(1.0), mean.update(2.0)
assert mean.compute() == 1.5
from torchmetrics import functional
assert functional.mean_squared_error is torchmetrics.functional.mean_squared_error
"""


def test_a_training_begins_to_roll_out_without_what_only_reports_and_metrics_need(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, "train", "tabletop", "evaluation.tasks=null", "loop.tasks_per_iteration=1"]
    done = subprocess.run([*command, f"output={tmp_path}/run"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout))
    assert "lightning" in imported
    needless = {
        "scipy.stats", "scipy.signal", "torchmetrics.functional", "torchmetrics.classification", "matplotlib", "pandas",
        "pyarrow", "sklearn", "openai", "anthropic", "tensorboard.compat.tensorflow_stub",
    }  # fmt: skip
    assert not needless & imported


def test_the_metrics_that_lightning_does_not_need_are_there_when_a_hook_does() -> None:
    for first in ("import lightning", "import torchmetrics.classification"):
        done = subprocess.run([sys.executable, "-c", METRICS.format(first=first)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_torchmetrics_of_another_inner_order_is_imported_whole() -> None:
    program = METRICS.format(first="import lightning").replace(
        "import gymnast_core.training",
        "from gymnast_core.training import lightly\n"
        "import sys\n"
        "for name in [name for name in sys.modules if name.startswith('torchmetrics')]: del sys.modules[name]\n"
        "lightly._HOMES = {**lightly._HOMES, 'Metric': 'no_such_module'}\n"
        "lightly.defer_torchmetrics()",
        1,
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
