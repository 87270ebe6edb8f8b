"""Rows of numbers and texts: lists of dicts, and data frames where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, overload

from gymnast_core.errors import PluginError

if TYPE_CHECKING:
    import pandas

_SHOWN_ROWS, _SHOWN_COLUMNS = 20, 12


class Table(Sequence[Mapping[str, Any]]):
    """Rows by column name. `table[0]["loss"]`, `table.column("loss")`, `table.to_pandas()`."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = list(rows)
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        """In order of their first appearance."""

    def column(self, name: str) -> list[Any]:
        """The values of a column; None in rows that lack it. Raises `KeyError` if no row has it."""
        if name not in self.columns:
            raise KeyError(f"No column {name!r}. There are: {', '.join(self.columns) or 'none'}.")
        return [row.get(name) for row in self.rows]

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame, NaN where a row lacks a number. Raises `PluginError` if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise PluginError(
                "to_pandas() needs pandas, which is not installed. Type `pip install pandas`, or use .rows, a list of "
                "dicts."
            ) from None
        return pandas.DataFrame(self.rows, columns=self.columns)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Table: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Table:
        return Table(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"Table({len(self.rows)} rows: {', '.join(self.columns)})"

    def _repr_html_(self) -> str:
        columns = self.columns[:_SHOWN_COLUMNS]
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row.get(name)))}</td>" for name in columns) + "</tr>"
            for row in self.rows[:_SHOWN_ROWS]
        )
        said = f"{len(self.rows)} rows, {len(self.columns)} columns"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{said}</p>"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
