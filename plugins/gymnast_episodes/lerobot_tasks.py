"""Instructions of a LeRobotDataset: the table of tasks, and what a row of an episode has to do with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from gymnast_core.config.ranges import Range
from gymnast_core.errors import DataError
from gymnast_core.reading import as_object, read_json_lines
from gymnast_episodes.foreign import reading, writable
from gymnast_episodes.lerobot_layout import AGAIN, Entry, Info
from gymnast_episodes.tables import integers, read_table

log = logging.getLogger(__name__)


class TaskTable:
    """Instructions by `task_index`; empty where the dataset has no table of them."""

    def __init__(self, info: Info) -> None:
        # v3.0 has the first, v2 the second; datasets that were turned from one into the other by hand have either.
        makers = {"tasks.parquet": _of_parquet, "tasks.jsonl": _of_lines}
        names = list(makers) if info.version == "v3.0" else list(makers)[::-1]
        self.path = next((path for name in names if (path := info.root / "meta" / name).is_file()), None)
        self._texts: Mapping[int, str] = {} if self.path is None else makers[self.path.name](self.path)
        self._root = info.root
        self._told = False

    def instruction(self, entry: Entry, task: int, default: str | None) -> str:
        """What an episode's frame is about, whose row has this `task_index` (-1: it has none).

        The table decides; without it, or without the index, the one task that the episode's metadata names; where
        nobody says anything, `default`. Raises `DataError` if that leaves nothing, or a choice.
        """
        named = [self._text(entry, name).strip() for name in entry.tasks]
        named = list(dict.fromkeys(text for text in named if text))
        if self._texts and task != -1:
            text = self._text(entry, task).strip()
            if text and named and text not in named and not self._told:
                self._told = True
                log.warning(
                    "%s: task %d is %r in %s, but episode %d is said to be about %r. The table is right here and "
                    "wherever they differ.",
                    self._root, task, text, self.path, entry.index, named,
                )  # fmt: skip
            named = [text] if text else []
        elif len(named) > 1:
            raise DataError(
                f"Episode {entry.index} of {self._root} is about several tasks ({', '.join(map(repr, named[:3]))}), "
                f"and its rows do not say which: there is no table of tasks, or no task_index. {AGAIN}"
            )
        if chosen := (named[0] if named else (default or "").strip()):
            return chosen
        raise DataError(
            f"Episode {entry.index} of {self._root} has no instruction: it names no task. "
            'Give one for the whole dataset: instruction="...".'
        )

    def _text(self, entry: Entry, task: str | int) -> str:
        if isinstance(task, str):
            return task
        if task not in self._texts:
            known = ", ".join(map(str, list(self._texts)[:5])) or "none"
            raise DataError(
                f"Episode {entry.index} of {self._root} is about task {task}, which "
                f"{self.path or 'no table of tasks in meta'} does not list (known: {known}). {AGAIN}"
            )
        return self._texts[task]


def _of_lines(path: Path) -> dict[int, str]:
    rows = [as_object(row, f"{path}, task {i} of the file", DataError) for i, row in enumerate(read_json_lines(path))]
    return _unique(path, [(row.integer("task_index", Range(least=0)), row.text("task")) for row in rows])


def _of_parquet(path: Path) -> dict[int, str]:
    table = read_table(path)
    # Written by pandas, whose row labels (the instructions) may be stored under several names.
    texts = [field.name for field in table.schema if _is_text(field.type)]
    if "task_index" not in table.column_names or not texts or (len(texts) > 1 and "task" not in texts):
        raise DataError(f"{path} has the columns {table.column_names}; it must have task_index and the task. {AGAIN}")
    indices = integers(path, table, "task_index").tolist()
    with reading(f"the file {path}", AGAIN):
        named = table["task" if "task" in texts else texts[0]].to_pylist()
    return _unique(path, list(zip(indices, (text or "" for text in named), strict=True)))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _unique(path: Path, rows: list[tuple[int, str]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, text in rows:
        if found.setdefault(index, text) != text:
            raise DataError(f"{path} lists task {index} twice, as {found[index]!r} and {text!r}. {AGAIN}")
        if not writable(text):
            raise DataError(f"{path}: task {index} is {text!r}, which cannot be written as text. {AGAIN}")
    return found
