"""What is known of a whole episode beside its frames: success, hindsight, and the simulator behind it.

LeRobot's tables of episodes may have columns of others; these are `gymnast/success` (true, false or nothing),
`gymnast/outcomes` ({instruction: true or false}) and `gymnast/start` ({id, seed, options, args, and view and
instruction where they are known}). Formats whose tables hold plain values alone have the last two as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gymnast_core.config.ranges import INTEGERS, Range
from gymnast_core.errors import DataError
from gymnast_core.reading import JsonObject, as_object, parse_json
from gymnast_core.types import EnvironmentStart, Episode

PREFIX = "gymnast/"
COLUMNS = tuple(PREFIX + name for name in ("success", "outcomes", "start"))
_SEED = Range(least=0, below=INTEGERS)


@dataclass(frozen=True)
class Labels:
    """What is known of one episode."""

    success: bool | None = None
    """Whether the instruction was fulfilled at the end."""
    outcomes: Mapping[str, bool] = field(default_factory=dict)
    """The same of other instructions."""
    start: EnvironmentStart | None = None
    """The simulator that shows the first frame after its reset."""

    def to_record(self) -> dict[str, Any]:
        """As JSON, without what is not known."""
        start = None if self.start is None else asdict(self.start)
        for name in ("view", "instruction"):
            if start is not None and start[name] is None:
                del start[name]  # as it was before anybody said
        found = {"success": self.success, "outcomes": dict(self.outcomes), "start": start}
        return {name: value for name, value in found.items() if value not in (None, {})}


def labels_of(episode: Episode) -> dict[str, Any]:
    """`Labels.to_record` of an episode. Raises `DataError` where the start's arguments are no JSON."""
    record = Labels(episode.success, episode.outcomes, episode.start).to_record()
    try:
        # As it will be read: tuples are lists then.
        return json.loads(json.dumps(record))
    except (TypeError, ValueError) as error:
        raise DataError(f"The start of episode {episode.id!r} cannot be stored: {error}.") from error


def columns(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells of a table of episodes, a row each: every row has the columns that any has."""
    named = [name for name in ("success", "outcomes", "start") if any(name in record for record in records)]
    return [{PREFIX + name: _cell(record.get(name)) for name in named} for record in records]


def read_labels(row: JsonObject) -> Labels:
    """What a row of a table of episodes says. Raises `DataError` for what cannot be."""
    outcomes, start = (_object(row, name) for name in ("outcomes", "start"))
    return Labels(
        row.flag(f"{PREFIX}success", default=None),
        {} if outcomes is None else {text: outcomes.flag(text) for text in outcomes.values},
        None if start is None else _start(start),
    )


def _start(found: JsonObject) -> EnvironmentStart:
    return EnvironmentStart(
        found.text("id"),
        found.integer("seed", _SEED),
        found.object("options").values,
        found.object("args").values,
        None if found.values.get("view") is None else found.object("view").values,
        None if found.values.get("instruction") is None else found.text("instruction"),
    )


def _object(row: JsonObject, name: str) -> JsonObject | None:
    key = PREFIX + name
    if row.values.get(key) is None:
        return None
    if isinstance(row.values[key], dict):
        return row.object(key)
    place = f"{row.place}: {key}"
    return as_object(parse_json(row.text(key), place), place)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
