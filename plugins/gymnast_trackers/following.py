"""When a run is sent to a tracker, and what happens when that fails.

A step that a killed run makes again must not appear twice, and no tracker takes a point back. So a step is sent once a
snapshot stands behind it, and everything comes from the run folder: what could not be sent is sent later, by this
process or by one that resumes the run. No failure ends a run: it is told once and counted.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gymnast_core.errors import StorageError
from gymnast_core.network.secrecy import Mask, secrets_in
from gymnast_core.network.wording import shown
from gymnast_core.reading import read_object
from gymnast_core.runs.atomic import storing, write_json
from gymnast_core.runs.commands import resume_command
from gymnast_pages.built import BUILT
from gymnast_trackers.points import newest_snapshot, points, summary_numbers
from gymnast_trackers.secrets import KEYS, without_secrets
from gymnast_trackers.sink import Opening, Sink

if TYPE_CHECKING:
    from gymnast_core.plugins.events import RunDone, RunEvent, RunStarted, RunStopped, StepDone

logger = logging.getLogger("gymnast_core.trackers")
PAUSE_SECONDS = 30.0
"""After the first failure; each further one in a row doubles it."""
LONGEST_PAUSE_SECONDS = 1800.0


class Options(Protocol):
    """What every tracker is told."""

    @property
    def videos(self) -> int: ...

    @property
    def live(self) -> bool: ...


@dataclass
class _Followed:
    """A run of this process."""

    event: RunEvent
    options: Any
    total: int
    sink: Sink | None = None
    sent: int = -1
    """The last step that the tracker has."""
    failures: int = 0
    pause: float = PAUSE_SECONDS
    again: float = 0.0
    """When to try again after a failure (monotonic clock)."""


class Following:
    """What one kind of tracker follows in this process."""

    def __init__(self, name: str, kind: type, open_sink: Callable[[Any, Opening], Sink]) -> None:
        """`name` is the section of the config, `kind` its dataclass (`Options`); `open_sink` opens a run."""
        self._name, self._kind, self._open = name, kind, open_sink
        self._runs: dict[Path, _Followed] = {}

    def started(self, event: RunStarted) -> None:
        """Begin to follow a run whose config has the section."""
        if self._name in getattr(event.config, "hooks", {}):
            self._follow(event, event.total)
            self._attempt(self._runs[event.folder], lambda run: self._send(run, newest_snapshot(event.folder)))

    def stepped(self, event: StepDone) -> None:
        """A step is complete; evaluations and videos of it may follow, so that the one before is sent at most."""
        if (run := self._runs.get(event.folder)) is not None:
            self._attempt(run, lambda run: self._send(run, self._settled(run, event.step - 1)))

    def stopped(self, event: RunStopped) -> None:
        """The steps ended. A run that is not complete ends here, until it is resumed."""
        run = self._runs.get(event.folder)
        if run is None:
            return
        if event.error is None and event.step >= run.total:
            return  # its summary and its page are to come
        run.again = 0.0
        self._attempt(run, lambda run: self._send(run, self._settled(run, event.step)))
        self._close(run, complete=False)

    def done(self, event: RunDone) -> None:
        """Send the rest, the summary and the page."""
        if self._name not in getattr(event.config, "hooks", {}):
            return
        if event.folder not in self._runs:  # `gymnast evaluate` tells of its end alone; a run may stop early
            self._follow(event, event.step)
        run = self._runs[event.folder]
        run.again = 0.0
        self._attempt(run, lambda run: self._send_all(run, event))
        self._close(run, complete=True)

    def _follow(self, event: RunEvent, total: int) -> None:
        self._runs[event.folder] = _Followed(event, event.section(self._name, self._kind), total)

    def _settled(self, run: _Followed, step: int) -> int:
        """The last step that may be sent: one that cannot be made again, or that is taken back if it is."""
        at_once = run.options.live or (run.sink is not None and run.sink.rewrites)
        return step if at_once else min(step, newest_snapshot(run.event.folder))

    def _send_all(self, run: _Followed, event: RunDone) -> None:
        self._send(run, math.inf)
        assert run.sink is not None
        run.sink.summarise(summary_numbers(event.summary))
        page = BUILT.get(event.config.kind)
        if page is not None and (event.folder / page).is_file():
            run.sink.attach(event.folder / page)

    def _send(self, run: _Followed, upto: float) -> None:
        """The steps up to `upto` that the tracker lacks; the last step of a run only once that is complete."""
        sink = self._opened(run)
        upto = upto if upto == math.inf else min(upto, run.total - 1)
        if upto <= run.sent:
            return
        for point in points(run.event.folder, upto, run.total, run.options.videos):
            if point.step > run.sent and not sink.has(point.step):
                sink.send(point)
            run.sent = max(run.sent, point.step)

    def _opened(self, run: _Followed) -> Sink:
        """The sink; under the name that is kept in the run folder, if there is one."""
        if run.sink is None:
            folder, config = run.event.folder, run.event.config
            known = self._kept(folder)
            values = without_secrets(asdict(config))
            opening = Opening(folder, config.kind, values, known.get("run"))
            run.sink, run.sent = self._open(run.options, opening), -1
            if known.get("run") != run.sink.run:
                with storing(self._file(folder)):
                    self._file(folder).parent.mkdir(exist_ok=True)
                write_json(self._file(folder), {"run": run.sink.run})
        return run.sink

    def _file(self, folder: Path) -> Path:
        return folder / "trackers" / f"{self._name}.json"

    def _kept(self, folder: Path) -> Mapping[str, Any]:
        file = self._file(folder)
        return read_object(file).values if file.is_file() else {}

    def _close(self, run: _Followed, complete: bool) -> None:
        self._runs.pop(run.event.folder, None)
        if run.sink is not None:
            sink = run.sink
            self._attempt(run, lambda run: sink.finish(complete))
        if run.failures:
            logger.warning(
                "hooks.%s: %d attempts failed. What is not there is in %s, and `%s` sends it.",
                self._name, run.failures, run.event.folder / "metrics.csv",
                resume_command(run.event.config.kind, run.event.folder),
            )  # fmt: skip

    def _attempt(self, run: _Followed, what: Callable[[_Followed], None]) -> None:
        """Do it, unless it failed a moment ago; a disk that refuses ends the run, as everywhere, and nothing else."""
        if time.monotonic() < run.again:
            return
        try:
            what(run)
            run.pause = PAUSE_SECONDS
        except StorageError:
            raise
        except Exception as error:
            run.failures += 1
            mask = Mask(secrets_in(KEYS))
            if run.failures == 1:
                reason = shown(f"{type(error).__name__}: {error}", mask)
                logger.warning(
                    "hooks.%s: the tracker failed (%s). The run goes on; it is tried again, and told no more.",
                    self._name, reason,
                )  # fmt: skip
            logger.debug("%s", mask(traceback.format_exc()))
            run.again = time.monotonic() + run.pause
            run.pause = min(2 * run.pause, LONGEST_PAUSE_SECONDS)
