"""Features of a `tf.train.Example` or `tf.train.SequenceExample`, without TensorFlow.

Messages: example.proto and feature.proto of https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/example.
The outer messages, which only say where each feature is, are walked through here, so that a feature nobody asks for,
such as the images of another camera, is never taken apart; the inner ones are left to the protobuf library.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from mmap import mmap
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading

STEPS = "steps/"
"""How TensorFlow Datasets begins the names of what there is once a step."""
_Span = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A record whose features are decoded when asked for."""

    place: str
    """What errors call it."""
    data: bytes | mmap
    spans: dict[str, list[_Span]]
    """Name -> where its `Feature` messages are: one, or one a step."""

    def names(self) -> list[str]:
        return sorted(self.spans)

    def values(self, name: str) -> list[bytes] | NDArray[np.float32] | NDArray[np.int64]:
        """The values of a feature one behind the other: byte strings, float32 or int64. `DataError` if damaged."""
        parts = []
        with reading(f"the feature {name} of {self.place}"):
            for start, end in self.spans[name]:
                feature = _feature_class().FromString(self.data[start:end])
                kind = feature.WhichOneof("kind")
                parts.append(None if kind is None else (kind, getattr(feature, kind).value))
        kinds = {part[0] for part in parts if part is not None}
        if len(kinds) != 1:
            raise DataError(
                f"The feature {name} of {self.place} holds {' and '.join(sorted(kinds)) or 'nothing'}. {REPAIR}"
            )
        listed = [value for part in parts if part is not None for value in part[1]]
        if kinds == {"bytes_list"}:
            return listed
        return np.array(listed, np.float32) if kinds == {"float_list"} else np.array(listed, np.int64)

    def first_bytes(self, name: str) -> bytes | None:
        """The beginning of a feature's first byte string, without decoding the others; None if it holds none.

        Of a damaged feature, None: it is an error where its values are asked for.
        """
        with suppress(_Malformed):
            return self._first_bytes(name)
        return None

    def _first_bytes(self, name: str) -> bytes | None:
        for start, end in self.spans[name]:
            for _, a, b in _fields(self.data, start, end, {1}):
                for _, c, d in _fields(self.data, a, b, {1}):
                    return self.data[c : min(d, c + 16)]
        return None

    def count_bytes(self, name: str) -> int:
        """How many byte strings a feature holds, without decoding them. Raises `DataError` if it is damaged."""
        count = 0
        try:
            for start, end in self.spans[name]:
                for _, a, b in _fields(self.data, start, end, {1}):
                    count += sum(1 for _ in _fields(self.data, a, b, {1}))
        except _Malformed as error:
            raise DataError(f"The feature {name} of {self.place} is damaged: {error}. {REPAIR}") from None
        return count


def parse_example(data: bytes | mmap, place: str, start: int = 0, end: int | None = None) -> Example:
    """The features of a record, those of all steps without their prefix `steps/`.

    Args:
        data: the record, or a file that holds it.
        place: what errors call it.
        start: where it begins in `data`.
        end: where it ends; None: with `data`.

    Raises:
        DataError: the record is neither message.
    """
    spans: dict[str, list[_Span]] = {}
    try:
        for number, first, last in _fields(data, start, len(data) if end is None else end, {1, 2}):
            for name, a, b in _entries(data, first, last):
                # Field 2 is a SequenceExample's: a list of features, one a step.
                parts = [(c, d) for _, c, d in _fields(data, a, b, {1})] if number == 2 else [(a, b)]
                if name.removeprefix(STEPS) in spans:
                    raise DataError(f"{place} has the feature {name} twice, or with and without {STEPS}. {REPAIR}")
                spans[name.removeprefix(STEPS)] = parts
    except _Malformed as error:
        raise DataError(f"{place} is no tf.train.Example or SequenceExample: {error}. {REPAIR}") from None
    if not spans:
        raise DataError(f"{place} has no features. {REPAIR}")
    return Example(place, data, spans)


class _Malformed(Exception):
    """Bytes that are no protobuf message."""


def _entries(data: bytes | mmap, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Entries of a map from text to message: (key, start and end of the message)."""
    for _, a, b in _fields(data, start, end, {1}):
        key, value = b"", (b, b)
        for number, c, d in _fields(data, a, b, {1, 2}):
            if number == 1:
                key = data[c:d]
            else:
                value = (c, d)
        try:
            yield key.decode(), *value
        except UnicodeDecodeError:
            raise _Malformed("the name of a feature is no text") from None


def _fields(data: bytes | mmap, start: int, end: int, wanted: set[int]) -> Iterator[tuple[int, int, int]]:
    """The fields with these numbers that hold messages, text or bytes: (number, start and end of the content)."""
    at = start
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == 2:
            length, at = _varint(data, at, end)
        elif wire == 0:
            length = _varint(data, at, end)[1] - at
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _Malformed(f"wire type {wire}")
        if at + length > end or number == 0:
            raise _Malformed("a field reaches beyond its message")
        if wire == 2 and number in wanted:
            yield number, at, at + length
        at += length


def _varint(data: bytes | mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at >= end:
            raise _Malformed("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at
    raise _Malformed("a number has no end")


@cache
def _feature_class() -> Any:
    """The message `tensorflow.Feature`, in a pool of its own: TensorFlow may be installed beside us."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="gymnast/feature.proto", package="gymnast", syntax="proto3")
    lists = {"BytesList": kinds.TYPE_BYTES, "FloatList": kinds.TYPE_FLOAT, "Int64List": kinds.TYPE_INT64}
    for name, kind in lists.items():
        message = file.message_type.add(name=name)
        message.field.add(name="value", number=1, label=kinds.LABEL_REPEATED, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, name) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), start=1
    ):
        feature.field.add(
            name=field,
            number=number,
            label=kinds.LABEL_OPTIONAL,
            type=kinds.TYPE_MESSAGE,
            type_name=f".gymnast.{name}",
            oneof_index=0,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("gymnast.Feature"))
