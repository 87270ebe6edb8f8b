"""What this plugin does during one training: keep rollouts, watch rewards, measure the judge."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from gymnast_core.config import RunConfig
from gymnast_core.errors import GymnastError
from gymnast_core.runs.atomic import write_json
from gymnast_core.types import Reward, Rollout
from gymnast_judging.alarms import AlarmFile, Finding, Window, entries_from_json, entries_to_json
from gymnast_judging.audit import Audit
from gymnast_judging.canary import Canary
from gymnast_judging.options import load_options
from gymnast_judging.stored import prune_scored, store

log = logging.getLogger(__name__)
_WINDOW, _CANARY, _AUDIT = ("constant", "disagreement"), ("canary-blind", "canary-drift"), ("audit",)


class Watch:
    """Over one run, `done` iterations of which are behind."""

    def __init__(self, config: RunConfig, folder: Path, done: int) -> None:
        """Raises `ConfigError` for options that cannot be used, and what the canary's dataset and the judge raise."""
        self.options = options = load_options(folder)
        self._folder, self._judge = folder, config.reward_model
        self._alarms = AlarmFile(folder, done)
        self._window = Window(options.window, options.max_disagreement)
        self._entries = folder / "judging" / "window.json"
        if self._entries.exists():
            entries_from_json(self._window, json.loads(self._entries.read_text(encoding="utf-8")), done)
        self._canary: Canary | None = None
        if options.canary is not None:
            self._canary = Canary(options, self._judge, folder, done=done, iterations=config.loop.iterations)
            if not self._canary.file.rows:
                self._alarms.update(done, self._canary.measure(done), _CANARY)
        self._audit = Audit(options, folder, done=done, iterations=config.loop.iterations) if options.audit else None
        self._last_draw: tuple[Sequence[Rollout], Sequence[Reward]] = ((), ())

    def scored(self, iteration: int, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
        """Rollouts of an iteration (from 1) were judged."""
        self._window.add(iteration, rewards)
        if self._window.is_full:
            self._alarms.update(iteration, self._window.findings(), _WINDOW)
        if self._audit is not None:
            self._last_draw = (rollouts, rewards)
        options = self.options
        store(
            self._folder, f"iteration-{iteration:06d}", rollouts, rewards, self._judge,
            scored_bytes=options.keep_bytes if options.keep_iterations else 0,
        )  # fmt: skip
        prune_scored(self._folder, iteration, keep_iterations=options.keep_iterations, keep_bytes=options.keep_bytes)

    def completed(self, iteration: int) -> None:
        """An iteration (from 1) ended."""
        write_json(self._entries, entries_to_json(self._window))
        audit, canary = self._audit, self._canary
        if audit is not None and iteration % self.options.audit_every == 0:
            self._update(iteration, _AUDIT, lambda: audit.measure(iteration, *self._last_draw))
        self._last_draw = ((), ())  # an iteration that waiting groups fill imagines nothing to be audited
        if canary is not None and iteration % self.options.canary_every == 0:
            self._update(iteration, _CANARY, lambda: canary.measure(iteration))

    def _update(self, iteration: int, kinds: Sequence[str], measure: Callable[[], list[Finding]]) -> None:
        try:
            findings = measure()
        except GymnastError as error:  # a service that is down must not end the run, nor pass for a good judge
            log.warning("No %s in iteration %d: %s", kinds[0].partition("-")[0], iteration, error)
            return
        self._alarms.update(iteration, findings, kinds)
