"""What the kill matrix kills: the commands on models that take seconds, how they are started, and what they leave."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from forked import Forked

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "run")]

from rights import obey_permissions  # noqa: E402
from small import Models, save_models  # noqa: E402

from gymnast_core import cli  # noqa: E402

ENVIRONMENT = {**os.environ, "OPENAI_API_KEY": "loopback", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
LOG = "log.txt"
os.environ.update(ENVIRONMENT)


@dataclass(frozen=True)
class Command:
    """A command that can be killed: how it begins, how it goes on, and what must be equal in the end."""

    name: str
    start: Callable[[Path], list[str]]
    resume: Callable[[Path], list[str]]
    begun: Callable[[Path], bool]
    """Whether there is something to go on from."""
    results: Sequence[str]
    """Patterns of the files that are compared."""
    prepare: Callable[[Path], object] = lambda run: None
    """Makes what the command works on, before its first start."""
    writes: Sequence[str] = ()
    """Patterns of the folders that it writes within the run's."""
    beside: Sequence[str] = ()
    """Folders that it writes beside the run's."""


def commands(folder: Path) -> list[Command]:
    models = save_models(folder / "models")
    train = [
        "tabletop", *models.overrides(), "reward_model={name: random, args: {probability: 0.5}}", "loop.iterations=4",
        "optimizer.args.minibatch_size=2", "evaluation.every=2",
    ]  # fmt: skip
    train = [word for word in train if not word.startswith(("output=", "reward_model.args."))]
    tasks = "tasks={name: tabletop, args: {count: 6, image_size: 32, horizon: 4}}"
    policy = f"policy={{name: openvla-oft, args: {{checkpoint: {models.policy}, chunk_length: 2}}}}"
    evaluate = [
        policy, "world_model=gymnasium", "reward_model=environment", tasks, "horizon=4", "batch_size=2", "videos=2",
    ]  # fmt: skip
    fit = [
        f"world_model={{name: worldgym, args: {{checkpoint: {models.world}}}}}",
        f"episodes={{name: tabletop-episodes, args: {{path: {folder / 'play'}, window: 6}}}}",
        "fit={steps: 12, batch_size: 4, warmup_steps: 2, ema: 0.9, checkpoint_every: 3, log_every: 2}",
    ]
    return [
        Command("train", lambda run: ["train", *train, f"output={run}"], lambda run: ["train", "--resume", str(run)],
                has("config.yaml"), ("policy/*.safetensors", "metrics.csv", "evaluations/*.json"),
                writes=("snapshots", "evaluations", "rollouts", "rollouts/*", "policy", "tensorboard", "videos",
                        "judging")),
        Command("fit", lambda run: ["fit", *fit, f"output={run}"], lambda run: ["fit", "--resume", str(run)],
                has("config.yaml"), ("checkpoint/*.safetensors", "metrics.csv"),
                writes=("snapshots", "checkpoint", "tensorboard")),
        Command("evaluate", lambda run: ["evaluate", *evaluate, f"output={run}"],
                lambda run: ["evaluate", "--resume", str(run)], has("config.yaml"),
                ("results.jsonl", "summary.json"), writes=("videos", "videos/*")),
        Command("bench", lambda run: ["bench", str(bench_file(folder, train)), f"output={run}"],
                lambda run: ["bench", "--resume", str(run)], has("config.yaml"),
                ("cells/*/run/policy/*.safetensors", "cells/*/run/metrics.csv"),
                writes=("cells", "cells/*", "cells/*/run", "cells/*/run/*")),
        Command("rescore", rescore, rescore, has("config.yaml"), ("rescored/*/results.jsonl",),
                lambda run: shutil.copytree(folder / "train" / "whole", run), writes=("rescored", "rescored/*")),
    ]  # fmt: skip


def judged(folder: Path, url: str) -> Command:
    """A training whose judge, on a server at this address, remembers its answers in a folder of its own."""
    models = folder / "models"
    known = Models(*(models / name for name in ("policy", "three", "world", "judge")))
    words = [word for word in known.overrides() if not word.startswith(("output=", "reward_model", "evaluation.tasks"))]

    def start(run: Path) -> list[str]:
        cache = run.parent / "cache" / "answers.sqlite"
        args = {"base_url": url, "model": "loopback", "votes": 1, "cache": str(cache)}
        args |= {"prices": {"loopback": {"input": 1.0, "output": 4.0}}, "frames": {"size": 16}}
        judge = {"name": "openai-compatible", "args": args}
        return ["train", "tabletop", *words, f"reward_model={json.dumps(judge)}", "loop.iterations=3",
                "evaluation.tasks=null", f"output={run}"]  # fmt: skip

    return Command(
        "train with a judge's cache", start, lambda run: ["train", "--resume", str(run)], has("config.yaml"),
        ("policy/*.safetensors", "metrics.csv"), writes=("snapshots", "policy"), beside=("cache",),
    )  # fmt: skip


def rescore(run: Path) -> list[str]:
    """Another judge on what a training kept."""
    return ["rescore", str(run), "--all", "reward_model={name: random, args: {probability: 0.5, seed: 3}}"]


def bench_file(folder: Path, train: Sequence[str]) -> Path:
    """Two cells of the small training."""
    path = folder / "bench.yaml"
    values = {"kind": "bench", "base": "tabletop", "overrides": list(train[1:]), "jobs": 1, "threads": 1}
    values["axes"] = {"rate": ["optimizer.args.learning_rate=1e-4", "optimizer.args.learning_rate=2e-4"]}
    path.write_text(json.dumps(values))
    return path


def has(name: str) -> Callable[[Path], bool]:
    return lambda run: (run / name).exists()


class Process(Forked):
    """`gymnast WORDS`, forked from a process that has imported everything: that is seconds sooner.

    `limit`: bytes of a file at most. `obeys`: permissions hold for it as for anybody, also where we are root.
    """

    def __init__(self, words: Sequence[str], folder: Path, *, limit: int | None = None, obeys: bool = False) -> None:
        # Through a pipe: the limit is for what a command writes, not for what it says.
        with (folder / LOG).open("ab") as log:
            self._said = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
        assert self._said.stdin is not None
        with self._said.stdin as pipe:
            arguments = (list(words), folder, DupFd(pipe.fileno()), limit, obeys)
            super().__init__(FORKS.Process(target=_command, args=arguments))

    def wait(self, timeout: float | None = None) -> int:
        code = super().wait(timeout)
        self._said.wait(10)
        return code


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["gymnast_core.training.run", "gymnast_fit.fit", "gymnast_evaluation.command", "gymnast_judging.rescore",
     "gymnast_bench.bench", "gymnast_report.report", "gymnast_worldgym.world_model", "gymnast_openvla_oft.policy",
     "gymnast_environment.world", "gymnast_vlm_reward.openai_judges", "gymnast_tabletop.environment"]
)  # fmt: skip


def _command(words: list[str], folder: Path, said: Any, limit: int | None, obeys: bool) -> None:
    """The command, in a process that is forked for it."""
    os.setsid()
    pipe = said.detach()
    os.dup2(pipe, 1)
    os.dup2(pipe, 2)
    os.close(pipe)
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a shell has started
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if obeys:
        obey_permissions()
    sys.argv = ["gymnast", *words]
    cli.main()


def kill(process: Process) -> None:
    """End the process and those that it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def digest(path: Path) -> str:
    """Of a file's content, without what says how long something took and where it lies."""
    if path.suffix == ".json":
        return hashlib.sha256(
            json.dumps(without_times(json.loads(path.read_text())), sort_keys=True).encode()
        ).hexdigest()
    if path.suffix == ".csv":
        header, *rows = (line.split(",") for line in path.read_text().splitlines())
        kept = [i for i, name in enumerate(header) if not is_incidental(name)]
        return hashlib.sha256(repr([[row[i] for i in kept] for row in (header, *rows)]).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_incidental(name: str) -> bool:
    """Whether numbers of this name say how long something took, or what it cost: an answer that is remembered is free.

    Everything else must be equal.
    """
    return name.startswith("seconds") or name in ("rollouts_per_second", "cost_usd")


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if not is_incidental(key) and key != "output"}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def names_in(folder: Path) -> set[str]:
    """Everything in a folder, hidden files left out."""
    return {
        f"{where}/{name}"
        for where, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if not name.startswith(".")
    }


def results(command: Command, run: Path) -> dict[str, str]:
    files = sorted({path for pattern in command.results for path in run.glob(pattern)})
    return {str(path.relative_to(run)): digest(path) for path in files}


def record(folder: Path) -> None:
    """A few recorded episodes of the tabletop."""
    command = [
        sys.executable,
        "-m",
        "gymnast_tabletop.record",
        "--out",
        str(folder),
        "--episodes",
        "12",
        "--actions",
        "8",
    ]
    subprocess.run([*command, "--image-size", "32"], check=True, env=ENVIRONMENT)
