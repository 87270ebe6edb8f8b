"""What `gymnast collect` is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from gymnast_collect.amounts import check_amount
from gymnast_core.config import ComponentConfig
from gymnast_core.config.ranges import Choices, Count, Fraction, Positive, Range, Seed, ZeroOrMore
from gymnast_core.errors import ConfigError, unknown_name
from gymnast_environment.families import Family, check_families
from gymnast_environment.hosting import Hosting
from gymnast_environment.view import View

KINDS = ("policy", "expert", "random")


@dataclass(frozen=True)
class NoiseConfig:
    """What is added to an actor's actions.

    `white`, `drift` and `gain` are a number, or a range [least, most] of which each episode draws one. The first two
    are shares of half the action range: 1 is as much as the largest action.
    """

    white: Any = 0.0
    """Standard deviation of noise that is new at each action."""
    drift: Any = 0.0
    """Standard deviation of noise that changes slowly."""
    drift_actions: Positive = 8.0
    """Actions after which the slow noise has forgotten 63 % of what it was."""
    gain: Any = 1.0
    """Factor on the actor's own actions."""
    dimensions: list[ZeroOrMore] | None = None
    """Action dimensions, from 0, that get noise and gain; null: all of them."""

    def __post_init__(self) -> None:
        check_amount("noise.white", self.white, Range(least=0))
        check_amount("noise.drift", self.drift, Range(least=0))
        check_amount("noise.gain", self.gain, Range())


@dataclass(frozen=True)
class ActorConfig:
    """Who acts."""

    kind: Annotated[str, Choices(*KINDS)]
    """policy: a policy decides. expert: a scripted expert. random: random actions."""
    name: str | None = None
    """What its episodes are labelled with in attempts.jsonl; null: its kind."""
    weight: Positive = 1.0
    """How often it acts: its share among the weights of the actors of a family."""
    families: list[str] = field(default_factory=list)
    """Names of the environments in which it acts; empty: in all."""
    policy: ComponentConfig | None = None
    """The policy of the kind `policy`."""
    temperature: Annotated[float, Range(least=0)] = 1.0
    """Its sampling temperature; 0 takes the most likely actions."""
    function: str | None = None
    """The expert as "module:function", called beside the environment as function(environment, observation); null: the
    environment's own `expert_action()`."""
    hold: Any = 0.0
    """Of random actions: 0 draws each anew, uniformly between the limits; more makes a walk whose direction lasts about
    that many actions. A number, or a range [least, most] of which each episode draws one."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """What is added to its actions."""

    def __post_init__(self) -> None:
        check_amount("hold", self.hold, Range(least=0))
        if (self.kind == "policy") != (self.policy is not None):
            raise ConfigError(
                f"An actor of kind {self.kind!r} has "
                + ("no policy: set policy=NAME and policy.args there." if self.policy is None else "a policy; drop it.")
            )
        if self.function is not None and self.kind != "expert":
            raise ConfigError(f"An actor of kind {self.kind!r} has no use for function={self.function}.")

    @property
    def label(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True)
class CollectConfig:
    """`gymnast collect`: episodes of an actor in Gymnasium environments.

    Attempt i of an environment is a function of `seed` and i alone, however many run at once.
    """

    kind: ClassVar[str] = "collect"
    environments: list[Family]
    """Where to act: `count` is the number of episodes that are kept, `first` or `seeds` where attempts start."""
    view: View = field(default_factory=View)
    """How the environments are looked at, and so what is recorded."""
    hosting: Hosting = field(default_factory=Hosting)
    """Where they live."""
    constant_start: bool = False
    """Take environments that show the same start whatever their seed."""
    actor: ActorConfig | None = None
    """Who acts."""
    actors: list[ActorConfig] = field(default_factory=list)
    """Instead of `actor`: several, of whom each attempt draws one by weight."""
    horizon: Count = 40
    """Actions an episode, at most."""
    stop_after_success: ZeroOrMore | None = None
    """Actions that are recorded after the first success; null: the episode goes on to its horizon."""
    keep: Annotated[str, Choices("all", "successes")] = "all"
    """Which attempts are kept."""
    attempts: Count | None = None
    """Attempts of each environment, at most; null: as many as its `seeds`, without these a hundred times its count."""
    order: Annotated[str, Choices("family", "interleaved")] = "family"
    """Environment by environment, which uses each again and again, or one episode of each in turn."""
    parallel: Count | None = None
    """Episodes under way at once; null: as many as `hosting` steps at once."""
    to: str = "lerobot-v3"
    """Format of the recording, as of `gymnast convert`."""
    frames: Annotated[str, Choices("lossless", "video", "png")] = "lossless"
    """lossless: video that reads back to the very pixels. video: near-lossless and smaller where scenes are rich. png:
    lossless pictures inside the tables of LeRobot."""
    fps: Positive | None = None
    """Actions a second; null: what the environment's metadata says (render_fps), over view.action_repeat."""
    robot: str | None = None
    """Kind of robot, where the format notes it."""
    device: str = "auto"
    """torch device of policies; auto: cuda where there is one."""
    max_error_rate: Fraction = 0.2
    """Share of attempts that crash, each tried twice, above which the recording stops, to be resumed."""
    seed: Seed = 0
    output: str | None = None
    """Folder; null makes runs/collect-<date>-<time>. The recording is its folder `episodes`."""

    def __post_init__(self) -> None:
        check_families(self.environments, instructed=self.view.instruction_key is not None)
        for family in self.environments:
            check_count(family)
        labels = [family.label for family in self.environments]
        for actor in self.all_actors():
            if strange := [name for name in actor.families if name not in labels]:
                raise ConfigError(
                    f"The families of actor {actor.label!r}: {unknown_name('family', strange[0], labels)}"
                )
        for label in labels:
            self.actors_of(label)

    def all_actors(self) -> Sequence[ActorConfig]:
        """The single actor, or the several."""
        if (self.actor is None) == (not self.actors):
            raise ConfigError(
                "Give one of actor and actors: actor.kind=expert, or actors=[{kind: expert, weight: 3}, …]."
            )
        return self.actors if self.actor is None else [self.actor]

    def actors_of(self, label: str) -> Sequence[int]:
        """Which of them act in a family. Raises `ConfigError` if none does."""
        found = [i for i, actor in enumerate(self.all_actors()) if not actor.families or label in actor.families]
        if not found:
            raise ConfigError(f"No actor acts in {label!r}: name it among the `families` of one.")
        return found


def check_count(family: Family) -> None:
    """Raises `ConfigError` for a family of which nobody knows how many episodes are wanted."""
    if family.count is None and not family.seeds:
        raise ConfigError(f"environments: {family.label!r} has no count: say how many episodes are to be kept.")
    if family.count is not None and family.listed is not None and family.count > family.listed:
        raise ConfigError(
            f"environments: {family.label!r} has {family.listed} seeds, fewer than its count {family.count}."
        )


def wanted(family: Family) -> int:
    """Episodes to keep of a family."""
    return family.count if family.count is not None else family.listed or 0
