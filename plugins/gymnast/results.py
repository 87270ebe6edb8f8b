"""A run folder, read: numbers as dataclasses and tables, videos that show themselves, parts to go on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast.films import Film
from gymnast.tables import Table
from gymnast_core.config.scalars import read_yaml
from gymnast_core.errors import ConfigError, DataError
from gymnast_core.hub import args_of_saved
from gymnast_core.plugins.registry import registries
from gymnast_core.reading import as_object, read_json_lines
from gymnast_core.runs.results import Difference, Evaluation, position, read_run
from gymnast_pages.built import PAGES

if TYPE_CHECKING:
    from gymnast_core.interfaces import Policy, RewardModel, WorldModel

log = logging.getLogger(__name__)

_REGISTRIES = {"world_model": "world_models", "policy": "policies", "reward_model": "reward_models"}
_SHOWN_FILMS = 4


@dataclass(frozen=True)
class Run:
    """What a command left in its folder; of a run that goes on, what is there so far."""

    path: Path
    kind: str
    """The command: "train", "fit", "evaluate", "judge" or "imagine"."""
    config: Mapping[str, Any]
    """The resolved config, nested."""
    summary: Mapping[str, Any]
    """What the command printed; empty until the run is complete."""
    metrics: Table = field(repr=False)
    """A row a step (metrics.csv); empty for commands without steps."""
    evaluations: Mapping[str, Evaluation]
    """Of a training, by label: "before", "iteration-000005", "after"."""
    difference: Difference | None
    """What a training changed: the evaluation after it minus the one before it; None where it was not measured."""

    @property
    def page(self) -> Path | None:
        """The page that shows the run, where one was written."""
        return next((self.path / name for name in PAGES if (self.path / name).is_file()), None)

    @property
    def checkpoint(self) -> Path | None:
        """What was trained; None if nothing was, or if the run is not complete."""
        folder = self.path / ("policy" if self.kind == "train" else "checkpoint")
        return folder if folder.is_dir() else None

    @cached_property
    def rows(self) -> Table:
        """Of an evaluation a row a trial, of a judge's measurement a row a clip (results.jsonl)."""
        file = self.path / "results.jsonl"
        return Table(_numbered(file) if file.is_file() else [])

    @cached_property
    def videos(self) -> list[Film]:
        """The videos of the folder, as they are named."""
        about = {clip["file"]: clip for clip in _clips(self.path / "videos")}
        films = []
        for path in sorted((self.path / "videos").glob("**/*.mp4")):
            known = about.get(path.name, {})
            films.append(Film(path, str(known.get("title") or path.stem), known))
        return films

    def policy(self) -> Policy:
        """The trained policy, or else the one that the run began with; built anew."""
        found: Policy = self._build("policy")
        return found

    def world_model(self) -> WorldModel:
        """The run's world model (the trained one of a fit), built anew."""
        found: WorldModel = self._build("world_model")
        return found

    def reward_model(self) -> RewardModel:
        """The run's reward model (the trained one of a fit), built anew."""
        found: RewardModel = self._build("reward_model")
        return found

    def _build(self, key: str) -> Any:
        part = self.config.get(key)
        if part is None:
            raise DataError(f"{self.path} has no {key}: its config.yaml names none.")
        registry = getattr(registries(), _REGISTRIES[key])
        name, args = part["name"], dict(part.get("args") or {})
        if self.checkpoint is None or not (self.kind == "fit" or key == "policy"):
            return registry.build(name, args, key=key)
        try:
            return registry.build(name, args_of_saved(args, self.checkpoint), key=key)
        except ConfigError as refused:
            # What a checkpoint fixes may be refused beside one.
            found = registry.build(name, {"checkpoint": str(self.checkpoint)}, key=key)
            log.warning("%s is built from %s alone, without the run's %s.args: %s", name, self.checkpoint, key, refused)
            return found

    def _repr_html_(self) -> str:
        lines = [f"<b>{escape(self.kind)}</b> {escape(str(self.path))}"]
        for label, found in self.evaluations.items():
            if found.rate is not None:
                what = "success" if found.reward_kind == "success" else "mean reward"
                bounds = "" if found.interval is None else f" [{found.interval[0]:.3g}, {found.interval[1]:.3g}]"
                lines.append(
                    f"{escape(label)}: {what} {found.rate:.3g}{bounds}, n = {found.n}, in {escape(found.world)}, "
                    f"judged by {escape(found.reward_model)}"
                )
        films = "".join(film._repr_html_() for film in self.videos[-_SHOWN_FILMS:])
        return "<br>".join(lines) + f'<div style="display:flex;gap:8px;flex-wrap:wrap">{films}</div>'


def load_run(folder: str | Path) -> Run:
    """Read the folder of a run, finished or not. Raises `DataError` if it is none, or if a file in it is damaged.

    >>> gymnast.load_run("runs/openvla-oft-20260101-120000").metrics.column("imagined_success")
    """
    found = read_run(Path(folder))
    try:
        config = read_yaml(found.config)
    except ConfigError as error:
        raise DataError(f"{found.path / 'config.yaml'} is damaged: {error}. Restore it.") from error
    if not isinstance(config, dict):
        raise DataError(f"{found.path / 'config.yaml'} holds no keys. Restore it.")
    metrics = [{"step": int(position(row) or 0), **_without(row, ("step", "iteration"))} for row in found.metrics]
    return Run(
        path=found.path,
        kind=str(config.pop("kind", "train")),
        config=config,
        summary=found.summary,
        metrics=Table(metrics),
        evaluations=found.evaluations,
        difference=found.difference,
    )


def _without(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _numbered(file: Path) -> list[dict[str, Any]]:
    return [dict(as_object(row, str(file)).values) for row in read_json_lines(file, allow_nan=True)]


def _clips(videos: Path) -> list[Mapping[str, Any]]:
    """What is known of a training's videos."""
    from dataclasses import asdict

    from gymnast_report.gallery import read_clips

    return [asdict(clip) for clip in read_clips(videos)]
