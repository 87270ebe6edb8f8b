"""RLDS datasets made without the project's code: messages by protobuf's own maps, records by TensorBoard's writer."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from clips import pictures
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

LENGTHS = (6, 4, 9)


def _classes() -> dict[str, Any]:
    """Example and SequenceExample, written down from example.proto and feature.proto."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="made.proto", package="made", syntax="proto3")

    def message(name, *fields, inside=None):
        made = (inside.nested_type if inside else file.message_type).add(name=name)
        for number, (field, kind, label) in enumerate(fields, start=1):
            is_name = isinstance(kind, str)
            made.field.add(
                name=field, number=number, label=label, type=kinds.TYPE_MESSAGE if is_name else kind,
                **({"type_name": f".made.{kind}"} if is_name else {}),
            )  # fmt: skip
        return made

    def mapping(name, field, value):
        holder = message(name, (field, f"{name}.Entry", kinds.LABEL_REPEATED))
        entry = message("Entry", ("key", kinds.TYPE_STRING, 1), ("value", value, 1), inside=holder)
        entry.options.map_entry = True
        # protoc names the entry of a map after its field.
        entry.name = "".join(part.title() for part in field.split("_")) + "Entry"
        holder.field[0].type_name = f".made.{name}.{entry.name}"

    for name, kind in (("Bytes", kinds.TYPE_BYTES), ("Float", kinds.TYPE_FLOAT), ("Int64", kinds.TYPE_INT64)):
        message(f"{name}List", ("value", kind, kinds.LABEL_REPEATED))
    feature = message(
        "Feature", ("bytes_list", "BytesList", 1), ("float_list", "FloatList", 1), ("int64_list", "Int64List", 1)
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    message("FeatureList", ("feature", "Feature", kinds.LABEL_REPEATED))
    mapping("Features", "feature", "Feature")
    mapping("FeatureLists", "feature_list", "FeatureList")
    message("Example", ("features", "Features", 1))
    message("SequenceExample", ("context", "Features", 1), ("feature_lists", "FeatureLists", 1))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("Feature", "FeatureList", "Example", "SequenceExample")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"made.{name}")) for name in names}


CLASSES = _classes()


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def actions(i: int, width: int = 7) -> np.ndarray:
    return np.random.default_rng(i).normal(size=(LENGTHS[i], width)).astype(np.float32)


def state(i: int) -> np.ndarray:
    return np.random.default_rng(50 + i).normal(size=(LENGTHS[i], 3)).astype(np.float32)


def frames(i: int, camera: int = 0) -> np.ndarray:
    return pictures(LENGTHS[i], 40 * i + 200 * camera)


def steps(i: int) -> dict[str, list[Any]]:
    """An episode as Bridge names it: feature -> one entry a step."""
    return {
        "observation/image_0": [encoded(frame) for frame in frames(i)],
        "observation/image_1": [encoded(frame) for frame in frames(i, 1)],
        "observation/state": list(state(i)),
        "action": list(actions(i)),
        "language_instruction": [f"task {i}".encode()] * LENGTHS[i],
        "is_first": [int(t == 0) for t in range(LENGTHS[i])],
        "is_last": [int(t == LENGTHS[i] - 1) for t in range(LENGTHS[i])],
    }


def feature(values: list[Any]) -> Any:
    made = CLASSES["Feature"]()
    for value in values:
        if isinstance(value, bytes):
            made.bytes_list.value.append(value)
        elif isinstance(value, np.ndarray):
            made.float_list.value.extend(value.reshape(-1).tolist())
        else:
            made.int64_list.value.append(value)
    return made


def example(steps_: dict[str, list[Any]], context: dict[str, list[Any]] | None = None, prefix: str = "steps/") -> bytes:
    """As TensorFlow Datasets writes an episode: all steps of a feature behind each other."""
    made = CLASSES["Example"]()
    for name, values in steps_.items():
        made.features.feature[prefix + name].CopyFrom(feature(values))
    for name, values in (context or {"episode_metadata/file_path": [b"x"]}).items():
        made.features.feature[name].CopyFrom(feature(values))
    return made.SerializeToString()


def sequence_example(steps_: dict[str, list[Any]]) -> bytes:
    """The other message: a list of features, one a step."""
    made = CLASSES["SequenceExample"]()
    made.context.feature["episode_id"].CopyFrom(feature([3]))
    for name, values in steps_.items():
        made.feature_lists.feature_list[name].feature.extend(feature([value]) for value in values)
    return made.SerializeToString()


def write(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
    return path


def tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"tensor": {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype, "encoding": "none"}}


def picture(dtype: str = "uint8", channels: int = 3) -> dict[str, Any]:
    return {"image": {"shape": {"dimensions": ["32", "48", str(channels)]}, "dtype": dtype, "encodingFormat": "png"}}


def dictionary(**features: Any) -> dict[str, Any]:
    return {"featuresDict": {"features": features}}


FEATURES = {
    "observation": dictionary(image_0=picture(), image_1=picture(), state=tensor(3)),
    "action": tensor(7),
    "language_instruction": {"text": {}},
    "is_first": tensor(dtype="bool"),
    "is_last": tensor(dtype="bool"),
}


def dataset(root: Path, records: list[bytes] | None = None, features: Any = FEATURES, shards: int = 2) -> Path:
    """A folder NAME/1.0.0 with a train split in `shards` files, and its metadata."""
    records = [example(steps(i)) for i in range(3)] if records is None else records
    folder = root / "toys/1.0.0"
    parts = np.array_split(np.arange(len(records)), shards)
    for shard, part in enumerate(parts):
        write(folder / f"toys-train.tfrecord-{shard:05d}-of-{shards:05d}", [records[i] for i in part])
    if features is not None:
        episode = dictionary(steps={"sequence": {"feature": dictionary(**features)}})
        (folder / "features.json").write_text(json.dumps(episode))
    split = {"name": "train", "shardLengths": [str(len(part)) for part in parts]}
    (folder / "dataset_info.json").write_text(json.dumps({"name": "toys", "splits": [split]}))
    return folder
