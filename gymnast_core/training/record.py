"""What becomes of a run while it works: evaluations, metrics, snapshots, what hooks are told, and its end."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file
from torch import nn

from gymnast_core.config.schema import RunConfig
from gymnast_core.errors import GymnastError, PluginError
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.learning import Learned
from gymnast_core.plain import is_plain
from gymnast_core.plugins import events
from gymnast_core.plugins.hooks import tell
from gymnast_core.runs.atomic import atomic_directory, storing
from gymnast_core.runs.commands import resume_command
from gymnast_core.runs.spending import Payment, note, read_payments, spent_usd
from gymnast_core.runs.writing import SnapshotWriter
from gymnast_core.training.collect import Collector
from gymnast_core.training.saved import SavedDifference, compare_saved, warn_of
from gymnast_core.training.tasks import TaskOrder
from gymnast_core.training.update import Updater
from gymnast_core.types import Reward, Rollout

logger = logging.getLogger(__name__)
TOTALS = ("rollouts", "unscored", "groups_kept", "groups_dropped")
"""Sums that a summary gives over the whole run."""
SNAPSHOT_SHARE = 0.05
"""Share of a run's time that snapshots take at most, unless its config says otherwise: the seconds in which the run
stands still for them, and the processor's time that writing them takes beside it."""


class Running(Protocol):
    """What the record asks a loop."""

    iteration: int
    """Iterations done."""
    policy: Policy
    extra: nn.ModuleDict
    """What the optimizer trains beside it."""
    order: TaskOrder
    collector: Collector
    updater: Updater

    def state_dict_of_run(self) -> dict[str, Any]: ...


class RunRecord:
    """Keeps the record of one run. Of several processes, the leader alone writes and speaks."""

    def __init__(self, config: RunConfig, parts: Parts, folder: Path | None, done: int = 0) -> None:
        """`done` iterations are behind the run; a follower does not know the `folder` yet."""
        self._config, self._parts, self._folder, self._done = config, parts, folder, done
        self._began = self._last_snapshot = time.monotonic()
        self._snapshot_seconds: float | None = None
        self._writer = SnapshotWriter(parts.processes)
        self._seconds_before = 0.0
        self._totals: dict[str, float] = {}
        self._measured: dict[str, dict[str, Any]] = {}
        self._saved: SavedDifference | None = None
        self._snapshot_of = done
        """Iterations behind the newest snapshot."""
        self.finished = False
        """Whether `finish` was called."""
        self.stopped: str | None = None
        """Why the run ends before its last iteration; None as long as it does not."""
        self.learned: Learned | None = None
        """What the iteration that is about to be done learned from."""
        self.summary: dict[str, Any] = {}
        """What the command prints; filled by `finish`."""

    @property
    def folder(self) -> Path:
        """The run's folder; of a follower, known once `join` was called."""
        assert self._folder is not None
        return self._folder

    def join(self) -> None:
        """Called in every process once they can talk: the followers learn where the leader works."""
        folder = Path(self._parts.processes.broadcast(str(self._folder)))
        self._folder = folder
        self._config = replace(self._config, output=str(folder))

    def event(self, kind: Any, **fields: Any) -> Any:
        """An event of this run."""
        given = {"step": self._done, **fields}
        return kind(config=self._config, folder=self.folder, parts=self._parts, **given)

    def tell(self, hook: str, kind: Any, **fields: Any) -> None:
        """Tell the hooks of the leader."""
        if self._parts.processes.leads:
            tell(hook, self.event(kind, **fields))

    def listener(self, iteration: int) -> "_Listener":
        """Who is told what iteration `iteration` (from 0) imagined."""
        return _Listener(self, iteration)

    def paid(self, what: str, step: int, usd: float | None) -> None:
        """Note what all processes' judges were paid; None if that is not known."""
        if self._parts.processes.leads:
            note(self.folder, Payment(what, step, usd))

    def evaluate(self, label: str, step: int) -> dict[str, Any]:
        """What the hooks measure of the policy, in all processes; an error there ends the run."""
        event = self.event(events.EvaluationWanted, step=step, label=label)
        results = tell("gymnast_evaluate", event, passing=(Exception,))
        found: dict[str, Any] = {}
        for part in results:
            if not isinstance(part, Mapping) or not is_plain(part):
                raise PluginError(
                    f"A hook gymnast_evaluate returned a {type(part).__name__}, {part!r:.80}; it returns numbers by "
                    "name, which are Python's own (or text, None, lists and mappings of them), or None. `gymnast "
                    "plugins` lists the hook plugins."
                )
            found |= part
        self._measured[label] = found
        return found

    def steer(self, step: int, left_out: Mapping[str, Sequence[str]]) -> events.Steering:
        """What the hooks want of the rest of the run, the leader's word in all processes; an error there ends it."""
        answers = tell(
            "gymnast_steer", self.event(events.SteeringWanted, step=step, left_out=left_out), passing=(Exception,)
        )
        for answer in answers:
            if not isinstance(answer, events.Steering):
                raise PluginError(
                    f"A hook gymnast_steer returned a {type(answer).__name__}, {answer!r:.80}; it returns an "
                    "events.Steering, or None. `gymnast plugins` lists the hook plugins."
                )
        return self._parts.processes.broadcast(events.Steering.joined(answers))

    def iteration_done(self, loop: Running, numbers: dict[str, float]) -> None:
        """An iteration is complete: its numbers, an evaluation and a snapshot if they are due."""
        self._done = loop.iteration
        for name in TOTALS:
            numbers.setdefault(name, 0.0)
            self._totals[name] = self._totals.get(name, 0.0) + numbers[name]
        numbers.setdefault("cost_usd", 0.0)
        numbers["rollouts_per_second"] = numbers["rollouts"] / max(numbers["seconds_imagining"], 1e-9)
        tell("gymnast_iteration_learned", self.event(events.IterationLearned, learned=self.learned))
        self.tell("gymnast_metrics", events.StepDone, metrics=numbers, learned=self.learned)
        self.learned = None  # it holds all frames
        # Evaluated first: a run that is killed in between repeats the iteration, evaluation included.
        every = self._config.evaluation.every
        if every and self._done % every == 0:
            self.evaluate(f"iteration-{self._done:06d}", self._done)
        self._writer.check()
        if self._parts.processes.broadcast(self._snapshot_is_due()):
            began = time.monotonic()
            self.snapshot(loop)
            self._last_snapshot = time.monotonic()
            self._snapshot_seconds = self._last_snapshot - began

    def _snapshot_is_due(self) -> bool:
        every, share = self._config.checkpoint_every, self._config.checkpoint_share or SNAPSHOT_SHARE
        if self._done == self._config.loop.iterations or self.stopped is not None:
            return True
        if every is not None:
            return self._done % every == 0
        if self._snapshot_seconds is None:
            return True
        cost = self._snapshot_seconds + self._writer.load_seconds
        return not self._writer.busy and time.monotonic() - self._last_snapshot >= cost * (1 - share) / share

    def snapshot(self, loop: Running) -> None:
        """Copy everything that the next iteration depends on, to be written meanwhile; all processes take part."""
        # Of weights that are shared out, every process gives its part to the leader's state.
        asked = self._parts.processes.leads or loop.updater.shared_out
        state = {**loop.state_dict_of_run(), "record": self.state_dict()} if asked else {}
        state = state if self._parts.processes.leads else {}
        self._writer.write(self.folder / "snapshots", self._done, state, own=loop.collector.state_dict())
        self._snapshot_of = self._done

    def keep(self, loop: Running) -> None:
        """The trainer ends before the last iteration: a snapshot of what was done."""
        if self._snapshot_of != self._done:
            self.snapshot(loop)
        self._writer.wait()

    def check_finished(self) -> None:
        """The trainer has ended. Raises `GymnastError` if that was before the last iteration."""
        if self.finished:
            return
        raise GymnastError(
            f"The trainer ended after {self._done} of {self._config.loop.iterations} iterations, which an option under "
            "trainer does (max_time, limit_train_batches, fast_dev_run): the policy is neither saved nor measured. "
            f"Set loop.iterations lower for a shorter run; or go on, without that option or with the same one: "
            f"{resume_command('train', self.folder)}"
        )

    def close(self) -> None:
        """However the run ends: wait for the snapshot that is being written."""
        self._writer.close()

    def finish(self, loop: Running) -> None:
        """The last iteration is done: save the policy, measure it, sum up."""
        self.finished = True
        self._writer.wait()
        if self.stopped is not None and self._parts.processes.leads:
            logger.warning("Stopped in iteration %d. %s", loop.iteration, self.stopped)
        if self._parts.processes.leads:
            self._save(loop)
            self._compare_saved(loop)
        self._parts.processes.wait()
        after = self.evaluate("after", loop.iteration)
        summary: dict[str, Any] = {"output": str(self.folder), "iterations": loop.iteration}
        summary |= {"updates": loop.updater.updates, "seconds": self.seconds, **self._totals}
        summary["cost_usd"] = spent_usd(self.folder)
        summary |= {} if self.stopped is None else {"stopped": self.stopped}
        summary |= {"left_out": loop.order.left_out} if loop.order.left_out else {}
        before = self._measured.get("before", {})
        if before or after:
            difference = after.pop("difference", None)
            summary |= {"before": before} if before else {}
            summary["after"] = after
            summary |= {} if difference is None else {"difference": difference}
        if self._saved is not None:
            summary["saved_policy"] = asdict(self._saved)
        self.summary = summary

    def _save(self, loop: Running) -> None:
        """The trained policy, and beside it what the optimizer trained with it."""
        with storing(self.folder / "policy"):
            loop.policy.save(self.folder / "policy")
        if loop.extra:
            with atomic_directory(self.folder / "optimizer") as folder:
                for name, module in loop.extra.items():
                    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
                    save_file(tensors, str(folder / f"{name}.safetensors"))

    def _compare_saved(self, loop: Running) -> None:
        """Note how the saved policy differs from the live one, and warn of one that is another."""
        if not self._config.check_saved or not self._config.loop.iterations:
            return
        folder = self.folder / "policy"
        try:
            self._saved = compare_saved(loop.policy, folder, self._parts)
        except Exception as error:
            # The run is done, and its policy is written: that it cannot be loaded here must not take the rest along,
            # whatever a plugin raises.
            reason = str(error) if isinstance(error, GymnastError) else f"{type(error).__name__}: {error}"
            logger.warning("The policy saved in %s could not be loaded and compared: %s", folder, reason)
            logger.debug("Traceback:", exc_info=True)
            return
        if self._saved is not None:
            warn_of(self._saved, folder)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the whole run, over all its processes' lives as far as snapshots know them."""
        return self._seconds_before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "totals": dict(self._totals), "stopped": self.stopped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._seconds_before, self._totals = float(state["seconds"]), dict(state["totals"])
        # An earlier edition kept costs here, of the iterations that were done.
        earlier = self._totals.pop("cost_usd", 0.0)
        if self._folder is not None and not read_payments(self._folder):
            self.paid("training", self._done, earlier)
        self.stopped = state.get("stopped")


class _Listener:
    """Tells the hooks of every process what it imagined."""

    def __init__(self, record: RunRecord, iteration: int) -> None:
        self._record, self._iteration = record, iteration

    def imagined(self, rollouts: Sequence[Rollout]) -> None:
        event = self._record.event(events.RolloutsImagined, step=self._iteration, rollouts=rollouts)
        tell("gymnast_rollouts_imagined", event)

    def judged(self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]) -> None:
        event = self._record.event(events.RewardsScored, step=self._iteration, rollouts=rollouts, rewards=rewards)
        tell("gymnast_rewards_scored", event)

    def paid(self, usd: float | None) -> None:
        self._record.paid("training", self._iteration, usd)
