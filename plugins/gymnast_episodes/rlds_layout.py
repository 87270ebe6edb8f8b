"""Where an RLDS dataset keeps its episodes: the folder of one version as TensorFlow Datasets writes it.

    bridge_dataset/1.0.0/features.json  dataset_info.json  bridge_dataset-train.tfrecord-00000-of-01024  …

https://github.com/google-research/rlds, https://www.tensorflow.org/datasets/external_tfrecord
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gymnast_core.errors import DataError, unknown_name
from gymnast_core.reading import JsonObject, read_object
from gymnast_episodes.foreign import data_files
from gymnast_episodes.foreign import folder as existing_folder
from gymnast_episodes.tf_example import STEPS
from gymnast_episodes.tfrecord import Place, places

log = logging.getLogger(__name__)

_SHARD = re.compile(r"(?P<name>.+?)(-(?P<split>[^-]+))?\.tfrecords?(-(?P<shard>\d+)-of-(?P<of>\d+))?")


@dataclass(frozen=True)
class About:
    """What `features.json` says of one feature."""

    kind: str
    """image, text or tensor."""
    dtype: str
    """Of its numbers or pixels, e.g. uint8; empty where that is not said."""
    shape: tuple[int | None, ...]
    """Of one step; None: any."""


@dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    path: Path
    split: str
    number: int | None
    """None where its name does not count."""
    of: int | None


def find_folder(path: str) -> Path:
    """The folder that holds TFRecord files: the given one, or the only one below it. Raises `DataError`."""
    root = existing_folder(path, "Give the folder of an RLDS dataset: path=FOLDER.")
    if _shards(root):
        return root
    found = sorted([*root.glob("*"), *root.glob("*/*")])
    below = [version for version in found if version.is_dir() and _shards(version)]
    if len(below) == 1:
        return below[0]
    if not below:
        raise DataError(f"{root} is no RLDS dataset: it holds no TFRecord files (NAME-train.tfrecord-00000-of-00001).")
    listed = ", ".join(str(version.relative_to(root)) for version in below[:10])
    raise DataError(f"{root} holds several RLDS datasets: {listed}. Give the folder of one: path=FOLDER.")


def find_records(folder: Path, split: str | None, partly: bool) -> list[tuple[Shard, list[Place]]]:
    """The shards of a split (None: of all) and their records.

    Raises `DataError` for an unknown split, for shards that are missing and for shards with other numbers of records
    than `dataset_info.json` counts; with `partly`, the latter two are warnings.
    """
    shards = _shards(folder)
    splits = sorted({shard.split for shard in shards})
    chosen = [shard for shard in shards if split in (None, shard.split)]
    if not chosen:
        raise DataError(f"{folder}: {unknown_name('split', str(split), splits)} split=null reads all files.")
    found = [(shard, places(shard.path)) for shard in chosen]
    for fault in _faults(folder, found):
        if not partly:
            raise DataError(f"{fault} Download the dataset again, or read what is there with skip_bad=true.")
        log.warning("%s", fault)
    return found


def described(folder: Path) -> Mapping[str, About]:
    """What `features.json` says, by feature without the prefix `steps/`; empty where the file is not there."""
    path = folder / "features.json"
    if not path.exists():
        return {}
    return {name.removeprefix(STEPS): about for name, about in _flat(read_object(path, allow_nan=True), "")}


def _flat(node: JsonObject, name: str) -> Iterator[tuple[str, About]]:
    if (features := node.object("featuresDict", default=None)) is not None:
        features = features.object("features")
        for key in features.values:
            yield from _flat(features.object(key), f"{name}/{key}".lstrip("/"))
    elif (sequence := node.object("sequence", default=None)) is not None:
        yield from _flat(sequence.object("feature"), name)
    elif (about := node.object("image", default=None)) is not None:
        yield name, About("image", about.text("dtype", default=None) or "uint8", _shape(about))
    elif "text" in node:
        yield name, About("text", "string", ())
    elif (about := node.object("tensor", default=None)) is not None:
        kind = "text" if about.text("dtype", default=None) == "string" else "tensor"
        yield name, About(kind, about.text("dtype", default=None) or "", _shape(about))


def _shape(about: JsonObject) -> tuple[int | None, ...]:
    """Dimensions are numbers in quotes, as protobuf's JSON writes them; -1 or nothing: any."""
    shape = about.object("shape", default=None)
    sizes = [] if shape is None else shape.values.get("dimensions", [])
    if not isinstance(sizes, list) or not all(re.fullmatch(r"-?\d{1,18}", str(size)) for size in sizes):
        about.refuse("shape", "must hold the list dimensions of whole numbers")
    return tuple(int(size) if int(size) >= 0 else None for size in sizes)


def _shards(folder: Path) -> list[Shard]:
    found = []
    for path in data_files(path for path in folder.glob("*.tfrecord*") if path.is_file()):
        if match := _SHARD.fullmatch(path.name):
            numbers = [None if match[name] is None else int(match[name]) for name in ("shard", "of")]
            found.append(Shard(path, match["split"] or match["name"], *numbers))
    return found


def _faults(folder: Path, found: Sequence[tuple[Shard, list[Place]]]) -> Iterator[str]:
    counted = _counted(folder)
    for split in sorted({shard.split for shard, _ in found}):
        of_split = [(shard, records) for shard, records in found if shard.split == split]
        totals = {shard.of for shard, _ in of_split}
        if len(totals) > 1:
            yield f"{folder}: the files of split {split!r} are of several writings ({sorted(map(str, totals))} files)."
            continue
        there = {shard.number for shard, _ in of_split}
        total = next(iter(totals)) or 0
        missing = [number for number in range(min(total, 10**6)) if number not in there]
        if missing:
            first = ", ".join(f"{number:05d}" for number in missing[:3])
            yield f"{folder}: {len(missing)} of the {total} files of split {split!r} are missing ({first}, …)."
        lengths = counted.get(split, {})
        for shard, records in of_split:
            if shard.number in lengths and lengths[shard.number] != len(records):
                yield f"{shard.path} has {len(records)} records, but dataset_info.json counts {lengths[shard.number]}."


def _counted(folder: Path) -> dict[str, dict[int | None, int]]:
    """Records of each shard by split, as `dataset_info.json` has them; empty where it does not say."""
    path = folder / "dataset_info.json"
    if not path.exists():
        return {}
    found: dict[str, dict[int | None, int]] = {}
    for split in read_object(path, allow_nan=True).objects("splits", default=None) or []:
        lengths = split.values.get("shardLengths") or []
        if not isinstance(lengths, list) or not all(re.fullmatch(r"\d{1,18}", str(length)) for length in lengths):
            split.refuse("shardLengths", "must be a list of whole numbers")
        found[split.text("name")] = {i: int(length) for i, length in enumerate(lengths)}
    return found
