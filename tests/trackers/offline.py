"""What offline runs hold: W&B's files by its own messages, MLflow's by its own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7


def records(file: Path) -> Iterator[Any]:
    """The messages of a .wandb file, which is framed as LevelDB's logs are: chunks of 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = file.read_bytes(), _HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # a whole message, or its last part
            message = wandb_internal_pb2.Record()
            message.ParseFromString(parts)
            parts = b""
            yield message


def wandb_rows(run: Path) -> list[dict[str, Any]]:
    """The history in all of a run's offline files, in order."""
    rows = []
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(file):
            if record.HasField("history"):
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
                rows[-1].setdefault("_step", record.history.step.num)
    return rows


def wandb_text(run: Path) -> str:
    """Everything of the offline files that is text."""
    files = [file for file in run.glob("wandb/**/*") if file.is_file()]
    return "".join(file.read_bytes().decode(errors="replace") for file in files)


def mlflow_points(uri: str, run: str) -> dict[str, list[tuple[int, float]]]:
    """Every value of every metric, in the order of arrival."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    names = client.get_run(run).data.metrics
    return {name: [(metric.step, metric.value) for metric in client.get_metric_history(run, name)] for name in names}
