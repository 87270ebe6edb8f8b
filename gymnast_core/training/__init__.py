"""The loop: imagine, judge, update."""

from gymnast_core.training.lightly import defer_torchmetrics

defer_torchmetrics()
