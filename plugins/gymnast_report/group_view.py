"""All rollouts of a group side by side: which group is filmed, and what the page says of each rollout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gymnast_core.errors import DataError
from gymnast_core.learning import Learned
from gymnast_core.reading import as_record, read_list
from gymnast_core.runs.atomic import write_text
from gymnast_pages.measure import Measure
from gymnast_pages.video import side_by_side, write_poster, write_video
from gymnast_report.groups import GroupRow, IterationRow
from gymnast_report.media import Room, data_uri

INDEX = "groups.json"
"""In `videos/`: which groups are on film."""
MOST = 16
"""Rollouts of a group that are filmed."""
SHOWN = 3
"""Filmed groups that the page shows, the newest ones."""


@dataclass(frozen=True)
class Filmed:
    """A group on film."""

    iteration: int
    label: int
    """Of the group."""
    files: list[str]
    """Names of the videos in `videos/`, a rollout each, without their ending."""


@dataclass(frozen=True)
class Member:
    """One rollout of a group as the page shows it."""

    place: int
    value: float | None
    verdict: str
    advantage: float
    actions: int
    """Those that count."""
    tokens: int
    share: float
    """Of the iteration's influence."""
    video: str | None
    poster: str | None


@dataclass(frozen=True)
class GroupView:
    """A group as the page shows it."""

    iteration: int
    horizon: int
    row: GroupRow
    members: Sequence[Member]


def film_group(videos: Path, row: IterationRow, learned: Learned) -> None:
    """Film the group that weighed most in an iteration, if it is one of `learned`, which of several processes has the
    groups of this one. Repeating the iteration replaces its film."""
    groups = [group for group in row.groups if group.learned and sum(group.influence) > 0]
    if not groups:
        return
    chosen = max(groups, key=lambda group: sum(group.influence))
    rollouts = [rollout for rollout in learned.judged.rollouts if rollout.group == chosen.label][:MOST]
    if not rollouts:
        return
    names = [f"group-{row.iteration:06d}-{place + 1:02d}" for place in range(len(rollouts))]
    for name, rollout in zip(names, rollouts, strict=True):
        picture_THWC = side_by_side(rollout.frames_TVHWC)
        write_video(picture_THWC, videos / f"{name}.mp4")
        write_poster(picture_THWC, videos / f"{name}.jpg")
    others = [filmed for filmed in read_filmed(videos) if filmed.iteration != row.iteration]
    index = [*others, Filmed(row.iteration, chosen.label, names)]
    write_text(videos / INDEX, json.dumps([asdict(filmed) for filmed in index], indent=1))


def read_filmed(videos: Path) -> list[Filmed]:
    """The groups on film; none where there is no index. Raises `DataError`."""
    index = videos / INDEX
    if not index.exists():
        return []
    try:
        return [as_record(Filmed, entry, str(index)) for entry in read_list(index)]
    except DataError as error:
        raise DataError(f"{error} Delete that file to rebuild the report without it.") from error


def group_views(videos: Path, rows: Sequence[IterationRow], measure: Measure, room: Room) -> list[GroupView]:
    """The newest filmed groups that the record knows, as far as there is room for their videos."""
    by_iteration = {row.iteration: row for row in rows}
    views: list[GroupView] = []
    for filmed in sorted(read_filmed(videos), key=lambda found: found.iteration, reverse=True):
        row = by_iteration.get(filmed.iteration)
        group = next((one for one in row.groups if one.label == filmed.label and one.learned), None) if row else None
        if row is None or group is None or len(views) == SHOWN:
            continue
        members = [
            _member(videos, name, place, group, row.total, measure, room)
            for place, name in enumerate(filmed.files[: len(group.values)])
        ]
        views.append(GroupView(row.iteration, row.horizon, group, members))
    return views


def _member(videos: Path, name: str, place: int, group: GroupRow, total: float, measure: Measure, room: Room) -> Member:
    video, poster = videos / f"{name}.mp4", videos / f"{name}.jpg"
    still = data_uri(poster, "image/jpeg") if room.take(poster) else None
    film = data_uri(video, "video/mp4") if still and room.take(video) else None
    value = group.values[place]
    return Member(
        place, value, measure.verdict(value), group.advantages[place], group.actions[place], group.tokens[place],
        group.influence[place] / total if total else 0.0, film, still,
    )  # fmt: skip
