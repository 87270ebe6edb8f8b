"""Weights as safetensors whose bytes depend on their content alone."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file: the same tensors and metadata give the same bytes.

    safetensors writes the entries of its metadata in an order that differs from call to call, so that two equal runs
    would leave files of different checksums. Here they are sorted.
    """
    save_file(dict(tensors), str(path), metadata=dict(metadata) if metadata else None)
    with path.open("r+b") as file:
        # The format: eight bytes with the length of the header, the header (JSON, spaces behind it), the tensors.
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise ValueError(f"The header of {path} became longer when it was sorted.")
        file.seek(8)
        file.write(text.ljust(length))
