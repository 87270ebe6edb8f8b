"""A part goes on learning from earlier episodes and from recordings: the refit of a round, and of a run on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.load import expand_names
from gymnast_core.config.typed import typed
from gymnast_core.interfaces import Trainable
from gymnast_core.reading import read_object
from gymnast_dyna.config import RefitConfig
from gymnast_fit.config import FitConfig
from gymnast_fit.fit import fit

C = TypeVar("C")
SECTIONS = {"world_model": "world", "reward_model": "judge"}
"""What can be refitted, and where a config says how."""


@dataclass(frozen=True)
class Refit:
    """One part's refit."""

    how: RefitConfig
    key: str
    """"world_model" or "reward_model"."""
    part: ComponentConfig
    """What goes on learning, as it is loaded now."""
    world_model: ComponentConfig
    """The world in which recordings are replayed for a judge."""
    recordings: Sequence[Path]
    """Read as `how` says."""
    seed: int
    folder: Path
    """Of the fit: a run folder."""
    section: str
    """Where the config says how, for messages: "world"."""
    hooks: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    imagined: Sequence[Path] = ()
    """What policies imagined, under true labels: LeRobot recordings."""

    def config(self) -> FitConfig:
        """What `gymnast fit` is told. Raises `ConfigError` that names the key."""
        values = {
            **self.how.fit,
            self.key: {"name": self.part.name, "args": {**self.part.args, **self.how.args}},
            "episodes": self._episodes(), "hooks": dict(self.hooks), "seed": self.seed, "output": str(self.folder),
        }  # fmt: skip
        return built(FitConfig, values, f"{self.section}.fit")

    def work(self) -> ComponentConfig:
        """Fit it, or go on where that stopped; the part, loaded from what it learned. Nothing is done twice."""
        config = self.config()
        if not (self.folder / "summary.json").exists():
            fit(config, resume=begun(self.folder))
        return loaded_from(self.part, self.folder / "checkpoint")

    def quality(self) -> Mapping[str, Any]:
        """What the validation of a finished refit says, by name."""
        return dict(read_object(self.folder / "summary.json").values["validation"])

    def _episodes(self) -> dict[str, Any]:
        """Earlier episodes first, then every recording, and under imagined frames, too, if that is wanted; last what
        policies imagined."""
        how = self.how
        datasets = [] if how.earlier is None else [plain(how.earlier)]
        times = [1] * len(datasets)
        for path in self.recordings:
            recorded = {"name": how.recorded.name, "args": {**how.recorded.args, "path": str(path)}}
            sources = [recorded]
            if how.replayed:
                seen = {"episodes": recorded, "world_model": plain(self.world_model), "seed": self.seed}
                sources.append({"name": "replayed-episodes", "args": seen})
            datasets += sources
            times += [how.times] * len(sources)
        datasets += [{"name": "lerobot", "args": {"path": str(path)}} for path in self.imagined]
        times += [how.times] * len(self.imagined)
        return {"name": "several-episodes", "args": {"of": datasets, "times": times}}


def lacks(component: Any) -> list[str]:
    """What a component's class would need in order to go on learning, and to be loaded from what it learned."""
    needed = ("module", "training_loss", "save")
    missing = [name for name in needed if getattr(component, name) is getattr(Trainable, name)]
    known = {item.name for item in fields(component.Config)}
    return missing if "checkpoint" in known else [*missing, "Config.checkpoint"]


def loaded_from(part: ComponentConfig, path: Path) -> ComponentConfig:
    """The part, loaded from another checkpoint."""
    return replace(part, args={**part.args, "checkpoint": str(path)})


def begun(folder: Path) -> Path | None:
    """The folder of a run that was begun there, to be resumed; before its first snapshot it begins anew there."""
    return folder if (folder / "config.yaml").exists() else None


def plain(part: ComponentConfig) -> dict[str, Any]:
    return {"name": part.name, "args": dict(part.args)}


def built(schema: type[C], values: Mapping[str, Any], section: str) -> C:
    """As a command reads its own file: a part may be given by its bare name."""
    return typed(schema, expand_names(schema, dict(values)), section)
