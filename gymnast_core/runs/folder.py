"""The folder of a run: who owns it, and what stands in it first."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gymnast_core.config.load import to_yaml
from gymnast_core.errors import ConfigError
from gymnast_core.runs.atomic import write_text


def open_run_folder(config: Any, name: str, resume: Path | None = None) -> tuple[Any, Path]:
    """The config with `output` set, and that folder: `resume`, or a new one at `output` or runs/NAME-DATE-TIME.

    A new folder begins with the resolved config. Raises `ConfigError` if a run is there already.
    """
    path = resume or Path(config.output or f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}")
    config = replace(config, output=str(path))
    if resume is None:
        if (path / "config.yaml").exists():
            raise ConfigError(
                f"{path} already holds a run. Continue it with --resume {path}, or choose another folder with output=…"
            )
        write_text(path / "config.yaml", to_yaml(config))
    return config, path
