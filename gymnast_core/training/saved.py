"""Whether the policy that was saved is the one that was trained and measured: it is loaded again and asked the same.

Saving merges adapters and rounds to the checkpoint's dtype; loading may round again. What that changes is measured on
what the run's tasks begin with, and told.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gymnast_core.closing import closing
from gymnast_core.errors import GymnastError
from gymnast_core.hub import config_of_saved
from gymnast_core.interfaces import Parts, Policy
from gymnast_core.processes import Alone
from gymnast_core.rollouts.answers import checked_chunk, checked_evaluation
from gymnast_core.rollouts.imagine import sight_of
from gymnast_core.types import ActionChunk, Observation

logger = logging.getLogger(__name__)

TOLERANCE = 0.05
"""Mean absolute difference of the log-probabilities, nats a factor, above which the saved policy counts as another one.
In bfloat16 a merged adapter differs by about 0.01."""
_TASKS = 16


@dataclasses.dataclass(frozen=True)
class SavedDifference:
    """The saved policy beside the live one, on the live one's most likely actions."""

    decisions: int
    log_prob_mean: float | None
    """Mean absolute difference of log-probabilities, nats a factor; None if the policy has none."""
    log_prob_max: float | None
    """Largest one."""
    actions_changed: float
    """Share of actions' components in which the most likely action became another."""

    @property
    def is_the_same(self) -> bool:
        """Within `TOLERANCE`; of a policy without log-probabilities, if most actions are the same."""
        if self.log_prob_mean is None:
            return self.actions_changed <= TOLERANCE
        return self.log_prob_mean <= TOLERANCE


def compare_saved(policy: Policy, folder: Path, parts: Parts) -> SavedDifference | None:
    """Load what `policy` wrote into `folder`, beside it, and compare the two; None if its `Config` has no `checkpoint`.

    Raises what loading raises.
    """
    if "checkpoint" not in {item.name for item in dataclasses.fields(type(policy).Config)}:
        return None
    with closing(_loaded(policy, folder)) as again:
        again.attach(dataclasses.replace(parts, policy=again, processes=Alone()))
        return difference(policy, again, _observation(parts))


def warn_of(found: SavedDifference, folder: Path) -> None:
    """Say so if the saved policy is another one."""
    if found.is_the_same:
        return
    apart = "" if found.log_prob_mean is None else f"log-probabilities are {found.log_prob_mean:.2g} nats apart, "
    logger.warning(
        "The policy saved in %s is not the one that was trained and measured: %sand %.0f %% of the likeliest actions' "
        "components differ (%d decisions; at most %g nats are allowed). Measure it with `gymnast evaluate` before you "
        "use it, or train with float32 weights (policy.args.dtype=float32), which are saved as they are.",
        folder, apart, 100 * found.actions_changed, found.decisions, TOLERANCE,
    )  # fmt: skip


@torch.no_grad()
def difference(live: Policy, saved: Policy, observation: Observation) -> SavedDifference:
    """What the one does, and how likely the other finds it."""
    decisions = len(observation.instructions)
    chunk, other = (
        checked_chunk(policy, policy.act(observation, temperature=0.0), decisions) for policy in (live, saved)
    )
    changed = (chunk.actions_BLA.cpu() != other.actions_BLA.cpu()) & ~torch.isclose(
        chunk.actions_BLA.cpu(), other.actions_BLA.cpu(), rtol=1e-3, atol=1e-6
    )
    first, second = (_log_prob(policy, observation, chunk) for policy in (live, saved))
    share = float(changed.double().mean())
    if first is None or second is None:
        return SavedDifference(decisions, None, None, share)
    apart = (first - second).abs()
    return SavedDifference(decisions, float(apart.mean()), float(apart.max()), share)


def _log_prob(policy: Policy, observation: Observation, chunk: ActionChunk) -> Tensor | None:
    """Of a policy for evaluation only, None."""
    if bool(chunk.log_prob_BLD.isnan().any()):
        return None
    found = policy.evaluate(observation, chunk, temperature=1.0)
    return checked_evaluation(policy, found, chunk).log_prob_BLD.double().cpu()


def _loaded(policy: Policy, folder: Path) -> Policy:
    """The saved policy as a user would load it, where the live one is."""
    cls: Any = type(policy)
    try:
        again = cls(config_of_saved(policy.config, folder))
    except GymnastError:
        # What a checkpoint fixes may be refused beside one.
        again = cls(cls.Config(checkpoint=str(folder)))
    device = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
    loaded: Policy = again.to(device).eval()
    return loaded


def _observation(parts: Parts) -> Observation:
    """What the first of the run's tasks begin with."""
    assert parts.policy is not None and parts.world_model is not None
    tasks: Sequence[Any] = [parts.tasks[index] for index in range(min(_TASKS, len(parts.tasks)))]
    tasks = [task for task in tasks if task.cameras == tasks[0].cameras]
    sight = sight_of(parts.policy, parts.world_model, tasks)
    starts = [sight.start(task) for task in tasks]
    readings = [proprio_TP for _, proprio_TP in starts if proprio_TP is not None]
    observation = sight.observe(
        torch.stack([frames_TVHWC for frames_TVHWC, _ in starts]),
        torch.stack(readings) if len(readings) == len(starts) else None,
        tuple(task.instruction for task in tasks),
    )
    device = next((parameter.device for parameter in parts.policy.parameters()), torch.device("cpu"))
    return observation.to(device)
