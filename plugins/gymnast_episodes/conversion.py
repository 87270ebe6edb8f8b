"""Episodes of any dataset into a folder of another format: streaming, and resumable after any kind of end."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gymnast_core import __version__
from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.reading import read_json_lines, read_object
from gymnast_core.runs.folder import same_value
from gymnast_core.runs.progress import Progress
from gymnast_core.types import Episode
from gymnast_episodes.checking import checks_put_off
from gymnast_episodes.losses import at_rate, checked, tell_what_is_lost
from gymnast_episodes.recording import recording_of
from gymnast_episodes.writers import STAGING, EpisodeWriter, Record, WriterOptions, check_frames, load_writer

log = logging.getLogger(__name__)

BAD = "left_out"
"""Key of a record that says why its episode was left out."""
MANIFEST = "conversion.json"
"""What a converted folder was made from; names it as ours when a conversion is repeated."""

INPUTS = ("path", "checkpoint")
"""Arguments that name what a conversion reads."""
RECORDS, LOCK = "records.jsonl", "lock"

Listener = Callable[[int, int], None]
"""Told (episodes done, episodes in all)."""


@dataclass(frozen=True)
class Conversion:
    """What is converted into what."""

    dataset: str
    """Name of an installed dataset that has episodes."""
    args: Mapping[str, Any]
    """Its arguments."""
    to: str
    """Name of an installed format."""
    out: Path
    """Folder to write; it must not exist, unless the same conversion began to write it."""
    options: WriterOptions


def convert(job: Conversion, listener: Listener = lambda done, total: None) -> dict[str, Any]:
    """Run a conversion and return its summary; one episode is in memory at a time.

    The output appears complete, under its name, at the end. Until then it grows in a hidden folder beside it, from
    which the same call continues. Raises `DataError` if the output holds something else.
    """
    writer_class = load_writer(job.to)
    check_frames(job.to, writer_class, job.options)
    out = job.out.expanduser()
    with checks_put_off():
        episodes = registries().datasets.build(job.dataset, job.args, key="dataset").episodes()
    about = {
        "gymnast": __version__,
        "source": {"name": job.dataset, "args": dict(job.args), "episodes": len(episodes)},
        "inputs": _inputs(job.args),
        "to": job.to,
        "options": asdict(job.options),
    }
    summary = {"output": str(out), "episodes": len(episodes), "to": job.to}
    if _is_complete(out, about):
        shutil.rmtree(out / STAGING, ignore_errors=True)
        return summary | {"resumed": len(episodes)}
    work = out.with_name(f".{out.name}.converting")
    with _claimed(work, about):
        done = _Done(work / STAGING / RECORDS)
        resumed = len(done.all)
        writer = writer_class(work, job.options, done.written)
        writer.recording = recording_of(episodes)
        for index in range(resumed, len(episodes)):
            listener(index, len(episodes))
            _one(job, writer, done, episodes, index)
        listener(len(episodes), len(episodes))
        if not done.written:
            raise DataError(f"None of the {len(episodes)} episodes could be read; the first fault: {done.all[0][BAD]}")
        with _disk(work):
            writer.finish(done.written)
            _write_manifest(work, about)
            work.rename(out)
    shutil.rmtree(out / STAGING)
    if skipped := len(done.all) - len(done.written):
        summary |= {"episodes": len(done.written), "skipped": skipped}
    return summary | {"resumed": resumed}


def convert_visibly(job: Conversion) -> dict[str, Any]:
    """`convert`, with its progress on stderr."""
    with ExitStack() as shown:
        bar: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = shown.enter_context(Progress("Converting", total, unit="episode", start=done))
            bar.update(done, {})

        return convert(job, show)


def _one(job: Conversion, writer: EpisodeWriter, done: _Done, episodes: Sequence[Episode], index: int) -> None:
    """Read an episode and write it, or note why not where bad ones are to be left out."""
    try:
        episode = episodes[index]
    except DataError as error:
        if not getattr(episodes, "unchecked", False):
            raise
        log.warning("Skipped: %s", error)
        with _disk(done.path):
            done.add({BAD: str(error)})
        return
    episode = checked(episode)
    if not done.written:
        tell_what_is_lost(episode, writer, job.to, job.options.fps)
    episode = at_rate(episode, writer, job.options.fps)
    with _disk(done.path):
        done.add(writer.write(len(done.written), episode))


class _Done:
    """Records of the episodes that are done, good and bad, in a file that survives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all = _records(path)

    @property
    def written(self) -> list[Record]:
        return [record for record in self.all if BAD not in record]

    def add(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.all.append(record)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"Cannot write to {folder}: {error}. Make room, and repeat the call: it continues.") from error


def _is_complete(out: Path, about: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    made = _read_manifest(out / MANIFEST)
    if _same(made, about):
        _refuse_changed(made, about, out)
        return True
    raise DataError(f"{out} exists and is not the result of this conversion. Give another folder, or remove it.")


@contextmanager
def _claimed(work: Path, about: dict[str, Any]) -> Iterator[None]:
    """The working folder, ours alone and of this conversion."""
    staging = work / STAGING
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Cannot write to {work.parent}: {error}.") from error
    with (staging / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"Another process is converting to this folder ({work}). Wait for it to end.") from None
        begun = _read_manifest(staging / MANIFEST)
        if begun is None or not _records(staging / RECORDS):
            # Nothing was finished, whatever it was.
            _empty(work)
            _write_manifest(staging, about)
        elif not _same(begun, about):
            raise DataError(
                f"{work} holds the beginning of another conversion ({begun.get('source')} to {begun.get('to')}). "
                "Repeat that one, or remove the folder."
            )
        else:
            _refuse_changed(begun, about, work)
        yield


def _empty(work: Path) -> None:
    """Remove everything but the lock, which is held."""
    staging = work / STAGING
    for path in [*work.iterdir(), *staging.iterdir()]:
        if path not in (staging, staging / LOCK):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _records(path: Path) -> list[Record]:
    """Records of the complete episodes. A last line that a killed process left unfinished is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return read_json_lines(path, allow_nan=True, max_bytes=2**40)


def _same(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two manifests are of one conversion, whatever version began it and whatever its inputs hold now."""
    aside = {"gymnast": None, "inputs": None}
    return one is not None and same_value(one | aside, other | aside)


def _refuse_changed(made: Mapping[str, Any] | None, about: Mapping[str, Any], folder: Path) -> None:
    """Raises `DataError` if what was read is not what it was; an earlier edition did not note it."""
    before, now = (made or {}).get("inputs") or {}, about["inputs"]
    changed = [path for path, state in now.items() if path in before and before[path] != state]
    if changed:
        raise DataError(
            f"{folder} was made from {', '.join(changed)} as that was then; it has changed since. Remove {folder} to "
            "convert again, or give another folder."
        )


def _inputs(args: Any, key: str = "") -> dict[str, list[int]]:
    """What is read: files and folders that arguments name as `path` or `checkpoint` (a cache is written, too) -> how
    many files, bytes in all, time of the last change (ns)."""
    if isinstance(args, Mapping):
        return {path: state for name, value in args.items() for path, state in _inputs(value, str(name)).items()}
    if isinstance(args, list | tuple):
        return {path: state for item in args for path, state in _inputs(item, key).items()}
    if not isinstance(args, str) or key not in INPUTS:
        return {}
    try:
        place = Path(args).expanduser()
        found = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
        states = [file.stat() for file in found]
    except (OSError, ValueError, RuntimeError):
        return {}  # no path, or none that can be looked at: whoever reads it says so
    if not states:
        return {}
    return {args: [len(states), sum(s.st_size for s in states), max(s.st_mtime_ns for s in states)]}


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        return read_object(path).values
    except DataError:
        return None


def _write_manifest(folder: Path, about: dict[str, Any]) -> None:
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
    temporary.replace(folder / MANIFEST)
