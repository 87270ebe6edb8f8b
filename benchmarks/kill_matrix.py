"""Commands that are killed, or that may not write, end with the files of those that nobody disturbed, bit for bit.

    python benchmarks/kill_matrix.py [--kills 100] [--moments 15] [--seed 0] [--only kills|full|readonly]...

`train`, `fit`, `evaluate`, `bench` and `rescore` on models small enough for seconds. Part `kills`: each is killed by
SIGKILL once, twice in a row, or during the resume, and resumed to its end. Part `full`: every writer meets a disk that
takes no more. Part `readonly`: folders lose the right to be written before the start, before a resume, or in the midst
of the work: the one that a run is to be made in, the run's own, each of those within it, and that of a judge's cache.
The last two must be one error each that names the place, after which the command goes on to the same results. Writes
the parts that were run into benchmarks/results/kill_matrix.md.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kill_matrix_parts import (
    LOG,
    ROOT,
    Command,
    Process,
    commands,
    judged,
    kill,
    names_in,
    record,
    results,
)
from rights import lock_up, unlock, why_not_obeyed

from gymnast_vlm_reward.loopback import LoopbackServer

RESULT = ROOT / "benchmarks" / "results" / "kill_matrix.md"
PATIENCE_S = 600.0
"""Seconds after which a command hangs."""
SIZES = (0, 100, 2_000, 20_000, 100_000)
"""Bytes of a file at most, where the disk is full."""
ERROR, NOT_NEEDED = "one error", "nothing had to be written"
ADVICE = ("Let this user write", "choose another", "Choose another", "output=", "TMPDIR")
"""What an error says to do about a folder that may not be written: one of these."""
TITLE = """# Commands that are killed, or that may not write

`python benchmarks/kill_matrix.py`, in parts (`--only`). Weights and tables are compared with those of a command that
nobody disturbed, bit for bit.
"""
TEXTS = {
    "kills": "SIGKILL at a random moment, once, twice or three times in a row (the resume included), then a resume to "
    "the end.",
    "full": "A full disk (a limit on the size of files): one error, and the command goes on when there is room.",
    "readonly": "Folders that may not be written, from the start, from a resume or from a random moment on: one error "
    "that names the place and says what to do, no traceback, and the command goes on when it may write again. (A bench "
    "whose cells alone could not be written ends well; they are tried again.)",
}


@dataclass
class Part:
    """What one part of the matrix found."""

    name: str
    options: str
    tally: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, good: str, fault: str, about: str) -> None:
        """Count a trial of `what`: `good`, unless there is a fault."""
        self.tally[f"{what} | {good if not fault else 'wrong'}"] += 1
        if fault:
            self.wrong.append(f"{about}: {' '.join(fault.split())[-600:]}")
        print(f"{self.name}, {about}: {fault or good}", flush=True)


class Matrix:
    """Tries commands in a scratch folder, at moments and in places that a seed draws."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.draw = random.Random(seed)
        self.whole: dict[str, dict[str, str]] = {}
        """What each command leaves when nobody disturbs it."""
        self.seconds: dict[str, float] = {}

    def begin(self, part: str) -> None:
        """What a part draws does not depend on the parts before it."""
        self.draw = random.Random(f"{self.seed}/{part}")

    def know(self, command: Command) -> None:
        """Let a command end by itself."""
        (self.folder / command.name).mkdir()
        run, began = self.folder / command.name / "whole", time.monotonic()
        command.prepare(run)
        if Process(command.start(run), run.parent).wait(PATIENCE_S) != 0:
            raise SystemExit(f"{command.name} ends by itself: {(run.parent / LOG).read_text()[-1500:]}")
        self.whole[command.name], self.seconds[command.name] = results(command, run), time.monotonic() - began
        print(f"{command.name}: {time.monotonic() - began:.1f} s, {len(results(command, run))} files", flush=True)

    def killed(self, command: Command) -> str:
        """Kill a command at random moments and let it end; "" if all is equal, else what is not."""
        trial = Trial(command, self.folder)
        for _ in range(self.draw.choice([1, 1, 2, 3])):
            trial.for_a_while(self.draw.uniform(0.1, self.seconds[command.name]))
        return trial.ends_as(self.whole[command.name])

    def refused_sizes(self, command: Command, size: int) -> tuple[str, str]:
        """With files of at most `size` bytes: the outcome, and what is wrong with it."""
        trial = Trial(command, self.folder)
        outcome, fault = trial.is_refused(trial.start(limit=size))
        return outcome, fault or trial.ends_as(self.whole[command.name])

    def locked_first(self, command: Command, name: str) -> tuple[str, str]:
        """With a folder that may not be written from the start on: the one `name`d "parent" or "run", or one beside."""
        trial = Trial(command, self.folder)
        place = {"parent": trial.run.parent, "run": trial.run}.get(name, trial.run.parent / name)
        place.mkdir(exist_ok=True)
        lock_up(place, deep=name != "parent", files=True)
        outcome, fault = trial.is_refused(trial.start(obeys=True), place)
        unlock(place)
        if not fault and outcome != ERROR:
            fault = f"it ends well, though {place} could not be written"
        return outcome, fault or trial.ends_as(self.whole[command.name])

    def locked_later(self, command: Command, when: str) -> tuple[str, str, str]:
        """A folder that may not be written before a "resume", or from a moment "during" the work on."""
        trial = Trial(command, self.folder)
        if when == "resume":
            process = trial.start()
            self._wait(process, trial)
            kill(process)
            place = self._lock_one(trial)
            process = trial.start(obeys=True)
        else:
            process = trial.start(obeys=True)
            self._wait(process, trial)
            place = self._lock_one(trial)
        outcome, fault = trial.is_refused(process, place)
        unlock(place)
        about = str(place.relative_to(trial.run.parent))
        return about, outcome, fault or trial.ends_as(self.whole[command.name])

    def _wait(self, process: Process, trial: Trial) -> None:
        """Until a command has written some of its files."""
        own = names_in(self.folder / trial.command.name / "whole")
        before, seen = len(names_in(trial.run)), set[str]()
        wanted = self.draw.randint(before, len(own))
        while process.poll() is None and len(seen) < wanted:
            seen |= names_in(trial.run)
            time.sleep(0.005)

    def _lock_one(self, trial: Trial) -> Path:
        run, command = trial.run, trial.command
        inside = sorted(path for pattern in command.writes for path in run.glob(pattern) if path.is_dir())
        beside = [run.parent / name for name in command.beside if (run.parent / name).exists()]
        wanted = [*([run, run] if run.exists() else [run.parent]), *beside, *beside, *inside]
        place, files = self.draw.choice(wanted), self.draw.random() < 0.5
        # Temporary folders go while we look.
        while True:
            try:
                lock_up(place, deep=True, files=files)
                return place
            except FileNotFoundError:
                place = place if place.exists() else place.parent


class Trial:
    """One command in a folder of its own: `place`/run is its run, and what it says is beside `place`."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command, self.desk = command, folder / command.name / "trial"
        if self.desk.exists():
            unlock(self.desk)
            shutil.rmtree(self.desk)
        self.run = self.desk / "place" / "run"
        self.run.parent.mkdir(parents=True)
        command.prepare(self.run)

    def start(self, *more: str, limit: int | None = None, obeys: bool = False) -> Process:
        """Begin, or go on."""
        command, run = self.command, self.run
        (self.desk / LOG).unlink(missing_ok=True)
        words = command.resume(run) if command.begun(run) else command.start(run)
        return Process([*words, *more], self.desk, limit=limit, obeys=obeys)

    def for_a_while(self, seconds: float) -> None:
        """Begin, or go on, and be killed."""
        process = self.start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(process)

    def is_refused(self, process: Process, place: Path | None = None) -> tuple[str, str]:
        """How a command ended that could not write: the outcome, and what is wrong with it ("": nothing)."""
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            kill(process)
            return "hangs", f"hangs: {self.said()}"
        text = self.said()
        errors = [line for line in text.splitlines() if line.startswith("Error: ")]
        logs = [text, *(path.read_text(errors="replace") for path in self.run.rglob(LOG))]
        if any("Traceback" in log for log in logs):
            return "traceback", max(logs, key=lambda log: log.count("Traceback"))
        # A bench whose cells failed ends with 1: that is their result.
        if code == 0 or (code == 1 and self.command.name == "bench"):
            return NOT_NEEDED, ""
        if code != 2 or len(errors) != 1:
            return "wrong", f"exit status {code}, {len(errors)} errors: {text[-600:]}"
        if place is not None and str(place) not in errors[0]:
            return "wrong", f"the error does not name {place}: {errors[0]}"
        if place is not None and not any(word in errors[0] for word in ADVICE):
            return "wrong", f"the error does not say what to do: {errors[0]}"
        return ERROR, ""

    def ends_as(self, whole: dict[str, str]) -> str:
        """Go on to the end; "" if the results are equal, else what is not."""
        # A bench ends well whose cells did not: they are tried again when that is asked for.
        process = self.start(*(["retry=true"] if self.command.name == "bench" else []))
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            kill(process)
            return f"hangs in the end: {self.said()}"
        if code != 0:
            return f"in the end, exit status {code}: {self.said()[-600:]}"
        found = results(self.command, self.run)
        other = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
        return f"other results: {', '.join(other)}" if other else ""

    def said(self) -> str:
        time.sleep(0.2)  # for what was said last
        return (self.desk / LOG).read_text(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs, over all commands")
    parser.add_argument("--moments", type=int, default=15, help="moments before a resume, and in the midst, a command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(TEXTS), help="this part; repeat it for more")
    parser.add_argument("--command", action="append", help="this command; repeat it for more (nothing is written then)")
    options = parser.parse_args()
    said = f"--kills {options.kills} --moments {options.moments} --seed {options.seed}"
    parts = {name: Part(name, said) for name in options.only or TEXTS}
    with tempfile.TemporaryDirectory() as scratch, LoopbackServer() as server:
        try:
            try_all(Matrix(Path(scratch), options.seed), parts, server.openai_url, options)
        finally:
            unlock(Path(scratch))
    if options.command is None:
        RESULT.write_text(merged(RESULT.read_text() if RESULT.exists() else "", list(parts.values())))
    for part in parts.values():
        print(part.name, dict(part.tally))
    wrong = sum(len(part.wrong) for part in parts.values())
    print(f"{wrong} wrong")
    return int(wrong > 0)


def try_all(matrix: Matrix, parts: dict[str, Part], url: str, options: argparse.Namespace) -> None:
    """Fill in the parts; one that cannot be tried here is taken out."""
    record(matrix.folder / "play")
    known = commands(matrix.folder)
    chosen = [command for command in known if command.name in (options.command or command.name)]
    for command in known:
        if command in chosen or command.name == "train":  # whose run is rescored
            matrix.know(command)
    if reason := why_not_obeyed(matrix.folder) if "readonly" in parts else "":
        parts.pop("readonly")
        print(f"readonly is left out: {reason}", flush=True)
    if "kills" in parts:
        killed(matrix, chosen, parts["kills"], options.kills)
    if "full" in parts:
        full(matrix, chosen, parts["full"])
    if "readonly" in parts:
        judge = judged(matrix.folder, url)
        if judge.name in (options.command or judge.name):
            matrix.know(judge)
            chosen.append(judge)
        readonly(matrix, chosen, parts["readonly"], options.moments)


def killed(matrix: Matrix, known: Sequence[Command], part: Part, kills: int) -> None:
    matrix.begin(part.name)
    for i in range(kills):
        command = known[i % len(known)]
        part.add(command.name, "equal", matrix.killed(command), f"{i + 1}/{kills} {command.name}")


def full(matrix: Matrix, known: Sequence[Command], part: Part) -> None:
    matrix.begin(part.name)
    for command in known:
        for size in SIZES:
            outcome, fault = matrix.refused_sizes(command, size)
            part.add(command.name, outcome, fault, f"{command.name}, files of at most {size} bytes")


def readonly(matrix: Matrix, known: Sequence[Command], part: Part, moments: int) -> None:
    matrix.begin(part.name)
    for command in known:
        for name in ("parent", "run", *command.beside):
            if name == "parent" and command.name == "rescore":
                continue  # its run is there already
            outcome, fault = matrix.locked_first(command, name)
            part.add(f"{command.name}, at the start", outcome, fault, f"{command.name}, at the start: {name}")
        for when in ("resume", "during"):
            for i in range(moments):
                place, outcome, fault = matrix.locked_later(command, when)
                about = f"{command.name}, {when} {i + 1}/{moments}: {place}"
                part.add(
                    f"{command.name}, {'before a resume' if when == 'resume' else 'during'}", outcome, fault, about
                )


def merged(before: str, parts: Sequence[Part]) -> str:
    """The results with these parts replaced; what was there of others stays."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", before, re.M | re.S))
    for part in parts:
        rows = "\n".join(f"| {what} | {count} |" for what, count in sorted(part.tally.items()))
        faults = "".join(f"\n- {fault}" for fault in part.wrong)
        about = f"{TEXTS[part.name]} {revision()}, `{part.options}`."
        table = f"| Command | Outcome | n |\n|---|---|---|\n{rows}\n"
        sections[part.name] = f"\n{about}\n\n{table}" + (f"{faults}\n" if faults else "") + "\n"
    known = [name for name in TEXTS if name in sections]
    return (TITLE + "\n" + "".join(f"## {name}\n{sections[name]}" for name in known)).rstrip() + "\n"


def revision() -> str:
    """What was tried."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return f"Revision {subprocess.run(command, capture_output=True, text=True).stdout.strip()}"


if __name__ == "__main__":
    sys.exit(main())
