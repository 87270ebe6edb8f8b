"""Commands that are killed at random moments end with the files of those that nobody killed, bit for bit.

    python benchmarks/kill_matrix.py [--kills 100] [--seed 0]

`train`, `fit`, `evaluate`, `bench` and `rescore` on models small enough for seconds: each is killed by SIGKILL once,
twice in a row, or during the resume, and resumed to its end. Then every writer meets a folder that cannot be written
and a full disk, which must be one error, after which the command goes on. Writes benchmarks/results/kill_matrix.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "run")]
RESULT = ROOT / "benchmarks" / "results" / "kill_matrix.md"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
TIMES = ("seconds", "minutes", "rate", "time", "rollouts_per_second", "started", "ended")
"""Keys that say how long something took; everything else must be equal."""


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
    prepare: Callable[[Path], None] = lambda run: None
    """Makes what the command works on, before its first start."""


def commands(folder: Path) -> list[Command]:
    from small import save_models

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
                has("config.yaml"), ("policy/*.safetensors", "metrics.csv", "evaluations/*.json")),
        Command("fit", lambda run: ["fit", *fit, f"output={run}"], lambda run: ["fit", "--resume", str(run)],
                has("config.yaml"), ("checkpoint/*.safetensors", "metrics.csv")),
        Command("evaluate", lambda run: ["evaluate", *evaluate, f"output={run}"],
                lambda run: ["evaluate", "--resume", str(run)], has("config.yaml"),
                ("trials/**/*.jsonl", "summary.json")),
        Command("bench", lambda run: ["bench", str(bench_file(folder, train)), f"output={run}"],
                lambda run: ["bench", "--resume", str(run)], has("config.yaml"),
                ("cells/*/run/policy/*.safetensors", "cells/*/run/metrics.csv")),
        Command("rescore", rescore, rescore, has("config.yaml"), ("rescored/*/results.jsonl",),
                lambda run: shutil.copytree(folder / "train" / "whole", run)),
    ]  # fmt: skip


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


def started(words: Sequence[str], folder: Path, limit: int | None = None) -> subprocess.Popen[bytes]:
    """`gymnast WORDS` in a process group of its own; files of at most `limit` bytes."""

    def before() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # Through a pipe: the limit is for what a command writes, not for what it says.
    tee = subprocess.Popen(["tee", "-a", str(folder / "log.txt")], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(
        [sys.executable, "-m", "gymnast_core.cli", *words], env=ENVIRONMENT, stdout=tee.stdin, stderr=tee.stdin,
        preexec_fn=before, start_new_session=True, cwd=folder,
    )  # fmt: skip
    assert tee.stdin is not None
    tee.stdin.close()
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and those that it started."""
    if process.poll() is None:
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
        kept = [i for i, name in enumerate(header) if not any(word in name for word in TIMES)]
        return hashlib.sha256(repr([[row[i] for i in kept] for row in (header, *rows)]).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: without_times(part)
            for key, part in value.items()
            if not any(word in key for word in TIMES) and key != "output"
        }
    return [without_times(part) for part in value] if isinstance(value, list) else value


def results(command: Command, run: Path) -> dict[str, str]:
    files = sorted({path for pattern in command.results for path in run.glob(pattern)})
    return {str(path.relative_to(run)): digest(path) for path in files}


def killed(command: Command, run: Path, length: float, draw: random.Random) -> str:
    """Kill a command at random moments and let it end; "" if all is equal, else what is not."""
    folder = run.parent
    kills = draw.choice([1, 1, 2, 3])
    for _ in range(kills):
        words = command.resume(run) if command.begun(run) else command.start(run)
        process = started(words, folder)
        try:
            process.wait(draw.uniform(0.1, length))
        except subprocess.TimeoutExpired:
            kill(process)
    process = started(command.resume(run) if command.begun(run) else command.start(run), folder)
    code = process.wait(600)
    return "" if code == 0 else f"exit status {code}: {(folder / 'log.txt').read_text()[-300:]}"


def refused_writes(command: Command, run: Path, whole: dict[str, str], size: int) -> str:
    """With files of at most `size` bytes: one error, and the command goes on when there is room again."""
    process = started(command.start(run), run.parent, size)
    code = process.wait(600)
    time.sleep(0.2)  # for what it said last
    text = (run.parent / "log.txt").read_text()
    if "Traceback" in text or (
        code != 0 and (code != 2 or sum(line.startswith("Error: ") for line in text.splitlines()) != 1)
    ):
        return f"exit status {code}: {text[-300:]}"
    if code == 0 and command.name != "bench":
        return "" if results(command, run) == whole else "other results"
    # A bench ends well whose cells did not: they are tried again when that is asked for.
    words = command.resume(run) if command.begun(run) else command.start(run)
    code = started([*words, *(["retry=true"] if command.name == "bench" else [])], run.parent).wait(600)
    same = code == 0 and results(command, run) == whole
    return "" if same else f"after the disk had room, exit status {code}: {(run.parent / 'log.txt').read_text()[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, tally, wrong = random.Random(options.seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        record(folder / "play")
        known = []
        for command in commands(folder):
            (folder / command.name).mkdir()
            run, began = folder / command.name / "whole", time.monotonic()
            command.prepare(run)
            if started(command.start(run), run.parent).wait(600) != 0:
                raise SystemExit(f"{command.name} ends by itself: {(run.parent / 'log.txt').read_text()[-1500:]}")
            known.append((command, results(command, run), time.monotonic() - began))
            print(f"{command.name}: {known[-1][2]:.1f} s, {len(known[-1][1])} files are compared", flush=True)
        for i in range(options.kills):
            command, whole, length = known[i % len(known)]
            run = folder / command.name / "killed" / "run"
            shutil.rmtree(run.parent, ignore_errors=True)
            run.parent.mkdir()
            command.prepare(run)
            fault = killed(command, run, length, draw) or ("" if results(command, run) == whole else "other results")
            tally[f"{command.name}, {'equal' if not fault else 'not equal'}"] += 1
            print(f"{i + 1}/{options.kills} {command.name}: {fault or 'equal'}", flush=True)
            if fault:
                wrong.append(f"{command.name} {i}: {fault}")
        for command, whole, _ in known:
            for size in (0, 100, 2_000, 20_000, 100_000):
                run = folder / command.name / "full" / "run"
                shutil.rmtree(run.parent, ignore_errors=True)
                run.parent.mkdir()
                command.prepare(run)
                fault = refused_writes(command, run, whole, size)
                tally[f"{command.name}, full disk: {'one error' if not fault else 'wrong'}"] += 1
                if fault:
                    wrong.append(f"{command.name}, files of at most {size} bytes: {fault}")
                    print(wrong[-1], flush=True)
    RESULT.write_text(report(tally, options, wrong))
    print(dict(tally))
    return int(bool(wrong))


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


def report(tally: Counter[str], options: argparse.Namespace, wrong: Sequence[str]) -> str:
    lines = [
        "# Commands that are killed",
        "",
        f"`python benchmarks/kill_matrix.py --kills {options.kills} --seed {options.seed}`: SIGKILL at a random "
        "moment, once, twice or three times in a row (the resume included), then a resume to the end. Weights and "
        "tables are compared with those of a command that nobody killed, bit for bit; on a full disk (a limit on the "
        "size of files) a command ends with one error and goes on when there is room.",
        "",
        "| Command | n |",
        "|---|---|",
        *(f"| {what} | {count} |" for what, count in sorted(tally.items())),
    ]
    return "\n".join([*lines, *([""] if wrong else []), *(f"- {fault}" for fault in wrong)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
