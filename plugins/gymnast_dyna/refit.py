"""A part goes on learning from earlier episodes and from recordings: the refit of a round, and of a run on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from gymnast_core.config import ComponentConfig
from gymnast_core.config.load import expand_names
from gymnast_core.config.typed import typed
from gymnast_core.hub import args_of_saved
from gymnast_core.interfaces import Trainable
from gymnast_core.plugins.compose import registries
from gymnast_core.reading import read_object
from gymnast_dyna.config import RefitConfig
from gymnast_episodes.conversion import Conversion, convert_visibly
from gymnast_episodes.writers import WriterOptions
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
            for path, again in self.replays().items():
                _imagine_once(path, again)
            fit(config, resume=begun(self.folder))
        return loaded_from(self.part, self.folder / "checkpoint")

    def quality(self) -> Mapping[str, Any]:
        """What the validation of a finished refit says, by name."""
        return dict(read_object(self.folder / "summary.json").values["validation"])

    def replays(self) -> dict[Path, dict[str, Any]]:
        """Where each recording is kept under imagined frames, beside the fit: a LeRobot folder, and the arguments of
        the dataset `replayed-episodes` that it is made from. Empty where none is wanted."""
        if not self.how.replayed:
            return {}
        return {
            self.folder.with_name("replayed") / str(number): {
                "episodes": self._recorded(path), "world_model": plain(self.world_model), "seed": self.seed,
            }
            for number, path in enumerate(self.recordings, start=1)
        }  # fmt: skip

    def _episodes(self) -> dict[str, Any]:
        """Earlier episodes first, then every recording, and under imagined frames, too, if that is wanted; last what
        policies imagined."""
        earlier = [] if self.how.earlier is None else [plain(self.how.earlier)]
        later = [self._recorded(path) for path in self.recordings]
        later += [_kept(path) for path in (*self.replays(), *self.imagined)]
        times = [1] * len(earlier) + [self.how.times] * len(later)
        return {"name": "several-episodes", "args": {"of": [*earlier, *later], "times": times}}

    def _recorded(self, path: Path) -> dict[str, Any]:
        return {"name": self.how.recorded.name, "args": {**self.how.recorded.args, "path": str(path)}}


def _kept(path: Path) -> dict[str, Any]:
    return {"name": "lerobot", "args": {"path": str(path)}}


def _imagine_once(path: Path, replayed: Mapping[str, Any]) -> None:
    """Keep recorded episodes under imagined frames, or go on with that. A fit draws each of them many times, in any
    order, and would imagine a whole batch for every one."""
    recorded = replayed["episodes"]
    first = registries().datasets.build(recorded["name"], recorded["args"], key="recorded").episodes()[0]
    # No judge looks at the rate, and not every recording has one.
    options = WriterOptions(frames="png", fps=1.0 if first.fps is None else None)
    convert_visibly(Conversion("replayed-episodes", replayed, "lerobot-v3", path, options))


def lacks(component: Any) -> list[str]:
    """What a component's class would need in order to go on learning, and to be loaded from what it learned."""
    needed = ("module", "training_loss", "save")
    missing = [name for name in needed if getattr(component, name) is getattr(Trainable, name)]
    known = {item.name for item in fields(component.Config)}
    return missing if "checkpoint" in known else [*missing, "Config.checkpoint"]


def loaded_from(part: ComponentConfig, path: Path) -> ComponentConfig:
    """The part, loaded from another checkpoint."""
    return replace(part, args=args_of_saved(part.args, path))


def begun(folder: Path) -> Path | None:
    """The folder of a run that was begun there, to be resumed; before its first snapshot it begins anew there."""
    return folder if (folder / "config.yaml").exists() else None


def plain(part: ComponentConfig) -> dict[str, Any]:
    return {"name": part.name, "args": dict(part.args)}


def built(schema: type[C], values: Mapping[str, Any], section: str) -> C:
    """As a command reads its own file: a part may be given by its bare name."""
    return typed(schema, expand_names(schema, dict(values)), section)
