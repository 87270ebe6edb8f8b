"""How a worker and the process that started it talk: framed messages over one socket pair. Nothing is unpickled.

A message is

    4 bytes   b"GYM1"
    4 bytes   length of the header, unsigned, big endian; at most `MOST_HEADER`
    8 bytes   length of the body, likewise; at most `MOST_BODY`
    header    a JSON object in UTF-8; its key "arrays" lists what the body holds: [name, dtype, shape] each
    body      the arrays' bytes, one after another, C order, little endian

so that any language can speak it. Whoever receives more, less or something else than announced raises `Garbled`; the
end of the other side is `EOFError`.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC = b"GYM1"
MOST_HEADER = 4 * 2**20
"""Bytes; instructions and options are far smaller."""
MOST_BODY = 256 * 2**20
"""Bytes: twenty cameras of 2048 x 2048 pixels."""
DTYPES = ("|u1", "<f4", "<f8")
"""What arrays may be."""
_START = struct.Struct(">4sIQ")


class Garbled(Exception):
    """The other side sent something that is no message."""


class TooLarge(Exception):
    """A message that is larger than messages may be."""


def send(connection: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Send one message. Raises `TooLarge` before a byte of it is sent."""
    ready = {name: _sendable(array) for name, array in (arrays or {}).items()}
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in ready.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    body = sum(array.nbytes for array in ready.values())
    if len(text) > MOST_HEADER or body > MOST_BODY:
        raise TooLarge(
            f"{len(text)} bytes of text and {body} bytes of pictures and readings at once; at most {MOST_HEADER} and "
            f"{MOST_BODY} are sent"
        )
    connection.sendall(_START.pack(MAGIC, len(text), body) + text)
    for array in ready.values():
        connection.sendall(array.reshape(-1).view(np.uint8).data)


def receive(connection: socket.socket) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Wait for the next message: its header, and its arrays by name."""
    magic, length, body = _START.unpack(bytes(_exactly(connection, _START.size)))
    if magic != MAGIC or length > MOST_HEADER or body > MOST_BODY:
        raise Garbled(f"expected a message, got {magic!r} with {length} and {body} bytes")
    try:
        header = json.loads(bytes(_exactly(connection, length)).decode())
        shapes = [(str(name), str(dtype), [int(n) for n in shape]) for name, dtype, shape in header.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Garbled(f"the header of a message cannot be read: {error}") from error
    return header, _arrays(shapes, _exactly(connection, body))


def _arrays(listed: list[tuple[str, str, list[int]]], body: bytearray) -> dict[str, np.ndarray]:
    """The body cut into the arrays that the header lists. Raises `Garbled` unless they fill it."""
    found, at = {}, 0
    for name, dtype, shape in listed:
        if dtype not in DTYPES or any(length < 0 for length in shape):
            raise Garbled(f"the array {name!r} is announced as {dtype} {shape}")
        count = math.prod(shape)
        end = at + count * np.dtype(dtype).itemsize
        if end > len(body):
            raise Garbled(f"the array {name!r} of {dtype} {shape} is longer than its message")
        found[name] = np.frombuffer(body, np.dtype(dtype), count, at).reshape(shape)
        at = end
    if at != len(body):
        raise Garbled(f"a message holds {len(body) - at} bytes that belong to no array")
    return found


def _sendable(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    wanted = array.dtype.newbyteorder("<")
    if wanted.str not in DTYPES:
        raise TypeError(f"Arrays are sent as {', '.join(DTYPES)}; got {array.dtype}.")
    return array.astype(wanted, copy=False)


def _exactly(connection: socket.socket, count: int) -> bytearray:
    """That many bytes. The memory is taken as they come, so that an announcement alone costs nothing."""
    content = bytearray()
    while len(content) < count:
        piece = connection.recv(min(count - len(content), 2**20))
        if not piece:
            raise EOFError("the other side has ended")
        content += piece
    return content
