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
        "torch._dynamo", "scipy.optimize",
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


def _runs(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_was_deferred_of_the_compiler_is_there_once_something_is_compiled() -> None:
    _runs("""
import sys
from gymnast_core.training.lightly import defer_compiler_of_optimizers
import torch
from lightning.fabric.wrappers import OptimizedModule, _unwrap_compiled
import gymnast_openvla_oft.model
from transformers.modeling_utils import PreTrainedModel
defer_compiler_of_optimizers()
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
plain = torch.nn.Linear(1, 1)
assert "torch._dynamo" not in sys.modules
assert not isinstance(plain, OptimizedModule) and _unwrap_compiled(plain) == (plain, None)
import torch._dynamo
compiled = torch.compile(plain, backend="eager")
assert isinstance(compiled, OptimizedModule) and isinstance(compiled, torch._dynamo.OptimizedModule)
recording = PreTrainedModel.can_record_outputs.fget
assert id(recording) in torch._dynamo.trace_rules._allowed_callable_ids
wrapped = torch.optim.Optimizer.add_param_group.__wrapped__
assert not hasattr(wrapped, "__dynamo_disable")
optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
assert getattr(wrapped, "__dynamo_disable") is not wrapped
""")


def test_a_function_that_scipy_stands_behind_gives_what_scipy_gives() -> None:
    _runs("""
import sys
import gymnast_openvla_oft.model
from transformers.loss import loss_for_object_detection as loss
assert "scipy.optimize" not in sys.modules
rows, columns = loss.linear_sum_assignment([[4, 1, 3], [2, 0, 5], [3, 2, 2]])  # SciPy's own example: 5 in all
assert (rows.tolist(), columns.tolist()) == ([0, 1, 2], [1, 0, 2])
""")


def test_a_stand_in_gives_way_to_the_module_when_more_is_asked_of_it(tmp_path: Path) -> None:
    package = tmp_path / "heavy"
    package.mkdir()
    (package / "__init__.py").write_text("from heavy import inner\nlight, dark = 'true', 'dark'\n")
    (package / "inner.py").write_text("import sys\nsys.times = getattr(sys, 'times', 0) + 1\n")
    (tmp_path / "takes.py").write_text("from heavy import light\n")
    (tmp_path / "takes_more.py").write_text("from heavy import light, dark\n")
    (tmp_path / "takes_inner.py").write_text("from heavy import light\nimport heavy.inner\n")
    for importer in ("takes", "takes_more", "takes_inner"):
        _runs(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from gymnast_core.training.standing_in import stand_in
stand_in({importer!r}, "heavy", {{"light": "standing"}})
import {importer}
assert {importer}.light == "standing"
assert ("heavy" in sys.modules) == ({importer!r} != "takes")
import heavy, heavy.inner
assert heavy.light == "true" and heavy.dark == "dark" and sys.times == 1
assert heavy.inner is sys.modules["heavy.inner"] and heavy.inner.__spec__.origin == heavy.inner.__file__
""")
