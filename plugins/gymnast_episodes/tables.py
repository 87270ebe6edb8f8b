"""Parquet files: columns as plain arrays, whatever type a library stored them in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gymnast_core.errors import DataError
from gymnast_episodes import REPAIR
from gymnast_episodes.foreign import reading


def open_table(path: Path, columns: list[str]) -> pq.ParquetFile:
    """A parquet file that has these columns. Raises `DataError` if it is missing, damaged or lacks one."""
    try:
        with reading(f"the file {path}"):
            # Not through the dataset layer, which would take folder names for columns.
            file = pq.ParquetFile(path, metadata=_metadata(path, *_version(path)))
            known = file.schema_arrow.names
    except FileNotFoundError:
        raise DataError(f"The file {path} is missing. {REPAIR}") from None
    if missing := [name for name in columns if name not in known]:
        raise DataError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(known)}.")
    if twice := [name for name in columns if known.count(name) > 1]:
        raise DataError(f"{path} has the column {twice[0]} twice.")
    return file


def row_groups(path: Path) -> NDArray[np.int64]:
    """The number of the row after each of a file's row groups, rising. Raises `OSError` or what pyarrow does."""
    return _ends(path, *_version(path))


def _version(path: Path) -> tuple[int, int]:
    """What tells that a file is another one than before."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _metadata(path: Path, modified_ns: int, size: int) -> pq.FileMetaData:
    """The footer of a file, which is long where there are many row groups, read once."""
    return pq.read_metadata(path)


@lru_cache(maxsize=64)
def _ends(path: Path, modified_ns: int, size: int) -> NDArray[np.int64]:
    footer = _metadata(path, modified_ns, size)
    return np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)], dtype=np.int64)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a parquet file. Raises `DataError` as `open_table` does."""
    file = open_table(path, columns or [])
    with reading(f"the file {path}"):
        table = file.read(columns)
        table.validate(full=True)
        return table


def matrix(path: Path, table: pa.Table, name: str) -> NDArray[np.float32]:
    """A column of lists of numbers (of any list type, nested where shapes are) as (N, D); plain numbers are one wide.

    Raises `DataError` if some are missing, no numbers, or of another length than others.
    """
    with reading(f"the column {name} of {path}"):
        column = _combined(table[name])
        rows = len(column)
        while _is_list(column.type):
            if column.null_count:
                raise DataError(f"{path}: {name} is missing in some rows. {REPAIR}")
            lengths = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise DataError(
                    f"{path}: {name} has rows of the lengths {lengths.tolist()}; they must be alike. {REPAIR}"
                )
            column = _storage(column.flatten())
        return _plain(path, column, name).astype(np.float32).reshape(rows, -1 if rows else 0)


def numbers(path: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of one number a row (or a list of one) as (N,), float64."""
    with reading(f"the column {name} of {path}"):
        column = _flat(path, _combined(table[name]), name)
        return _plain(path, column, name).astype(np.float64)


def integers(path: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    """A column of one whole number a row (or a list of one) as (N,)."""
    with reading(f"the column {name} of {path}"):
        column = _flat(path, _combined(table[name]), name)
        values = _plain(path, column, name)
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
        if values.dtype.kind == "f" and not np.array_equal(values, whole):
            raise DataError(f"{path}: {name} must hold whole numbers. {REPAIR}")
        return whole


def _combined(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return _storage(pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole)


def _storage(column: pa.Array) -> pa.Array:
    """Without the name that another library gave to its type, and without a dictionary."""
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _flat(path: Path, column: pa.Array, name: str) -> pa.Array:
    rows = len(column)
    while _is_list(column.type):
        column = _storage(column.flatten())
    if len(column) != rows:
        raise DataError(f"{path}: {name} must hold one number a row. {REPAIR}")
    return column


def _is_list(kind: pa.DataType) -> bool:
    checks = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, check)(kind) for check in checks if hasattr(pa.types, check))


def _plain(path: Path, column: pa.Array, name: str) -> NDArray:
    if column.null_count:
        raise DataError(f"{path}: {name} is missing in some rows. {REPAIR}")
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{path}: {name} must hold numbers, not {kind}. {REPAIR}")
    return column.to_numpy(zero_copy_only=False)
