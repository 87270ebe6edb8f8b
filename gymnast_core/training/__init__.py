"""The loop: imagine, judge, update."""

from gymnast_core.training.lightly import defer_compiler, defer_torchmetrics

defer_torchmetrics()
defer_compiler()
