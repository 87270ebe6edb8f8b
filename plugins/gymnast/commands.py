"""The commands as functions: the same configs, run folders and errors; what the command line ends with is raised."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnast.overrides import words
from gymnast_core.cli import config_from

if TYPE_CHECKING:
    from gymnast.results import Run

Source = str | Path | Mapping[str, Any] | None
"""A preset's name, or the path of a YAML file; where everything is said, a first change does."""
Change = str | Mapping[str, Any]
""""loop.iterations=2", {"loop.iterations": 2} or {"loop": {"iterations": 2}}."""


def train(source: Source = None, *changes: Change, resume: str | Path | None = None, **keys: Any) -> Run:
    """`gymnast train`: reinforcement learning of a policy inside a world model.

    >>> gymnast.train("tabletop", "loop.iterations=2", seed=1, optimizer={"args": {"learning_rate": 1e-4}})

    `changes` and `keys` go over what `source` says, the last one wins; `resume` is the folder of a run to go on with.
    Returns the finished run. Raises `GymnastError` for what the command line ends with in exit status 2, and
    `KeyboardInterrupt` on Ctrl-C: `gymnast.train(resume=FOLDER)` goes on from the last snapshot.
    """
    from gymnast_core.config import RunConfig

    config = _config(RunConfig, source, changes, keys, resume)
    from gymnast_core.training import run

    return _finished(run.train(config, resume=_path(resume)))


def fit(source: Source = None, *changes: Change, resume: str | Path | None = None, **keys: Any) -> Run:
    """`gymnast fit`: supervised training of a world model, policy or reward model on recorded episodes.

    Arguments and errors as of `train`.

    >>> gymnast.fit("fit-tabletop-policy", "fit.steps=100")
    """
    from gymnast_fit.config import FitConfig

    config = _config(FitConfig, source, changes, keys, resume)
    from gymnast_fit.fit import fit as run

    return _finished(run(config, resume=_path(resume)))


def evaluate(
    source: Source = None,
    *changes: Change,
    resume: str | Path | None = None,
    imagined: bool = False,
    **keys: Any,
) -> Run:
    """`gymnast evaluate`: success of policies in worlds, on the same tasks and seeds; `Run.rows` has a row a trial.

    Arguments and errors as of `train`. The folder of a run as `source` stands for what it left: the trained policy
    beside the one it began with, where the run evaluated them; with `imagined` also in the world that it trained in.

    >>> gymnast.evaluate("evaluate-tabletop", episodes=32)
    >>> gymnast.evaluate(run.path, trials=5)
    """
    from gymnast_evaluation.from_run import evaluate_config

    _let_idle_threads_sleep()
    config, _ = evaluate_config(_arguments(source, changes, keys), _path(resume), imagined=imagined)
    from gymnast_evaluation.command import evaluate_command

    return _finished(evaluate_command(config, resume=_path(resume)))


def judge(source: Source = None, *changes: Change, resume: str | Path | None = None, **keys: Any) -> Run:
    """`gymnast judge`: how good a reward model is, on clips whose outcome is known; `Run.rows` has a row a clip.

    Arguments and errors as of `train`.

    >>> gymnast.judge("judge-tabletop", episodes=16)
    """
    from gymnast_judging.config import JudgeConfig

    config = _config(JudgeConfig, source, changes, keys, resume)
    from gymnast_judging.judge import judge_command

    return _finished(judge_command(config, resume=_path(resume)))


def imagine(source: Source = None, *changes: Change, **keys: Any) -> Run:
    """`gymnast imagine`: a world model under given actions; `Run.videos` show what it imagined.

    Arguments and errors as of `train`; the keyboard is for the command line. `roll_out` lets a policy act instead.

    >>> gymnast.imagine("imagine-tabletop", index=[0], horizon=8)
    """
    from gymnast_core.errors import ConfigError
    from gymnast_imagine.config import ImagineConfig

    config = _config(ImagineConfig, source, changes, keys, None)
    if config.actions == "keyboard":
        raise ConfigError("actions=keyboard is a page that waits for keys: type `gymnast imagine … actions=keyboard`.")
    from gymnast_imagine.command import imagine_command

    return _finished(imagine_command(config))


def _config(
    schema: Any, source: Source, changes: tuple[Change, ...], keys: Mapping[str, Any], resume: str | Path | None
) -> Any:
    _let_idle_threads_sleep()
    return config_from(schema, _arguments(source, changes, keys), _path(resume))


def _let_idle_threads_sleep() -> None:
    """As the command line does. OpenMP reads this when torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _arguments(source: Source, changes: tuple[Change, ...], keys: Mapping[str, Any]) -> tuple[str, ...]:
    """What would be typed behind the command."""
    if isinstance(source, Mapping):
        return tuple(words([source, *changes], keys))
    return (*([] if source is None else [str(source)]), *words(changes, keys))


def _path(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder)


def _finished(summary: Mapping[str, Any]) -> Run:
    from gymnast.results import load_run
    from gymnast_core.errors import GymnastError

    if not summary:
        raise GymnastError("This process follows another one, which has the result. Several start by the command line.")
    return load_run(summary["output"])
