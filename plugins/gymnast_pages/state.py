"""Whether a run goes on, was interrupted, crashed, or is done: one rule, for its page and for `gymnast view`.

A run that goes on holds the lock of its folder, which the kernel lets go however the process ends. Why a run stopped
stands in its state.json, if it could say so: a run without a lock whose file says "running" was killed, or its machine
went down. Folders of commands that keep no state.json are judged by lock, by what their process said when it stopped
(`gymnast_core.runs.ending`), and by whether there is a summary.
"""

from __future__ import annotations

import fcntl
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gymnast_core.errors import DataError
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import write_json
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.ending import CRASHED, INTERRUPTED, read_ending
from gymnast_core.runs.folder import LOCK
from gymnast_core.runs.results import read_kind
from gymnast_pages.wording import duration

FILE = "state.json"
RUNNING, FINISHED, LOST = "running", "finished", "lost"
WORDS = {
    RUNNING: "running",
    INTERRUPTED: "interrupted",
    CRASHED: "crashed",
    FINISHED: "finished",
    LOST: "stopped without saying so",
}
"""What people read."""


@dataclass(frozen=True)
class State:
    """What is known of a run."""

    name: str
    """A key of `WORDS`."""
    step: int = 0
    """Steps done when it was written."""
    total: int = 0
    """Steps that the run is to have; 0: unknown."""
    unit: str = "step"
    error: str = ""
    """What a crash said."""
    began: float | None = None
    """Seconds since 1970: when this life of the run began."""
    first: int = 0
    """Steps that were done by then."""
    resume: str = ""
    """The command that goes on; "" where there is nothing to go on with."""
    seen: float | None = None
    """Seconds since 1970: its last sign of life."""

    @property
    def words(self) -> str:
        return WORDS[self.name]

    @property
    def alive(self) -> bool:
        return self.name == RUNNING

    def progress(self, step: int) -> str:
        """ "iteration 5 of 12", with what is left where that can be told; "" where nothing is known."""
        if not self.total:
            return ""
        text = f"{self.unit} {step} of {self.total}"
        if not self.alive or self.began is None or self.seen is None or not self.first < step < self.total:
            return text
        left = (self.seen - self.began) / (step - self.first) * (self.total - step)
        return f"{text}, about {duration(max(left, 0))} left"


def state_of(folder: Path) -> State:
    """The state of a run folder. Raises `DataError` if its state.json is damaged."""
    written, held = _written(folder), _held(folder)
    ending = None if held else read_ending(folder)
    kind = read_kind(folder) or "train"
    resume, seen = resume_command(kind, folder), _seen(folder)
    if written is None:
        done = (folder / "summary.json").exists()
        if ending is not None:
            return State(ending.name, error=ending.error, resume=resume, seen=seen)
        name = RUNNING if held else FINISHED if done else LOST
        return State(name, resume="" if name in (RUNNING, FINISHED) else resume, seen=seen)
    name = str(written.get("name"))
    if name not in WORDS:
        raise DataError(f"{folder / FILE}: name is {name!r}; it is one of {', '.join(WORDS)}. Delete that file.")
    if name == RUNNING and not held:
        name = LOST
    values = {key: written[key] for key in ("step", "total", "unit", "error", "began", "first") if key in written}
    if ending is not None:  # also of a process that stopped before it could write into state.json
        name, values["error"] = ending.name, ending.error
    return State(name, **values, resume="" if name in (RUNNING, FINISHED) else resume, seen=seen)


def write_state(folder: Path, state: State) -> None:
    """Raises `StorageError`."""
    write_json(folder / FILE, {key: value for key, value in asdict(state).items() if key not in ("resume", "seen")})


def now() -> float:
    return time.time()


def _written(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    if not path.exists():
        return None
    try:
        row = read_object(path)
        return dict(row.values)
    except DataError as error:
        raise DataError(f"{error} Delete that file; the state is then told by the rest.") from error


def _held(folder: Path) -> bool:
    """Whether a process, maybe this one, works in the folder. Tried with a shared lock, let go at once."""
    try:
        handle = (folder / LOCK).open("rb")
    except OSError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def _seen(folder: Path) -> float | None:
    """When the run last wrote something that it writes often."""
    names = ("metrics.csv", FILE, "results.jsonl", "rows.jsonl", "summary.json", "config.yaml")
    times = [path.stat().st_mtime for name in names if (path := folder / name).exists()]
    return max(times, default=None)
