"""What `gymnast dyna` is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_collect.config import CollectConfig
from gymnast_core.config import ComponentConfig, RunConfig
from gymnast_core.config.alone import refuse_several_processes
from gymnast_core.config.ranges import Choices, Count, Range, Seed
from gymnast_core.errors import ConfigError
from gymnast_evaluation.config import EvaluateConfig
from gymnast_fit.config import FitConfig

IN_SEVERAL = (
    "To learn in several, run the stages as commands of their own: `gymnast collect`, `gymnast fit`, `gymnast train`, "
    "`gymnast evaluate`."
)


@dataclass(frozen=True)
class RefitConfig:
    """How a part goes on learning from what was recorded."""

    fit: dict[str, Any] = field(default_factory=dict)
    """Keys of `gymnast fit` but for the part and its episodes: fit, validation, trainer, ..."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the part while it learns, over those that it is used with (pixel weights and the like)."""
    recorded: ComponentConfig = field(default_factory=lambda: ComponentConfig("lerobot"))
    """How recordings are read: a dataset whose argument `path` each refit sets to every recording."""
    earlier: ComponentConfig | None = None
    """Episodes that it learned from before, which come along, lest it forgets."""
    times: Count = 1
    """How often each recorded episode counts beside an earlier one."""
    replayed: bool = False
    """Of judges: learn from the recorded episodes under imagined frames, too, as the world model of the round shows
    them. A judge in imagination sees nothing else."""


@dataclass(frozen=True)
class JudgeRefitConfig(RefitConfig):
    """How the judge goes on learning."""

    imagined: dict[str, Any] | None = None
    """Also from what the policy of the round does in the world model of the round, under labels that are true of its
    actions: keys of the dataset `imagined-episodes` but for policy, world_model and seed (tasks, horizon, fps, truth).
    A policy that was rewarded by mistake shows there what the judge must not believe. null: not from that."""


@dataclass(frozen=True)
class StopConfig:
    """When rounds end before the last."""

    least_gain: Annotated[float, Range(least=-1, most=1)] | None = None
    """Gain over the best policy before (0.02: two points of success) below which a round counts as fruitless; null:
    none does. The first policy and that of round 0 may be the best before; a round that could not be scored is neither
    fruitless nor anything to compare with."""
    patience: Count = 1
    """Fruitless rounds in a row, those that could not be scored left out, after which no more are begun."""


@dataclass(frozen=True)
class DynaConfig:
    """`gymnast dyna`: rounds of collect, refit, train and evaluate."""

    kind: ClassVar[str] = "dyna"
    sections: ClassVar[dict[str, Any]] = {
        "collect": CollectConfig, "world.fit": FitConfig, "judge.fit": FitConfig, "train": RunConfig,
        "evaluate": EvaluateConfig,
    }  # fmt: skip
    """Sections that are other commands' configs, each but for what a round adds."""
    policy: ComponentConfig
    """The policy to begin with; later rounds go on with the trained one."""
    world_model: ComponentConfig
    reward_model: ComponentConfig
    train: dict[str, Any]
    """Keys of `gymnast train` but for the three parts: optimizer, tasks, loop, ... It learns in one process, as refits
    do: `trainer.devices` names one, `trainer.num_nodes` is 1."""
    evaluate: dict[str, Any]
    """Keys of `gymnast evaluate` but for the policies: tasks, worlds or world_model, rewards or reward_model, ..."""
    collect: dict[str, Any] | None = None
    """Keys of `gymnast collect` but for who acts, which is the policy of the round before, and without the `seeds` of
    environments: each round begins a million after the `first` of the round before. null: a person records, and adds
    to `recordings`."""
    temperature: Annotated[float, Range(least=0)] = 1.0
    """Sampling temperature of the policy while it is recorded."""
    recordings: list[str] = field(default_factory=list)
    """Without `collect`: a recording for each round, in order. A round whose recording is missing waits for it."""
    world: RefitConfig | None = None
    """How the world model goes on learning; null: it stays as it is."""
    judge: JudgeRefitConfig | None = None
    """How the judge goes on learning; null: it stays as it is."""
    begin: Annotated[str, Choices("collect", "train")] = "collect"
    """What comes first: collect, or train: a round 0 in the world model as it is."""
    rounds: Count = 2
    """Rounds of collect, refit, train and evaluate, at most."""
    stop: StopConfig = field(default_factory=StopConfig)
    seed: Seed = 0
    output: str | None = None
    """Folder of the rounds; None makes runs/dyna-<date>-<time>."""
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What hook plugins are told, by plugin, in every part: hooks.NAME.KEY."""

    def __post_init__(self) -> None:
        if self.collect is not None and self.recordings:
            raise ConfigError("Recordings come from collect or from recordings. Give one of them.")
        if self.world is None and self.judge is None:
            raise ConfigError(
                "Neither world nor judge is refitted, so recording changes nothing. Set world.fit.fit.steps=N."
            )
        for key in ("world", "judge"):
            if (refit := getattr(self, key)) is not None:
                check_refit(refit, key)
        imagined = None if self.judge is None else self.judge.imagined
        if imagined is not None:
            if taken := sorted(set(imagined) & set(IMAGINED_OWNED)):
                raise ConfigError(f"judge.imagined.{taken[0]} is set by the rounds themselves. Leave it out.")
            if imagined.get("fps") is None:
                raise ConfigError(
                    "judge.imagined.fps: how many actions a second does the robot take? What the policy imagines is "
                    "kept as a recording, which has to say so."
                )
        for key, owned in OWNED.items():
            if taken := sorted(set(getattr(self, key) or {}) & set(owned)):
                raise ConfigError(f"{key}.{taken[0]} is set by the rounds themselves. Leave it out of {key}.")
        _refuse_listed_seeds(self.collect or {})
        for key, options in self._trainers():
            refuse_several_processes(options, key, IN_SEVERAL)

    def _trainers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The key of every stage's section `trainer`, and what it says."""
        sections = {"train": self.train}
        sections |= {f"{key}.fit": refit.fit for key in ("world", "judge") if (refit := getattr(self, key)) is not None}
        for key, section in sections.items():
            if isinstance(options := section.get("trainer"), Mapping):
                yield f"{key}.trainer", options


OWNED = {
    "train": ("policy", "world_model", "reward_model", "output", "seed", "hooks"),
    "evaluate": ("policy", "policies", "output", "seed", "hooks"),
    "collect": ("actor", "actors", "output", "seed"),
}
"""Keys of the parts' configs that each round sets."""
IMAGINED_OWNED = ("policy", "world_model", "seed")
"""Keys of the dataset `imagined-episodes` that each round sets."""
FIT_OWNED = ("policy", "world_model", "reward_model", "episodes", "output", "seed", "hooks")
"""Keys of `gymnast fit` that whoever refits sets."""


def _refuse_listed_seeds(collect: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for environments that start from a list of seeds, which would be the same in every round."""
    families = collect.get("environments")
    for place, family in enumerate(families if isinstance(families, list) else []):
        if isinstance(family, Mapping) and family.get("seeds"):
            raise ConfigError(
                f"collect.environments[{place}].seeds would start every round from the same seeds. Give first and "
                "count instead: each round begins a million after the one before."
            )


def check_refit(refit: RefitConfig, section: str) -> None:
    """Raises `ConfigError` for what a refit of a world (`section` ends in "world") or a judge cannot be told."""
    if refit.replayed and section.endswith("world"):
        raise ConfigError(f"{section}.replayed: a world model learns from what was seen, not from what it imagined.")
    if taken := sorted(set(refit.fit) & set(FIT_OWNED)):
        raise ConfigError(f"{section}.fit.{taken[0]} is set by each refit itself. Leave it out of {section}.fit.")
    if "path" in refit.recorded.args:
        raise ConfigError(
            f"{section}.recorded.args.path is set to each recording. Leave it out; episodes from elsewhere belong to "
            f"{section}.earlier."
        )
