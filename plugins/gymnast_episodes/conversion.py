"""Episodes of any dataset into a folder of another format: streaming, and resumable after any kind of end."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gymnast_core import __version__
from gymnast_core.errors import DataError
from gymnast_core.plugins.compose import registries
from gymnast_core.types import Episode
from gymnast_episodes.writers import STAGING, Record, WriterOptions, load_writer

log = logging.getLogger(__name__)

MANIFEST = "conversion.json"
"""What a converted folder was made from; names it as ours when a conversion is repeated."""

Progress = Callable[[int, int], None]
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


def convert(job: Conversion, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Run a conversion and return its summary; one episode is in memory at a time.

    The output appears complete, under its name, at the end. Until then it grows in a hidden folder beside it, from
    which the same call continues. Raises `DataError` if the output holds something else.
    """
    writer_class = load_writer(job.to)
    out = job.out.expanduser()
    episodes = registries().datasets.build(job.dataset, job.args, key="source").episodes()
    about = {
        "gymnast": __version__,
        "source": {"name": job.dataset, "args": dict(job.args), "episodes": len(episodes)},
        "to": job.to,
        "options": asdict(job.options),
    }
    summary = {"output": str(out), "episodes": len(episodes), "to": job.to}
    if _is_complete(out, about):
        shutil.rmtree(out / STAGING, ignore_errors=True)
        return summary | {"resumed": len(episodes)}
    work = out.with_name(f".{out.name}.converting")
    with _claimed(work, about):
        records = work / STAGING / "records.jsonl"
        written = _records(records)
        resumed = len(written)
        writer = writer_class(work, job.options, written)
        for index in range(resumed, len(episodes)):
            progress(index, len(episodes))
            episode = _checked(episodes[index])
            if index == resumed and not writer.keeps_all:
                _tell_what_is_left_out(episode, job.to)
            with _disk(work):
                record = writer.write(index, episode)
                with records.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
            written.append(record)
        progress(len(episodes), len(episodes))
        with _disk(work):
            writer.finish(written)
            _write_manifest(work, about)
            work.rename(out)
    shutil.rmtree(out / STAGING)
    return summary | {"resumed": resumed}


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"Cannot write to {folder}: {error}. Make room, and repeat the call: it continues.") from error


def _is_complete(out: Path, about: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if _same(_read_manifest(out / MANIFEST), about):
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
    with (staging / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"Another process is converting to this folder ({work}). Wait for it to end.") from None
        begun = _read_manifest(staging / MANIFEST)
        if begun is None:
            _write_manifest(staging, about)
        elif not _same(begun, about):
            raise DataError(
                f"{work} holds the beginning of another conversion ({begun.get('source')} to {begun.get('to')}). "
                "Repeat that one, or remove the folder."
            )
        yield


def _records(path: Path) -> list[Record]:
    """Records of the complete episodes. A last line that a killed process left unfinished is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.decode().splitlines()]


def _checked(episode: Episode) -> Episode:
    frames, actions = episode.view(), episode.actions_TA
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2:
        raise DataError(
            f"Episode {episode.id!r} has frames {frames.dtype} {tuple(frames.shape)}, not uint8 (T, H, W, 3)."
        )
    if actions.ndim != 2 or len(actions) != len(frames) - 1:
        raise DataError(f"Episode {episode.id!r} has {len(frames)} frames and actions {tuple(actions.shape)}.")
    if not torch.isfinite(actions).all():
        raise DataError(f"Episode {episode.id!r} has NaN or infinite actions.")
    return episode


def _tell_what_is_left_out(episode: Episode, to: str) -> None:
    """Of a writer that keeps the main camera alone, and no readings."""
    left_out = [f"camera {name}" for name in episode.cameras[1:]]
    left_out += [] if episode.proprio_TP is None else ["the readings (proprio_TP)"]
    if left_out:
        log.warning("%s is written with the camera %s alone, without %s.", to, episode.cameras[0], ", ".join(left_out))


def _same(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two manifests are of one conversion, whatever version began it."""
    return one is not None and one | {"gymnast": None} == other | {"gymnast": None}


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_manifest(folder: Path, about: dict[str, Any]) -> None:
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
    temporary.replace(folder / MANIFEST)
