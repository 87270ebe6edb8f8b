"""What the leader of a training does: watch the rewards of all processes, measure the judge, make room on the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gymnast_core.errors import GymnastError, StorageError
from gymnast_core.plugins.events import RewardsScored, RunEvent
from gymnast_core.reading import read_json
from gymnast_core.runs.atomic import write_json
from gymnast_core.types import Reward, Rollout
from gymnast_judging.alarms import AlarmFile, Entry, Finding, Window, entries_from_json, entries_to_json
from gymnast_judging.audit import Audit
from gymnast_judging.canary import Canary
from gymnast_judging.options import Config
from gymnast_judging.stored import prune_scored, prune_unscored

log = logging.getLogger(__name__)
_WINDOW, _CANARY, _AUDIT = ("constant", "disagreement"), ("canary-blind", "canary-drift"), ("audit",)


class Watch:
    """Over one run, `done` iterations of which are behind."""

    def __init__(self, event: RunEvent, options: Config, done: int) -> None:
        """Raises `ConfigError` for options that cannot be used, and what the canary's dataset and the judge raise."""
        self.options, self._folder = options, event.folder
        judge, iterations = event.parts.reward_model, event.config.loop.iterations
        self._alarms = AlarmFile(event.folder, done)
        self._window = Window(
            options.window, options.max_disagreement, judges_success=judge is None or judge.kind == "success"
        )
        self._entries = event.folder / "judging" / "window.json"
        if self._entries.exists():
            entries_from_json(self._window, read_json(self._entries), done)
        self._canary: Canary | None = None
        if options.canary is not None:
            part, parts = event.config.reward_model, event.parts
            self._canary = Canary(options, part, event.folder, done=done, iterations=iterations, parts=parts)
            if self._canary.is_new:
                self._alarms.update(done, self._canary.measure(done), _CANARY)
        self._audit: Audit | None = None
        if options.audit is not None:
            self._audit = Audit(options, event.folder, done=done, iterations=iterations, parts=event.parts)
        self._last_draw: tuple[Sequence[Rollout], Sequence[Reward]] = ((), ())

    def scored(self, iteration: int, entries: Sequence[Entry], event: RewardsScored) -> None:
        """Rollouts of an iteration (from 1) were judged: `entries` by all processes, those of the event by this one."""
        self._window.add(iteration, entries)
        if self._window.is_full:
            self._alarms.update(iteration, self._window.findings(), _WINDOW)
        if self._audit is not None:
            self._last_draw = (event.rollouts, event.rewards)

    def completed(self, iteration: int) -> None:
        """An iteration (from 1) ended; no process keeps rollouts before this one takes part in the next."""
        options, audit, canary = self.options, self._audit, self._canary
        prune_scored(self._folder, iteration, keep_iterations=options.keep_iterations, keep_bytes=options.keep_bytes)
        if removed := prune_unscored(self._folder, options.keep_unscored_bytes):
            log.warning(
                "%d parts of rollouts that could not be judged were removed from %s: the oldest beyond "
                "hooks.judging.keep_unscored_bytes=%d. Judge them sooner with gymnast rescore, or raise that.",
                removed, self._folder / "rollouts" / "unscored", options.keep_unscored_bytes,
            )  # fmt: skip
        write_json(self._entries, entries_to_json(self._window))
        if audit is not None and iteration % options.audit_every == 0:
            self._update(iteration, _AUDIT, lambda: audit.measure(iteration, *self._last_draw))
        self._last_draw = ((), ())  # an iteration that waiting groups fill imagines nothing to be audited
        if canary is not None and iteration % options.canary_every == 0:
            self._update(iteration, _CANARY, lambda: canary.measure(iteration))

    def _update(self, iteration: int, kinds: Sequence[str], measure: Callable[[], list[Finding]]) -> None:
        try:
            findings = measure()
        except StorageError:
            raise
        except GymnastError as error:  # a service that is down must not end the run, nor pass for a good judge
            log.warning("No %s in iteration %d: %s", kinds[0].partition("-")[0], iteration, error)
            return
        self._alarms.update(iteration, findings, kinds)
