"""The run folder: what is needed to believe and to repeat a run. See `RunFolder` for its layout."""

from __future__ import annotations

import csv
import io
import json
import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gymnast_core.errors import ConfigError
from gymnast_core.snapshot import write_text_atomically

_REPORTED_PACKAGES = ("gymnast", "torch", "lightning", "transformers", "mujoco", "gymnasium", "numpy", "av", "safetensors")


class RunFolder:
    """A folder with

    config.yaml     the resolved configuration
    versions.json   Python, platform, packages, git revision, command line
    metrics.csv     one row a step, rewritten atomically; the same numbers in tensorboard/
    snapshots/      what --resume continues from
    """

    def __init__(self, path: Path, *, purge_step: int | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._purge_step = purge_step
        self._tensorboard: Any = None

    @classmethod
    def create(cls, path: Path, config_yaml: str) -> RunFolder:
        """Make a new run folder. Raises `ConfigError` if a run is there already."""
        if (path / "config.yaml").exists():
            raise ConfigError(
                f"{path} already holds a run. Continue it with --resume {path}, or choose another folder with output=…"
            )
        path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path / "versions.json", json.dumps(versions(), indent=1))
        write_text_atomically(path / "config.yaml", config_yaml)
        return cls(path)

    @classmethod
    def reopen(cls, path: Path, *, step: int) -> RunFolder:
        """Open an existing run to continue at `step`; metrics of that step and later are dropped."""
        folder = cls(path, purge_step=step)
        if (path / "metrics.csv").exists():
            with (path / "metrics.csv").open(newline="") as handle:
                rows = [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(handle)]
            folder.rows = [row for row in rows if row["step"] < step]
        return folder

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append one row of metrics to metrics.csv and TensorBoard."""
        self.rows.append({"step": step, **metrics})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text_atomically(self.path / "metrics.csv", text.getvalue())
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge_step)
        for key, value in metrics.items():
            self._tensorboard.add_scalar(key, value, step)

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.path / name, json.dumps(value, indent=1))

    def read_json(self, name: str) -> Any | None:
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def default_run_path(name: str) -> Path:
    """runs/NAME-DATE-TIME under the working directory."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def versions() -> dict[str, Any]:
    """What ran: Python, platform, packages, git revision of the working directory, command line."""
    packages = {}
    for name in _REPORTED_PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "git_revision": revision.stdout.strip() or None,
        "git_dirty": bool(dirty.stdout.strip()) if revision.returncode == 0 else None,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
