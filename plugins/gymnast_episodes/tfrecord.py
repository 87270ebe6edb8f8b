"""TFRecord files, as TensorFlow documents them: records behind each other, each with its length and two checksums.

    uint64 length | uint32 masked crc32c of the length | length bytes | uint32 masked crc32c of the bytes

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import google_crc32c

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading

_HEAD = struct.Struct("<QI")
_SUM = struct.Struct("<I")


@dataclass(frozen=True)
class Place:
    """Where a record is: its bytes in the file."""

    path: Path
    number: int
    """Of the record in its file, from 0."""
    start: int
    length: int

    def __str__(self) -> str:
        return f"record {self.number} of {self.path}"


def places(path: Path) -> list[Place]:
    """The records of a file, in order, found without reading them.

    Raises `DataError` if the file is missing, cut off, or no TFRecord file.
    """
    found: list[Place] = []
    try:
        with reading(f"the file {path}"), path.open("rb") as file:
            size, at = path.stat().st_size, 0
            while at < size:
                file.seek(at)
                head = file.read(_HEAD.size)
                length = _length(path, len(found), head)
                start = at + _HEAD.size
                at = start + length + _SUM.size
                if at > size:
                    raise DataError(f"{path} is cut off in record {len(found)}. {REPAIR}")
                found.append(Place(path, len(found), start, length))
    except FileNotFoundError:
        raise DataError(f"The file {path} is missing. {REPAIR}") from None
    return found


def record(place: Place) -> bytes:
    """The bytes of a record. Raises `DataError` if they do not have the checksum that was stored with them."""
    try:
        stat = place.path.stat()
        return _record(place, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise DataError(f"The file {place.path} is missing. {REPAIR}") from None


def masked_crc(data: bytes) -> int:
    """crc32c, rotated and shifted as TFRecord files store it, so that a checksum of checksums is none of its own."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _length(path: Path, number: int, head: bytes) -> int:
    if len(head) < _HEAD.size:
        raise DataError(f"{path} is cut off behind record {number - 1}. {REPAIR}")
    length, crc = _HEAD.unpack(head)
    if masked_crc(head[:8]) != crc:
        what = "is no TFRecord file, or compressed" if number == 0 else f"is damaged at record {number}"
        raise DataError(f"{path} {what}: the checksum of the record's length is wrong. {REPAIR}")
    return int(length)


@lru_cache(maxsize=4)
def _record(place: Place, modified_ns: int, size: int) -> bytes:
    """Remembered, since crops of one episode are read one after the other."""
    with reading(str(place)), place.path.open("rb") as file:
        file.seek(place.start)
        data, crc = file.read(place.length), file.read(_SUM.size)
    if len(data) < place.length or len(crc) < _SUM.size:
        raise DataError(f"{place} is cut off. {REPAIR}")
    if masked_crc(data) != _SUM.unpack(crc)[0]:
        raise DataError(f"{place} is damaged: its checksum is wrong. {REPAIR}")
    return data
